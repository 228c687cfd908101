"""Advice on how soon a network learns: which start gets to the threshold sooner."""

from collections.abc import Iterator, Sequence

from radtransfer.reports.advice.groups import start_groups
from radtransfer.reports.arms.arm_results import ArmResults, ArmSummary
from radtransfer.reports.arms.step_differences import StepDifference
from radtransfer.reports.numbers import interval, listed, signed
from radtransfer.reports.page import Point
from radtransfer.reports.verdicts import more_trainings


def sooner(found: ArmResults) -> Iterator[Point]:
    """The start that gets to the threshold first, among arms that differ in nothing else."""
    for arms in start_groups(found):
        first = _first(arms, found)
        if first is None:
            continue
        compared = {
            arm.origin: d for arm in arms if arm != first and (d := found.step_difference(first.name, arm.name))
        }
        verdicts = {start: sooner_or_later(difference) for start, difference in compared.items()}
        beaten = [start for start, word in verdicts.items() if word == "sooner"]
        unclear = [start for start, word in verdicts.items() if word != "sooner"]
        what = f"AUC {found.threshold:g}" + ("" if first.of_study else f" ({first.backbone})")
        text = f"{first.origin} reaches {what} sooner than {listed(beaten)}" if beaten else ""
        if unclear and beaten:
            text += f"; against {listed(unclear)} it cannot be decided"
        elif unclear:
            text = f"Which start reaches {what} sooner cannot be decided; {first.origin} does on average"
        reasons: dict[str, list[str]] = {}
        for start in unclear:
            reasons.setdefault(_reason(compared[start]), []).append(start)
        text += "".join(f". Against {listed(starts)}: {reason}" for reason, starts in reasons.items())
        evidence = "; ".join(map(step_evidence, compared.values()))
        yield Point("undecided" if unclear and not beaten else "sooner", f"{text}.", evidence)


def sooner_or_later(difference: StepDifference) -> str:
    """What a difference of steps allows to say of A: "sooner", "later" or "undecided".

    A bound does not decide against the side that it favours: with a training that B alone gets through, A is not
    called sooner.
    """
    if difference.ci95 is None:
        return "undecided"
    low, high = difference.ci95
    if high < 0 and not difference.only_b:
        return "sooner"
    return "later" if low > 0 and not difference.only_a else "undecided"


def step_evidence(difference: StepDifference) -> str:
    """The difference with its interval, and how many trainings it is of."""
    ends = "no interval" if difference.ci95 is None else interval(difference.ci95, 0)
    trainings = "1 training" if difference.trainings == 1 else f"{difference.trainings} trainings"
    text = f"{difference.a} − {difference.b} {signed(difference.mean, 0)} steps ({ends}, {trainings}"
    bounds = [(difference.only_a, difference.b), (difference.only_b, difference.a)]
    return text + "".join(f", {count} that {name} never got through" for count, name in bounds if count) + ")"


def _first(arms: Sequence[ArmSummary], found: ArmResults) -> ArmSummary | None:
    """The arm that needs the fewest steps on average against most of the others; None where none is compared."""
    ahead: dict[ArmSummary, tuple[int, float]] = {}
    for arm in arms:
        against = [d for other in arms if other != arm and (d := found.step_difference(arm.name, other.name))]
        if against:
            ahead[arm] = sum(d.mean < 0 for d in against), -sum(d.mean for d in against) / len(against)
    return max(ahead, key=ahead.get, default=None)


def _reason(difference: StepDifference) -> str:
    """Why a difference is undecided, and what would decide it."""
    if difference.only_a and difference.only_b:
        return "each gets there where the other does not"
    if difference.ci95 is None:
        return "there is one training to compare; run more folds or seeds"
    half = (difference.ci95[1] - difference.ci95[0]) / 2
    if half <= difference.spacing:
        return f"look at the AUC more often than every {difference.spacing} steps (training.eval_every)"
    return more_trainings(difference.mean, half, difference.trainings)
