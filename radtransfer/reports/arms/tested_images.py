"""Which arms were tested on the same images: only their AUCs are compared."""

from collections.abc import Callable, Sequence

from radtransfer.comparisons.run_predictions import RunPredictions
from radtransfer.reports.arms.run_arms import Arm, ArmRun

_PLACE = ("data.source", "data.image_root")


def other_files(a: ArmRun, b: ArmRun) -> bool:
    """Whether images of the same name are different files, as two hospitals may both have a "sick/001.png".

    The fingerprint of a run's files is also another where fewer of them train; so it only counts where the data
    come from another place.
    """
    places = [[run.settings.get(name) for name in _PLACE] for run in (a, b)]
    prints = [run.record.get("images_sha256") for run in (a, b)]
    return places[0] != places[1] and None not in prints and prints[0] != prints[1]


def image_sets(arms: Sequence[Arm], read: Callable[[ArmRun], RunPredictions | None]) -> dict[str, int]:
    """Arm to the number, from 1, of the set of images that it was tested on; sets of one number overlap."""
    firsts: list[tuple[ArmRun, frozenset[str] | None]] = []
    numbers = {}
    for arm in arms:
        run, tested = arm.runs[0], _paths(arm, read)
        for number, (other, paths) in enumerate(firsts, start=1):
            if not other_files(run, other) and (None in (tested, paths) or tested & paths):
                numbers[arm.name] = number
                break
        else:
            firsts.append((run, tested))
            numbers[arm.name] = len(firsts)
    return numbers


def _paths(arm: Arm, read: Callable[[ArmRun], RunPredictions | None]) -> frozenset[str] | None:
    """What the arm tested; None where its predictions cannot be read."""
    known = [found for run in arm.runs if (found := read(run)) is not None]
    return frozenset(path for found in known for path in found.paths) if known else None
