"""What the commands print (`show`, `show_json`, `show_file`, `draw`, progress), interrupts, and TensorFlow's banner.

Names of files, classes and columns may hold anything. Nothing in them reaches the terminal that would steer it.
"""

import _thread
import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from radtransfer.files import decimal, json_text, printable, printable_lines
from radtransfer.process import Progress, exit_after_signal, import_keras, on_forced_exit

_GRACE = 1.0
"""Seconds after which a process that was interrupted is ended wherever it is."""


def heed_interrupts(leave: Callable[[], None] = lambda: None) -> None:
    """Let SIGTERM interrupt like Ctrl-C, let no interrupt be lost, and none be answered late.

    Python drops what is raised while an object is finalized, so a signal that comes just then would go unheard and
    the command would run to its end. `leave` is called where the process is ended from outside its main thread.
    """

    def last() -> None:
        leave()
        os.write(2, b"Error: Interrupted.\n")

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    def give_again() -> None:
        time.sleep(0.05)
        _thread.interrupt_main(signal.SIGTERM)

    def heed(unraisable) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Thread(target=give_again, daemon=True).start()
        else:
            sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = heed
    exit_after_signal(_GRACE, last=last)


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM: compiled modules turn an interrupt of their import into any other error."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def import_tensorflow(*, compute: bool = True) -> None:
    """Import TensorFlow and Keras; what they print to stderr is shown only if they fail.

    With `compute` it begins to use its devices, which prints as well; afterwards they cannot be arranged any more.

    The banner is written by compiled code past `sys.stderr`, before any log level is read: only the file
    descriptor can keep it away.
    """
    if "tensorflow" in sys.modules:
        import_keras()
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with interrupts_later(), on_forced_exit(lambda: os.dup2(shown, 2)), tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import_keras()
            import tensorflow as tf

            tf.config.list_physical_devices()
            if compute:
                tf.zeros([])
        except Exception:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)


class Painted(str):
    """Text that is safe for the terminal already: ours, with colours."""


def painted(text: str, **style: Any) -> Painted:
    """`text` in the colours of `click.style`."""
    return Painted(click.style(printable(text), **style))


def line(*parts: str) -> Painted:
    """One line of several parts, some of them painted."""
    return Painted("".join(part if isinstance(part, Painted) else printable(part) for part in parts))


def show(*lines: str, err: bool = False) -> None:
    """Print lines of text; what steers a terminal is shown as an escape, also a line break within a line."""
    if lines:
        click.echo("\n".join(map(line, lines)), err=err)


def show_json(value: Any) -> None:
    click.echo(json_text(value, indent=2))


def show_file(text: str, *, is_row: bool = False) -> None:
    """Print what is meant for a file: as it is, except on a terminal; the cells of a row may hold line breaks."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False, color=True)  # else click takes out of names what looks like a colour
    elif text:
        whole = text.removesuffix("\n")
        show(*([whole] if is_row else whole.split("\n")))


def draw(controls: str, text: str = "") -> None:
    """Send the terminal control characters of ours, and over the line that is left there a text, if there is one."""
    # Controls are no colours: NO_COLOR must not take them away.
    click.echo(f"{controls}{in_one_line(text):<{_width() if text else 0}}", err=True, nl=False, color=True)


def in_one_line(text: str) -> str:
    """`text` as `show` prints it, cut where the line of the terminal ends."""
    return printable(text)[: _width()]


def _width() -> int:
    return shutil.get_terminal_size().columns - 1


def show_libraries_safely() -> None:
    """Let the warnings and logs of libraries, which quote files, steer no terminal either."""
    make_record = logging.getLogRecordFactory()

    def safe_record(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = make_record(*arguments, **more)
        record.msg, record.args = printable_lines(record.getMessage()), ()
        return record

    def safe_warning(message: Any, category: type, filename: str, lineno: int, line: str | None = None) -> str:
        return printable_lines(f"{filename}:{lineno}: {category.__name__}: {message}") + "\n"

    logging.setLogRecordFactory(safe_record)
    warnings.formatwarning = safe_warning


QUIET, VERBOSE = "quiet", "verbose"


def is_given(flag: str) -> bool:
    """Whether the command was called with `--quiet` or `--verbose`."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(flag, False)


def show_written(paths: Iterable[Path]) -> None:
    """Say on stderr which files were written."""
    if not is_given(QUIET):
        show(*(f"wrote     {path}" for path in paths), err=True)


def show_next(*commands: Sequence[Any], program: str = "radtransfer") -> None:
    """Say on stderr what to type next, a command in each line; nothing with `--json` or `--quiet`.

    Words in capitals stand for what the user has.
    """
    if is_given(QUIET) or click.get_current_context().params.get("as_json"):
        return
    for number, words in enumerate(commands):
        show(f"{'' if number else 'next':<10}{shlex.join([program, *map(str, words)])}", err=True)


class TerminalProgress(Progress):
    """Prints the plan block, notes, a progress bar and epoch lines on stderr; with `--quiet` only warnings."""

    def __init__(self) -> None:
        self._quiet, self._verbose = is_given(QUIET), is_given(VERBOSE)
        self._bar_shown = False
        self._drawn_at = 0.0

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        for title, text in (rows if self._verbose or short is None else short).items():
            self._titled(title, text, bold=True)

    def note(self, text: str) -> None:
        self._titled("note", text, fg="yellow")

    def warning(self, text: str) -> None:
        self._titled("warning", text, always=True, fg="yellow", bold=True)

    def count(self, what: str, done: int, total: int) -> None:
        if self._quiet or not sys.stderr.isatty() or (done < total and time.monotonic() - self._drawn_at < 0.1):
            return
        self._drawn_at = time.monotonic()
        filled = "#" * (24 * done // max(total, 1))
        draw("\r", f"{what} [{filled:<24}] {done}/{total}")
        self._bar_shown = True

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        auc, seconds = row["val_auc"], row["seconds"]
        shown = line(
            f"fold {fold}/{folds}  epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  "
            f"loss {_loss(row['loss'])}  val loss {_loss(row['val_loss'])}  val AUC {decimal(auc):>5} ",
            painted("*", fg="green", bold=True) if row["best"] else " ",
            f" {seconds:.1f} s" if seconds < 100 else f" {seconds:.0f} s",
        )
        self._say(shown)

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        images, epoch = metrics["n_images"], metrics["best_epoch"]
        self._say(f"fold {fold}/{folds}  test AUC {decimal(metrics['auc'])} on {images} images, best epoch {epoch}")

    def clear(self) -> None:
        """Take the bar away, before a result is printed."""
        if self._bar_shown:
            draw("\r", " ")
            draw("\r")
            self._bar_shown = False

    def _titled(self, title: str, text: str, *, always: bool = False, **style: Any) -> None:
        first, *more = text.split("\n")
        lines = [line(painted(f"{title:<10}", **style), first), *(f"{'':<10}{another}" for another in more)]
        self._say(*lines, always=always)

    def _say(self, *lines: str, always: bool = False) -> None:
        if always or not self._quiet:
            self.clear()
            show(*lines, err=True)


def _loss(value: float) -> str:
    """A loss in six characters, so that an epoch fits a line of 80."""
    return f"{value:6.4f}" if value < 10 else f"{value:6.4g}" if value < 9999.5 else f"{value:6.0e}"
