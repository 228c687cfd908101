"""Compares networks of several seeds: those that start from the same weights, and those that start at random.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from radtransfer.errors import RadtransferError, SimilarityError
from radtransfer.progress import Progress
from radtransfer.reports.arms.arm_results import SETTINGS
from radtransfer.reports.arms.run_arms import Arm
from radtransfer.reports.arms.run_changes import CHANNELS, MOST_RUNS, in_enough_channels
from radtransfer.reports.arms.subject import Subject
from radtransfer.run_reading import start_in_words

if TYPE_CHECKING:
    from radtransfer.comparisons.compare import ComparisonSettings
    from radtransfer.comparisons.population import Population


def seed_pairs(subject: Subject, progress: Progress, *, channels: int = CHANNELS[0]) -> "dict[str, Population]":
    """Every pair of the first runs of an arm and of its random reference, by the arm's name.

    Only arms that start from pretrained weights throughout, have a reference that differs in nothing but that it
    starts at random, and at least two seeds, as it has; each with its first fold. What cannot be compared is noted.

    Args:
        subject: What the report is about.
        progress: Hears how far it is.
        channels: To begin with, as `in_enough_channels`.
    """
    wanted = dict(_starts_by_arm(subject))
    if not wanted:
        return {}
    found, _, notes = in_enough_channels(lambda settings: _compare(wanted, settings, progress), channels)
    subject.notes.extend(notes)
    return found


def _starts_by_arm(subject: Subject) -> Iterator[tuple[str, dict[str, str]]]:
    """Each arm with what its runs and those of its reference started from, by their plans."""
    by_name = {arm.name: arm for arm in subject.arms}
    for name, baseline in subject.references.items():
        arms = by_name[name], by_name[baseline]
        if any(getattr(arms[0], key) != getattr(arms[1], key) for key in ("backbone", "depth", *SETTINGS)):
            continue
        starts = [_first_folds(arm) for arm in arms]
        if [{*each.values()} for each in starts] == [{"pretrained"}, {"random"}] and min(map(len, starts)) > 1:
            yield name, starts[0] | starts[1]


def _first_folds(arm: Arm) -> dict[str, str]:
    """The first fold of each run, and what it started from; the weights of an arm are called alike."""
    runs = arm.runs[:MOST_RUNS]
    return {f"{run.path}/fold_{run.folds[0].fold}": start_in_words(run.record, "pretrained") for run in runs}


def _compare(
    wanted: dict[str, dict[str, str]], settings: "ComparisonSettings", progress: Progress
) -> "tuple[dict[str, Population], list[str], bool]":
    from radtransfer.comparisons.population import compare_population

    found, notes, too_few = {}, [], False
    for number, (name, starts) in enumerate(wanted.items(), start=1):
        progress.count("arms compared over seeds", number, len(wanted))
        try:
            found[name] = compare_population(list(starts), settings, starts=starts, progress=progress)
            notes += [f"the seeds of {name}: {text}" for text in found[name].left_out]
            too_few = too_few or bool(found[name].few_rows)
        except (RadtransferError, OSError) as error:
            notes.append(f"the seeds of {name} are not compared with each other: {error}")
            too_few = too_few or isinstance(error, SimilarityError)
    return found, notes, too_few
