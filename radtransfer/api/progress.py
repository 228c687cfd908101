"""Progress of functions in notebooks and scripts; their messages name arguments instead of options."""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from radtransfer.errors import RadtransferError
from radtransfer.files import decimal, printable_lines
from radtransfer.process import Progress

_OPTION = re.compile(r"(?<![\w-])--(?!(?:break-lock|set)\b)(no-)?([a-z][a-z-]*[a-z])")
_SETTING = re.compile(r"--set (?!arms\.|sources\.)(?=\w)")
_COMMAND = re.compile(r"(`[^`]*`|\bradtransfer [a-z-]+ [^\n]*)")


def as_arguments(text: str) -> str:
    """A message of a command as one of its function: `--label-column` becomes `label_column`, commands stay."""

    def argument(found: re.Match) -> str:
        name = "class_" if found[2] == "class" else found[2].replace("-", "_")
        return f"`{name}=False`" if found[1] else f"`{name}`"

    parts = _COMMAND.split(text)
    parts[::2] = (_OPTION.sub(argument, _SETTING.sub("", part)) for part in parts[::2])
    return "".join(parts)


class ShownProgress(Progress):
    """Shows notes and epochs as lines on standard error, counts as a bar where there is a terminal or a notebook."""

    def __init__(self, *, quiet: bool = False):
        self._quiet = quiet
        self._bar: Any = None
        self._what = ""

    def note(self, text: str) -> None:
        if not self._quiet:
            self._line(text)

    def warning(self, text: str) -> None:
        self._line(f"warning: {text}")

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        for title, text in (short or rows).items():
            self.note(f"{title:<9} {text.replace(chr(10), chr(10) + ' ' * 10)}")

    def count(self, what: str, done: int, total: int) -> None:
        if self._quiet or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            return
        from tqdm.auto import tqdm

        if self._bar is None or self._what != what:
            self.clear()
            self._bar, self._what = tqdm(total=total, desc=what, leave=False), what
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.clear()

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        best = " *" if row["best"] else ""
        figures = f"loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}  val_auc {decimal(row['val_auc'])}"
        self.note(f"fold {fold}/{folds} epoch {row['epoch']}/{epochs}  {figures}{best}")

    def study_changed(self, state: Any) -> None:
        self.count("runs", len(state.done), len(state.plan.runs))

    def run_ended(self, state: Any, run: Any, outcome: Any) -> None:
        ended, reason = len(state.done) + len(state.failed), f": {outcome.error}" if outcome.error else ""
        self.note(f"{ended}/{len(state.plan.runs)} {outcome.status}  {run.cell.name}{reason}")

    def clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, text: str) -> None:
        from tqdm import tqdm

        self.clear()
        tqdm.write(printable_lines(as_arguments(text)), file=sys.stderr)


@contextmanager
def shown(progress: Progress | None = None, quiet: bool = True) -> Iterator[Progress]:
    """The progress of a function; errors name arguments, unless the caller gave a `progress`."""
    shows = ShownProgress(quiet=quiet) if progress is None else progress
    try:
        yield shows
    except RadtransferError as error:
        if progress is None and error.args:
            error.args = (as_arguments(str(error)), *error.args[1:])
        raise
    finally:
        shows.clear()
