"""Advice on arms that differ in other things than start, depth or network alone: which is better, and what differs."""

from collections.abc import Iterator, Sequence

from radtransfer.reports.advice.evidence import auc_evidence, difference_evidence, what_would_decide
from radtransfer.reports.advice.groups import other_groups
from radtransfer.reports.arms.arm_results import ArmResults, ArmSummary
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point
from radtransfer.reports.verdicts import SAME, verdict


def which_arm(found: ArmResults) -> Iterator[Point]:
    """The best arm against each that no other rule compares; a sentence for all with one verdict and difference."""
    for best, *others in other_groups(found):
        alike: dict[tuple[str, tuple[str, ...]], list[ArmSummary]] = {}
        for arm in others:
            difference = found.difference(best.name, arm.name)
            word = "undecided" if difference is None else verdict(difference.ci95)
            alike.setdefault((word, difference.differ_in if difference else ()), []).append(arm)
        for (word, names), arms in alike.items():
            yield _against(best, arms, word, names, found)


def _against(
    best: ArmSummary, others: Sequence[ArmSummary], word: str, names: Sequence[str], found: ArmResults
) -> Point:
    compared = {_called(arm): found.difference(best.name, arm.name) for arm in others}
    first, rest = _called(best), listed(list(compared))
    text = {
        "better": f"{first} is better than {rest}",
        "equal": f"{first} and {rest} are equal within {SAME:g}",
    }.get(word, f"{first} scores highest, but the data cannot tell it from {rest}")
    if names:
        text += f". They differ in {listed(names)}"
        text += " alone" if len(names) == 1 else ": this says nothing of any one of these alone"
    if word not in ("better", "equal"):
        text += "".join(f". {more}" for more in what_would_decide(compared))
    evidence = [auc_evidence(best), *(difference_evidence(d) for d in compared.values() if d is not None)]
    return Point("which arm" if word in ("better", "equal") else "undecided", f"{text}.", "; ".join(evidence))


def _called(arm: ArmSummary) -> str:
    return f"“{arm.name}”"
