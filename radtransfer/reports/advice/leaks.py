"""What the runs of a report noticed of images in two splits, said on top: it makes AUCs too high."""

from collections.abc import Iterable, Iterator

from radtransfer.reports.arms.run_arms import Arm
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point
from radtransfer.splits.leaks import LEAK

_TOLD = 3
"""Leaks that are told; folds that are drawn anew for each seed have others each."""


def leak_points(arms: Iterable[Arm]) -> Iterator[Point]:
    """A point for each of the first leaks, with the arms that have it, and how many more there are."""
    arms, leaks = list(arms), {}
    for arm in arms:
        for run in arm.runs:
            for note in run.record.get("notes") or ():
                if note.startswith(LEAK):
                    leaks.setdefault(note.removeprefix(LEAK), {})[arm.name] = None
    for note, names in list(leaks.items())[:_TOLD]:
        who = "All arms" if len(names) == len(arms) > 1 else listed([f"“{name}”" for name in names])
        yield Point("leak", f"{who}: {note.rstrip('.')}.")
    if len(leaks) > _TOLD:
        yield Point("leak", f"{len(leaks) - _TOLD} more leaks are among the notes in the `run.json` of the runs.")
