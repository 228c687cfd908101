"""The evidence behind a sentence of advice: AUCs and differences with their intervals, and what more would decide."""

from collections.abc import Iterator, Mapping

from radtransfer.reports.arms.arm_results import ArmDifference, ArmSummary
from radtransfer.reports.numbers import interval, mean_sd, number, plain_interval, signed
from radtransfer.reports.verdicts import how_many


def auc_evidence(arm: ArmSummary) -> str:
    """AUC over trainings, and pooled with its interval."""
    pooled = "" if arm.ci95 is None else f", pooled {number(arm.pooled)} ({plain_interval(arm.ci95)})"
    times = "trained once" if arm.trainings == 1 else f"over {arm.trainings} trainings"
    return f"{arm.name} {mean_sd(arm.mean, arm.sd)} {times}{pooled}"


def difference_evidence(difference: ArmDifference) -> str:
    """The difference with its interval over patients, and in how many trainings it has its sign."""
    text = f"{difference.a} − {difference.b} {signed(difference.value)} ({interval(difference.ci95)}, "
    text += f"{difference.patients:,} {difference.unit})"
    if difference.trainings > 1:
        text += f", better in {difference.better} of {difference.trainings} trainings"
    return text


def what_would_decide(compared: Mapping[str, ArmDifference | None]) -> Iterator[str]:
    """What would decide against the nearest of undecided arms, and which were not compared at all."""
    known = {name: difference for name, difference in compared.items() if difference is not None}
    if known:
        nearest = min(known, key=lambda name: abs(known[name].value))
        yield f"Against {nearest}, {needed(known[nearest])}"
    for name in compared.keys() - known.keys():
        yield f"{name} was not compared on the same images"


def needed(difference: ArmDifference | None) -> str:
    """How many patients would decide an undecided difference."""
    if difference is None:
        return "they were not compared on the same images"
    return how_many(difference.value, difference.ci95, difference.patients, unit=difference.unit)
