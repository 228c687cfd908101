"""What a report says of chance in training: leads that training again may turn round, and arms trained once."""

from collections.abc import Iterator

from radtransfer.reports.advice.groups import depth_groups, other_groups, start_groups
from radtransfer.reports.arms.arm_results import ArmDifference, ArmResults
from radtransfer.reports.numbers import interval, listed, signed
from radtransfer.reports.page import Point
from radtransfer.reports.verdicts import more_trainings, verdict


def one_training(found: ArmResults) -> Iterator[Point]:
    """Arms trained once, of which nothing is known about training again."""
    once = [arm.name for arm in found.scored if arm.trainings == 1]
    seeded = {arm.seeds for arm in found.scored}
    if once:
        yield Point(
            "one training",
            f"{listed(once)}: trained once. The intervals hold for these networks on other patients, not for training "
            "them again; run more folds or seeds.",
        )
    elif seeded == {1}:
        yield Point("one seed", "Every arm has one seed: folds differ in their images, not in the seed alone.")


def few_trainings(found: ArmResults) -> Iterator[Point]:
    """The best start, depth or arm, where its lead holds for the patients but not for training again."""
    for groups in (start_groups, depth_groups, other_groups):
        for best, *arms in groups(found):
            leads = [difference for arm in arms if (difference := found.difference(best.name, arm.name)) is not None]
            leads = [
                difference for difference in leads if verdict(difference.ci95) == "better" and _may_turn(difference)
            ]
            if leads:
                closest = max(leads, key=lambda difference: difference.fold_mean / _half(difference))
                needed = more_trainings(closest.fold_mean, _half(closest), closest.trainings)
                yield Point(
                    "few trainings",
                    f"{best.name} is better than {listed([lead.b for lead in leads])} as trained, but over trainings "
                    f"the interval of the difference contains zero: training again may turn it round. Against "
                    f"{closest.b}, {needed}.",
                    "; ".join(map(_by_training, leads)),
                )


def _may_turn(difference: ArmDifference) -> bool:
    return difference.fold_ci95 is not None and difference.fold_ci95[0] <= 0


def _half(difference: ArmDifference) -> float:
    return (difference.fold_ci95[1] - difference.fold_ci95[0]) / 2


def _by_training(difference: ArmDifference) -> str:
    return (
        f"{difference.a} − {difference.b} {signed(difference.fold_mean)} ({interval(difference.fold_ci95)} over "
        f"{difference.trainings} trainings, better in {difference.better})"
    )
