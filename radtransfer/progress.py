"""What a long job tells while it works. The library reports here and never prints."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Progress:
    """Hears what a job does. This one is deaf; the command line and notebooks override its methods."""

    def plan(self, rows: Mapping[str, str]) -> None:
        """The plan block, before the first step: a title and a line of text for each aspect."""

    def note(self, text: str) -> None:
        """Something the user should know, one sentence."""

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` pieces of `what` ("images checked", "fold 1/5 epoch 2/50") are ready."""

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        """An epoch ended; `row` is its line of `history.csv`, with `best` (so far) and `seconds`."""

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        """A fold ended with these test metrics."""


@dataclass
class EpochReporter:
    """Tells `progress` of the steps and epochs of one fold."""

    progress: Progress
    fold: int
    folds: int
    epochs: int
    _started: float = field(default_factory=time.monotonic)

    def step(self, epoch: int, done: int, steps: int) -> None:
        """`done` of `steps` steps of `epoch` are done."""
        self.progress.count(f"fold {self.fold}/{self.folds} epoch {epoch}/{self.epochs}", done, steps)

    def epoch(self, row: Mapping[str, Any], *, best: bool) -> None:
        """An epoch ended with this line of `history.csv`."""
        now = time.monotonic()
        self.progress.epoch(
            self.fold, self.folds, self.epochs, {**row, "best": best, "seconds": now - self._started}
        )
        self._started = now
