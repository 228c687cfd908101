"""The advice of a report on runs: which start, how deep, which size, and what the data cannot decide.

Each rule is a function from an `ArmResults` to sentences. It compares arms that differ in nothing but what it is
about, or says in what else they differ; it claims a difference only where the 95 % interval over patients leaves out
zero, calls arms equal only where the whole interval lies within ±0.02, and says otherwise what would decide.
"""

from collections.abc import Callable, Iterator, Sequence

from radtransfer.reports.advice.evidence import auc_evidence, difference_evidence, needed, what_would_decide
from radtransfer.reports.advice.failure_signatures import alike_without_gain, equal_but_different, lost_when_frozen
from radtransfer.reports.advice.groups import depth_groups, size_groups, start_groups
from radtransfer.reports.advice.other_images import other_images
from radtransfer.reports.advice.steps import sooner
from radtransfer.reports.advice.training import few_trainings, one_training
from radtransfer.reports.advice.which_arm import which_arm
from radtransfer.reports.arms.arm_results import NETWORK, ArmResults, ArmSummary
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point
from radtransfer.reports.verdicts import SAME, verdict


def advice(found: ArmResults) -> list[Point]:
    """Every sentence that a rule has to say."""
    return [point for rule in RULES for point in rule(found)]


def which_start(found: ArmResults) -> Iterator[Point]:
    """The best start among arms that differ in nothing else."""
    for arms in start_groups(found):
        yield from _ranked(arms, found)


def how_deep(found: ArmResults) -> Iterator[Point]:
    """The fewest trained parameters that lose nothing, among arms that differ in nothing else."""
    for arms in depth_groups(found):
        yield from _smallest("how deep", "Train", arms, found, lambda arm: arm.trainable, lambda arm: arm.depth)


def which_size(found: ArmResults) -> Iterator[Point]:
    """The smallest network that loses nothing, each with its best arm, whatever it starts from and how it learns."""
    for arms in size_groups(found):
        yield from _smallest("which size", "Take", arms, found, lambda arm: arm.parameters, _size)


RULES: tuple[Callable[[ArmResults], Iterator[Point]], ...] = (
    other_images,
    which_start,
    how_deep,
    few_trainings,
    which_size,
    which_arm,
    sooner,
    lost_when_frozen,
    alike_without_gain,
    equal_but_different,
    one_training,
)


def _ranked(arms: Sequence[ArmSummary], found: ArmResults) -> Iterator[Point]:
    """The best start of `arms` and what the others are to it; every other is mentioned with its interval."""
    best, title = arms[0], "which start"
    do, where = ("Start as in", "") if best.of_study else ("Start from", _where(best))
    compared = {arm: found.difference(best.name, arm.name) for arm in arms[1:]}
    verdicts = {arm: "undecided" if d is None else verdict(d.ci95) for arm, d in compared.items()}
    rivals = [arm for arm, word in verdicts.items() if word in ("equal", "undecided")]
    beaten = [arm.origin for arm, word in verdicts.items() if word == "better"]
    evidence = "; ".join([auc_evidence(best), *(difference_evidence(d) for d in compared.values() if d is not None)])
    if not rivals:
        yield Point(title, f"{do} {best.origin}{where}: better than {listed(beaten)}.", evidence)
        return
    equal = [arm.origin for arm in rivals if verdicts[arm] == "equal"]
    open_ones = [arm for arm in rivals if verdicts[arm] == "undecided"]
    if open_ones:
        joined = listed([arm.origin for arm in open_ones])
        text = f"{best.origin} scores highest{where}, but the data cannot tell it from {joined}"
        text += f"; it is equal within {SAME:g} to {listed(equal)}" if equal else ""
    else:
        text = f"{do} {listed([best.origin, *equal], 'or')}{where}: they are equal within {SAME:g}"
    text += f"; {listed(beaten)} {'is' if len(beaten) == 1 else 'are'} worse" if beaten else ""
    text += "".join(f". {more}" for more in what_would_decide({arm.origin: compared[arm] for arm in open_ones}))
    yield Point("undecided" if open_ones else title, f"{text}.", evidence)


def _smallest(
    title: str,
    do: str,
    arms: Sequence[ArmSummary],
    found: ArmResults,
    count: Callable[[ArmSummary], int],
    name: Callable[[ArmSummary], str],
) -> Iterator[Point]:
    """The smallest of `arms` (best first) that is as good as the best."""
    best, where = arms[0], _where(arms[0]) if title == "how deep" else ""
    smaller = sorted((arm for arm in arms[1:] if count(arm) < count(best)), key=count)
    against = smaller or arms[1:]
    compared = {arm: found.difference(arm.name, best.name) for arm in against}
    verdicts = {arm: "undecided" if d is None else verdict(d.ci95) for arm, d in compared.items()}
    evidence = "; ".join([auc_evidence(best), *(difference_evidence(d) for d in compared.values() if d is not None)])
    enough = next((arm for arm in smaller if verdicts[arm] in ("equal", "better")), None)
    unclear = [arm for arm in against if verdicts[arm] == "undecided"]
    if enough is not None:
        text = f"{do} {name(enough)}{where}: it is equal within {SAME:g} to {name(best)}, the best"
    elif not smaller:
        text = f"{do} {name(best)}{where}: no larger choice scores higher"
        text += f", though the data cannot tell it from {listed([name(arm) for arm in unclear])}" if unclear else ""
    elif unclear:
        text = f"Whether “{name(unclear[0])}” is enough{where} cannot be decided: {name(best)} scores highest"
    else:
        loses = "loses" if len(smaller) == 1 else "lose"
        text = f"{do} {name(best)}{where}: {listed([name(arm) for arm in smaller])} {loses} AUC"
    if unclear and enough is None:
        text += f"; {needed(compared[unclear[0]])}"
    also = dict.fromkeys(name for d in compared.values() if d is not None for name in d.differ_in if name != NETWORK)
    if title == "which size" and also:
        text += f". They differ in {listed(list(also))} as well"
    yield Point("undecided" if unclear and enough is None else title, f"{text}.", evidence)


def _where(arm: ArmSummary) -> str:
    return f" ({', '.join(filter(None, (arm.backbone, arm.preprocessing, arm.recipe, arm.context)))})"


def _size(arm: ArmSummary) -> str:
    return f"{arm.backbone} ({arm.parameters / 1e6:.1f} million parameters)"
