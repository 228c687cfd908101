"""The failure signatures of transfer learning, named where they are seen.

References:
    Juodelyte et al. 2023 (arXiv 2302.08272): high similarity with little gain, equal AUC with other errors, and AUC
    that is lost when layers are frozen.
"""

from collections.abc import Iterator

from radtransfer.reports.advice.evidence import difference_evidence
from radtransfer.reports.arms.arm_results import SETTINGS, ArmResults, groups_of
from radtransfer.reports.numbers import number, plain_interval
from radtransfer.reports.page import Point
from radtransfer.reports.verdicts import verdict

HIGH_SIMILARITY = 0.8
"""Mean similarity of the layers to their start from which a network is said to have stayed like it."""

LOW_KAPPA = 0.4
"""Kappa below which two networks are said to err on different images (fair at best: Landis and Koch 1977)."""


def lost_when_frozen(found: ArmResults) -> Iterator[Point]:
    """A failure signature: less AUC the less is trained."""
    for arms in groups_of(found, ("backbone", "start", *SETTINGS), by="depth"):
        known = sorted((arm for arm in arms if arm.trainable is not None), key=lambda arm: -arm.trainable)
        for arm in known[1:]:
            difference = found.difference(known[0].name, arm.name)
            if difference is not None and verdict(difference.ci95) == "better":
                yield Point(
                    "AUC lost when frozen",
                    f"{arm.name}: training {arm.depth} instead of {known[0].depth} costs AUC; the features of "
                    f"{arm.start} do not fit as they are.",
                    difference_evidence(difference),
                )


def alike_without_gain(found: ArmResults) -> Iterator[Point]:
    """A failure signature: a network that stayed like its start and gains little over random initialization."""
    for arm in found.scored:
        values = [change.similarity for change in found.changes.get(arm.name, ()) if change.similarity is not None]
        if arm.start == "random" or not values or sum(values) / len(values) < HIGH_SIMILARITY:
            continue
        for other in found.scored:
            alike = all(getattr(arm, key) == getattr(other, key) for key in ("backbone", "depth", *SETTINGS))
            difference = found.difference(arm.name, other.name) if alike and other.start == "random" else None
            if difference is not None and verdict(difference.ci95) != "better":
                mean = number(sum(values) / len(values), 2)
                yield Point(
                    "high similarity, little gain",
                    f"{arm.name} stayed like its start (mean similarity {mean} over {len(values)} layers) and is not "
                    "better than random initialization: its features may be reused without serving the task.",
                    difference_evidence(difference),
                )


def equal_but_different(found: ArmResults) -> Iterator[Point]:
    """A failure signature: equal AUCs, errors on different images."""
    for difference in found.differences:
        unlike = difference.kappa_ci95 is not None and difference.kappa_ci95[1] < LOW_KAPPA
        if verdict(difference.ci95) == "equal" and unlike:
            yield Point(
                "equal AUC, other errors",
                f"{difference.a} and {difference.b} are equally good and err on different images; averaging them may "
                "be better than either.",
                f"kappa {number(difference.kappa, 2)} ({plain_interval(difference.kappa_ci95, 2)}); "
                f"{difference_evidence(difference)}",
            )
