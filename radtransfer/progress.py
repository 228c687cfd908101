"""What a long job tells while it works. The library reports here and never prints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Progress:
    """Hears what a job does. This one is deaf; the command line and notebooks override its methods."""

    def plan(self, rows: Mapping[str, str]) -> None:
        """The plan block, before the first step: a title and a line of text for each aspect."""

    def note(self, text: str) -> None:
        """Something the user should know, one sentence."""

    def warning(self, text: str) -> None:
        """Something that makes results wrong, one sentence; a note for those who do not tell the two apart."""
        self.note(text)

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` pieces of `what` ("images checked", "fold 1/5 epoch 2/50") are ready."""

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        """An epoch ended; `row` is its line of `history.csv`, with `best` (so far) and `seconds`."""

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        """A fold ended with these test metrics."""


@dataclass(frozen=True)
class EpochReporter:
    """Tells `progress` of the steps and epochs of one fold."""

    progress: Progress
    fold: int
    folds: int
    epochs: int

    def step(self, epoch: int, done: int, steps: int) -> None:
        """`done` of `steps` steps of `epoch` are done."""
        self.progress.count(f"fold {self.fold}/{self.folds} epoch {epoch}/{self.epochs}", done, steps)

    def epoch(self, row: Mapping[str, Any], *, best: bool, seconds: float) -> None:
        """An epoch ended with this line of `history.csv`."""
        self.progress.epoch(self.fold, self.folds, self.epochs, {**row, "best": best, "seconds": seconds})
