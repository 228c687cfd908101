"""What the runs of a report noticed of images in two splits, said on top: it makes AUCs too high."""

from collections.abc import Iterable, Iterator

from radtransfer.reports.arms.run_arms import Arm
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point

LEAK = "leak: "
"""How a note of such images begins in `run.json`."""


def leak_points(arms: Iterable[Arm]) -> Iterator[Point]:
    """A point for each leak, with the arms that have it."""
    arms, leaks = list(arms), {}
    for arm in arms:
        for run in arm.runs:
            for note in run.record.get("notes") or ():
                if note.startswith(LEAK):
                    leaks.setdefault(note.removeprefix(LEAK), {})[arm.name] = None
    for note, names in leaks.items():
        who = "All arms" if len(names) == len(arms) > 1 else listed([f"“{name}”" for name in names])
        yield Point("leak", f"{who}: {note.rstrip('.')}.")
