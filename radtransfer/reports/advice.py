"""The sentences on top of a report, each with its evidence.

The advice of a report on runs: which start, how deep, which size, and what the data cannot decide.

Each rule is a function from an `ArmResults` to sentences. It compares arms that differ in nothing but what it is
about, or says in what else they differ; it claims a difference only where the 95 % interval over patients leaves out
zero, calls arms equal only where the whole interval lies within ±0.02, and says otherwise what would decide.

The evidence behind a sentence of advice: AUCs and differences with their intervals, and what more would decide.

The failure signatures of transfer learning, named where they are seen.

References:
    Juodelyte et al. 2023 (arXiv 2302.08272): high similarity with little gain, equal AUC with other errors, and AUC
    that is lost when layers are frozen.

Which arms the rules of the advice compare with each other, and which are left for the best arms' own comparison.

What the runs of a report noticed of images in two splits, said on top: it makes AUCs too high.

Advice where there is one arm, and so nothing to compare: how to get a comparison.

Advice on arms that were tested on different images: not to compare them.

Advice on how soon a network learns: which start gets to the threshold sooner.

What a report says of chance in training: leads that training again may turn round, and arms trained once.

Advice on arms that differ in other things than start, depth or network alone: which is better, and what differs.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from radtransfer.data.splits import LEAK
from radtransfer.pretrained.source import weights_cards
from radtransfer.reports.collect import (
    NETWORK,
    SETTINGS,
    Arm,
    ArmDifference,
    ArmResults,
    ArmRun,
    ArmSummary,
    StepDifference,
    groups_of,
)
from radtransfer.reports.names import started_from
from radtransfer.reports.page import Point
from radtransfer.reports.statistics import (
    SAME,
    how_many,
    interval,
    listed,
    mean_sd,
    more_trainings,
    number,
    plain_interval,
    signed,
    verdict,
)


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


def start_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ in their start alone."""
    yield from groups_of(found, ("backbone", "depth", *SETTINGS), by="start")


def depth_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ in how much of them trains alone."""
    for arms in groups_of(found, ("backbone", "start", *SETTINGS), by="depth"):
        known = [arm for arm in arms if arm.trainable is not None]
        if len(known) > 1:
            yield known


def size_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """The best arm of each network, best first, whatever it starts from and how it learns."""
    for arms in groups_of(found, ("context",), by="backbone"):
        best: dict[str, ArmSummary] = {}
        for arm in arms:
            best.setdefault(arm.backbone, arm)
        known = [arm for arm in best.values() if arm.parameters is not None]
        if len(known) > 1:
            yield known


def other_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms of the same test images, best first, of which none is compared with another through the groups above.

    The groups above link arms to families; here is the best of each family.
    """
    family = {arm.name: frozenset({arm.name}) for arm in found.scored}
    for arms in [*start_groups(found), *depth_groups(found), *size_groups(found)]:
        joined = frozenset().union(*(family[arm.name] for arm in arms))
        family |= dict.fromkeys(joined, joined)
    best: dict[frozenset[str], ArmSummary] = {}
    for arm in found.scored:
        best.setdefault(family[arm.name], arm)
    by_images: dict[int, list[ArmSummary]] = {}
    for arm in best.values():
        by_images.setdefault(arm.images, []).append(arm)
    yield from (arms for arms in by_images.values() if len(arms) > 1)


_TOLD = 3
"""Leaks that are told; folds that are drawn anew for each seed have others each."""


def leak_points(arms: Iterable[Arm]) -> Iterator[Point]:
    """A point for each of the first leaks, with the arms that have it, and how many more there are."""
    arms, leaks = list(arms), {}
    for arm in arms:
        for run in arm.runs:
            for note in run.record.get("notes") or ():
                if note.startswith(LEAK):
                    leaks.setdefault(note.removeprefix(LEAK), {})[arm.name] = None
    for note, names in list(leaks.items())[:_TOLD]:
        who = "All arms" if len(names) == len(arms) > 1 else listed([f"“{name}”" for name in names])
        yield Point("leak", f"{who}: {note.rstrip('.')}.")
    if len(leaks) > _TOLD:
        yield Point("leak", f"{len(leaks) - _TOLD} more leaks are among the notes in the `run.json` of the runs.")


_RESET = {"through": "null", "freeze_to": "null", "stages": "{}"}
"""Settings of a plan that a network from random weights, or one that trains throughout, does without."""

_OF_PYTORCH = ("_v1_5", "_torch")
"""Ends of the names of backbones as PyTorch builds them, whose weights `weights convert` writes."""


def one_arm(arm: Arm) -> Iterator[Point]:
    """That nothing is compared, and the commands that train what to compare with and report on both."""
    run, before = arm.runs[0], ""
    if arm.start == "random":
        what, other = "from pretrained weights (`radtransfer weights list` names some)", "WEIGHTS"
        scheme, place = "transfer", Path(f"{run.path}-pretrained")
        if not has_weights(_network(run)):
            what = f"from weights of your own (none are published for {_network(run)}: pretrain it on a folder SOURCE)"
            other = f"{run.path}-source"
            before = f"{_pretraining(run, other)} && "
    else:
        what, other = "from random weights", "random"
        scheme, place = "slim" if arm.backbone.endswith(", slim") else "scratch", Path(f"{run.path}-scratch")
    seeds = ", likewise for the other seeds" if len(arm.runs) > 1 else ""
    paths = [str(run.path) for run in arm.runs]
    yield Point(
        "one arm",
        "Nothing is compared here: the AUC says how well this network does, not what starting from "
        f"{started_from(arm)} brought. Train the same network {what}{seeds}, and report on both.",
        f"{before}{_command(run, other, scheme, place)} && "
        f"{shlex.join(['radtransfer', 'report', *paths, str(place)])} --out report",
    )


def has_weights(backbone: str) -> bool:
    """Whether weights of `backbone` are published, of a family or as PyTorch's."""
    published = {card.backbone for card in weights_cards().values()}
    return bool(published & {backbone, *(backbone.removesuffix(suffix) for suffix in _OF_PYTORCH)})


def _network(run: ArmRun) -> str:
    return str(run.record.get("backbone") or run.settings.get("model.backbone"))


def _pretraining(run: ArmRun, place: str) -> str:
    words = ["radtransfer", "finetune", "pretrain-source", "--data", "SOURCE"]
    return shlex.join([*words, "--set", f"model.backbone={_network(run)}", "--out", place])


def _command(run: ArmRun, weights: str, scheme: str, place: Path) -> str:
    words = ["radtransfer", "finetune", str(run.path / "config.yaml"), "--weights", weights, "--scheme", scheme]
    for name, value in _RESET.items():
        if run.settings.get(f"transfer.{name}") or any(key.startswith(f"transfer.{name}.") for key in run.settings):
            words += ["--set", f"transfer.{name}={value}"]
    return shlex.join([*words, "--out", str(place)])


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
