"""How a study looks while it runs: a table of its running runs on a terminal, a line per ended run elsewhere."""

import sys
import time

from radtransfer.cli.terminal import draw, in_one_line, line, painted, show
from radtransfer.studies.engines import Outcome
from radtransfer.studies.grid import PlannedRun
from radtransfer.studies.runs import RunningRun, StudyFolder, StudyListener, StudyState
from radtransfer.studies.tables import run_row

_COLORS = {"finished": "green", "partly": "yellow", "failed": "red"}


class StudyBoard(StudyListener):
    """Draws on stderr, and keeps `progress.json` and the tables of `folder` up to date."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._live = sys.stderr.isatty()
        self._lines = 0
        self._drawn = 0.0

    def changed(self, state: StudyState) -> None:
        self._folder.write_progress(state)
        if self._live and time.monotonic() - self._drawn > 0.2:
            self._drawn = time.monotonic()
            self._draw(state)

    def ended(self, state: StudyState, run: PlannedRun, outcome: Outcome) -> None:
        self._folder.write_progress(state, now=True)
        self._folder.write_table(state.plan)
        row = run_row(state.plan, run.cell, run)
        auc = "" if row["auc"] is None else f"  AUC {row['auc']:.3f}"
        spread = "" if row["auc_sd"] is None else f" ± {row['auc_sd']:.3f}"
        count = len(state.done) + len(state.failed)
        status = painted(f"{outcome.status:<9}", fg=_COLORS.get(outcome.status))
        place = f"{count}/{len(state.plan.runs)}"
        said = f" {run.cell.name}{auc}{spread}  {duration(outcome.seconds)}  {run.key}"
        errors = outcome.error.split("\n") if outcome.error else []
        self._say(line(f"{place:<10}", status, said), *(f"{'':<10}{error}" for error in errors))

    def note(self, text: str) -> None:
        self._say(line(painted(f"{'note':<10}", fg="yellow"), text))

    def clear(self) -> None:
        """Take the table away."""
        if self._lines:
            draw(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _draw(self, state: StudyState) -> None:
        lines = [_summary(state), *(_running(item) for item in state.running.values())]
        self.clear()
        show(*map(in_one_line, lines), err=True)
        self._lines = len(lines)

    def _say(self, *lines: str) -> None:
        self.clear()
        show(*lines, err=True)


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _summary(state: StudyState) -> str:
    failed = f", {len(state.failed)} failed" if state.failed else ""
    seconds = state.seconds_left()
    left = "" if seconds is None else f", at most {duration(seconds)} left"
    total = len(state.plan.runs)
    return f"{state.plan.study.name}  {len(state.done)}/{total} done{failed}, {len(state.running)} running{left}"


def _running(item: RunningRun) -> str:
    row = item.row
    name = f"{item.run.cell.name}  on {row['machine']}" if "machine" in row else item.run.cell.name
    if "epoch" not in row:
        return f"  {name}  {row.get('doing', 'starting')}"
    auc = "n/a" if row["val_auc"] is None else f"{row['val_auc']:.3f}"
    place = f"fold {row['fold']}/{row['folds']}  epoch {row['epoch']}/{row['epochs']}"
    return f"  {name}  {place}  val AUC {auc}"
