"""Which arms were tested on the same images: only their AUCs are compared."""

from collections.abc import Callable, Iterator, Sequence

from radtransfer.comparisons.run_predictions import RunPredictions
from radtransfer.reports.arms.arm_results import ArmResults
from radtransfer.reports.arms.run_arms import Arm, ArmRun
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point

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


def other_images(found: ArmResults) -> Iterator[Point]:
    """Says which arms were tested on which images, where these are not the same."""
    sets: dict[int, list[str]] = {}
    for arm in found.scored:
        sets.setdefault(arm.images, []).append(arm.name)
    if len(sets) > 1:
        yield Point(
            "other images",
            f"{'; '.join(map(listed, sets.values()))}: tested on different images. Their AUCs are not compared, and "
            "which is higher says nothing of the networks. Train them on one data set, or test them on one with "
            "`radtransfer evaluate`.",
        )


def _paths(arm: Arm, read: Callable[[ArmRun], RunPredictions | None]) -> frozenset[str] | None:
    """What the arm tested; None where its predictions cannot be read."""
    known = [found for run in arm.runs if (found := read(run)) is not None]
    return frozenset(path for found in known for path in found.paths) if known else None
