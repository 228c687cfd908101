"""The evidence behind a sentence of advice: an AUC, or a difference, with its interval and of how many it is."""

from radtransfer.reports.arms.arm_results import ArmDifference, ArmSummary
from radtransfer.reports.numbers import interval, mean_sd, number, plain_interval, signed


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
