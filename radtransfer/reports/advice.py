"""The advice of a report on runs: initialization, depth, size, and which comparisons are inconclusive.

Each rule is a function from an `ArmResults` to points; their sentences are in `templates/advice.txt.j2`. A rule
compares arms that differ only in its topic, or names the other differences. It claims a difference only if the 95 %
interval over patients excludes 0, and equality only if the whole interval is within ±0.02; otherwise it says how many
patients or trainings a conclusion needs.

References:
    Juodelyte et al. 2023 (arXiv 2302.08272), the failure signatures: high similarity with little gain, equal AUC with
    different errors, and AUC lost when layers are frozen.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from radtransfer.data.splits import LEAK
from radtransfer.pretrained.source import known_weights
from radtransfer.reports.arms import ArmDifference, ArmResults, ArmSummary, StepDifference, groups_of
from radtransfer.reports.collect import Arm
from radtransfer.reports.page import Point, say
from radtransfer.reports.statistics import more_trainings, verdict
from radtransfer.reports.subject import NETWORK, SETTINGS, all_but_start, initial_weights

HIGH_SIMILARITY = 0.8
"""A network with at least this mean similarity of layers before and after training has changed little."""

LOW_KAPPA = 0.4  # two networks with a lower kappa make errors on different images (fair at best: Landis and Koch 1977)
SHOWN_LEAKS = 3  # most leaks in a report; folds drawn again for each seed have different ones

_RESET = {"through": "null", "freeze_to": "null", "stages": "{}"}
"""Settings of a plan without effect for random weights, or if all layers are trained."""

_PYTORCH = ("_v1_5", "_torch")  # suffixes of backbones as in PyTorch, whose weights `weights convert` writes


def advice(found: ArmResults) -> list[Point]:
    """The points of all rules."""
    return [point for rule in RULES for point in rule(found)]


def other_images(found: ArmResults) -> Iterator[Point]:
    """Names the arms that were tested on different images."""
    sets: dict[int, list[str]] = {}
    for arm in found.scored:
        sets.setdefault(arm.images, []).append(arm.name)
    if len(sets) > 1:
        yield Point("different images", say("advice.other_images", list(sets.values())))


def which_start(found: ArmResults) -> Iterator[Point]:
    """The best initialization among arms that differ in nothing else."""
    for best, *others in start_groups(found):
        compared = {arm: found.difference(best.name, arm.name) for arm in others}
        words = {arm: _verdict(difference) for arm, difference in compared.items()}
        beaten, equal, unclear = (
            [arm.origin for arm in others if words[arm] == word] for word in ("better", "equal", "inconclusive")
        )
        hints = _nearest_first({arm.origin: compared[arm] for arm in others if words[arm] == "inconclusive"})
        text = say("advice.which_start", best, beaten, equal, unclear, hints)
        yield Point("inconclusive" if unclear else "initialization", text, _evidence(best, compared))


def how_deep(found: ArmResults) -> Iterator[Point]:
    """The fewest trained parameters without loss of AUC, among arms that differ in nothing else."""
    for arms in depth_groups(found):
        where = f" {say('advice.setting', arms[0])}"
        yield _smallest("depth", "Train", where, arms, found, lambda arm: arm.trainable, lambda arm: arm.depth)


def which_size(found: ArmResults) -> Iterator[Point]:
    """The smallest network without loss of AUC, each with its best arm."""
    for arms in size_groups(found):
        size = lambda arm: say("advice.size", arm)  # noqa: E731
        yield _smallest("size", "Use", "", arms, found, lambda arm: arm.parameters, size)


def few_trainings(found: ArmResults) -> Iterator[Point]:
    """The best initialization, depth or arm whose lead is significant over patients but not over trainings."""
    for groups in (start_groups, depth_groups, other_groups):
        for best, *arms in groups(found):
            leads = [difference for arm in arms if (difference := found.difference(best.name, arm.name)) is not None]
            leads = [d for d in leads if verdict(d.ci95) == "better" and d.fold_ci95 and d.fold_ci95[0] <= 0]
            if leads:
                halves = {d.b: (d.fold_ci95[1] - d.fold_ci95[0]) / 2 for d in leads}
                closest = max(leads, key=lambda d: d.fold_mean / halves[d.b])
                needed = more_trainings(closest.fold_mean, halves[closest.b], closest.trainings)
                others = [lead.b for lead in leads]
                text = say("advice.few_trainings", best.name, others, closest.b, needed, closest.trainings)
                yield Point("few trainings", text, "; ".join(say("advice.by_training", lead) for lead in leads))


def which_arm(found: ArmResults) -> Iterator[Point]:
    """The best arm against those that no other rule compares; one sentence per verdict and difference in settings."""
    for best, *others in other_groups(found):
        groups: dict[tuple[str, tuple[str, ...]], dict[str, ArmDifference | None]] = {}
        for arm in others:
            difference = found.difference(best.name, arm.name)
            key = _verdict(difference), difference.differ_in if difference else ()
            groups.setdefault(key, {})[f"“{arm.name}”"] = difference
        for (word, names), compared in groups.items():
            decided = word in ("better", "equal")
            hints = [] if decided else _nearest_first(compared)
            text = say("advice.which_arm", word, f"“{best.name}”", list(compared), names, hints)
            yield Point("best arm" if decided else "inconclusive", text, _evidence(best, compared))


def convergence(found: ArmResults) -> Iterator[Point]:
    """The initialization that reaches the threshold first, among arms that differ in nothing else."""
    for arms in start_groups(found):
        # The arm that needs fewer steps on average than most of the others.
        ahead: dict[ArmSummary, tuple[int, float]] = {}
        for arm in arms:
            against = [d for other in arms if other != arm and (d := found.step_difference(arm.name, other.name))]
            if against:
                ahead[arm] = sum(d.mean < 0 for d in against), -sum(d.mean for d in against) / len(against)
        if not ahead:
            continue
        first = max(ahead, key=ahead.get)
        compared = {
            arm.origin: d for arm in arms if arm != first and (d := found.step_difference(first.name, arm.name))
        }
        beaten = [start for start, difference in compared.items() if step_verdict(difference) == "fewer"]
        unclear = [start for start in compared if start not in beaten]
        reasons: dict[str, list[str]] = {}
        for start in unclear:
            reasons.setdefault(say("advice.steps_inconclusive", compared[start]), []).append(start)
        text = say("advice.convergence", first, found.threshold, beaten, unclear, reasons)
        evidence = "; ".join(say("advice.steps", difference) for difference in compared.values())
        yield Point("convergence" if beaten else "inconclusive", text, evidence)


def lost_when_frozen(found: ArmResults) -> Iterator[Point]:
    """A failure signature: lower AUC with fewer trained layers."""
    for arms in groups_of(found, ("backbone", "start", *SETTINGS), by="depth"):
        known = sorted((arm for arm in arms if arm.trainable is not None), key=lambda arm: -arm.trainable)
        for arm in known[1:]:
            difference = found.difference(known[0].name, arm.name)
            if _verdict(difference) == "better":
                text = say("advice.lost_when_frozen", arm, known[0])
                yield Point("AUC lost when frozen", text, say("advice.difference", difference))


def little_change_little_gain(found: ArmResults) -> Iterator[Point]:
    """A failure signature: a network that changed little and gains little over random initialization."""
    for arm in found.scored:
        values = [change.similarity for change in found.changes.get(arm.name, ()) if change.similarity is not None]
        if arm.start == "random" or not values or sum(values) / len(values) < HIGH_SIMILARITY:
            continue
        for other in found.scored:
            paired = other.start == "random" and all_but_start(arm) == all_but_start(other)
            difference = found.difference(arm.name, other.name) if paired else None
            if difference is not None and verdict(difference.ci95) != "better":
                text = say("advice.little_change_little_gain", arm, sum(values) / len(values), len(values))
                yield Point("high similarity, little gain", text, say("advice.difference", difference))


def equal_but_different(found: ArmResults) -> Iterator[Point]:
    """A failure signature: equal AUCs, errors on different images."""
    for difference in found.differences:
        low = difference.kappa_ci95 is not None and difference.kappa_ci95[1] < LOW_KAPPA
        if verdict(difference.ci95) == "equal" and low:
            text = say("advice.equal_but_different", difference)
            yield Point("equal AUC, different errors", text, say("advice.kappa", difference))


def one_training(found: ArmResults) -> Iterator[Point]:
    """Arms that were trained once, so that the variation between trainings is unknown."""
    once = [arm.name for arm in found.scored if arm.trainings == 1]
    if once:
        yield Point("one training", say("advice.one_training", once))
    elif {arm.seeds for arm in found.scored} == {1}:
        yield Point("one seed", say("advice.one_seed"))


RULES = (
    *(other_images, which_start, how_deep, few_trainings, which_size, which_arm),
    *(convergence, lost_when_frozen, little_change_little_gain, equal_but_different, one_training),
)


def leak_points(arms: Sequence[Arm]) -> Iterator[Point]:
    """Images in two splits, from the notes of the runs: the first leaks with their arms, and the number of others."""
    leaks: dict[str, dict[str, None]] = {}
    for arm in arms:
        for note in (note for run in arm.runs for note in run.record.get("notes") or ()):
            if note.startswith(LEAK):
                leaks.setdefault(note.removeprefix(LEAK), {})[arm.name] = None
    for note, names in list(leaks.items())[:SHOWN_LEAKS]:
        every = len(names) == len(arms) > 1
        yield Point("leak", say("advice.leak", [f"“{name}”" for name in names], every, note.rstrip(".")))
    if len(leaks) > SHOWN_LEAKS:
        yield Point("leak", say("advice.more_leaks", len(leaks) - SHOWN_LEAKS))


def one_arm(arm: Arm) -> Iterator[Point]:
    """A note that there is no comparison, with the commands for a second arm and a report on both."""
    run, commands = arm.runs[0], []
    backbone = str(run.record.get("backbone") or run.settings.get("model.backbone"))
    if arm.start != "random":
        other, weights, place = "random", "random", Path(f"{run.path}-scratch")
        scheme = "slim" if arm.backbone.endswith(", slim") else "scratch"
    else:
        other, weights, place, scheme = "published", "WEIGHTS", Path(f"{run.path}-pretrained"), "transfer"
        if not has_weights(backbone):
            other, weights = "own", f"{run.path}-source"
            words = ["finetune", "pretrain-source", "--data", "SOURCE", "--set", f"model.backbone={backbone}"]
            commands.append(shlex.join(["radtransfer", *words, "--out", weights]))
    words = ["radtransfer", "finetune", str(run.path / "config.yaml"), "--weights", weights, "--scheme", scheme]
    for name, value in _RESET.items():
        if run.settings.get(f"transfer.{name}") or any(key.startswith(f"transfer.{name}.") for key in run.settings):
            words += ["--set", f"transfer.{name}={value}"]
    commands.append(shlex.join([*words, "--out", str(place)]))
    words = ["radtransfer", "report", *(str(run.path) for run in arm.runs), str(place)]
    commands.append(f"{shlex.join(words)} --out report")
    text = say("advice.one_arm", initial_weights(arm), other, backbone, len(arm.runs) > 1)
    yield Point("one arm", text, " && ".join(commands))


def has_weights(backbone: str) -> bool:
    """Whether there are published weights of `backbone`."""
    published = {spec.backbone for spec in known_weights().values()}
    return bool(published & {backbone, *(backbone.removesuffix(suffix) for suffix in _PYTORCH)})


def start_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ only in their initialization."""
    yield from groups_of(found, ("backbone", "depth", *SETTINGS), by="start")


def depth_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ only in their trained layers."""
    for arms in groups_of(found, ("backbone", "start", *SETTINGS), by="depth"):
        known = [arm for arm in arms if arm.trainable is not None]
        if len(known) > 1:
            yield known


def size_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """The best arm of each network, best first."""
    for arms in groups_of(found, ("context",), by="backbone"):
        best: dict[str, ArmSummary] = {}
        for arm in arms:
            best.setdefault(arm.backbone, arm)
        known = [arm for arm in best.values() if arm.parameters is not None]
        if len(known) > 1:
            yield known


def other_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """The best arm, best first, of each family that the groups above link; for each set of test images."""
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


def step_verdict(difference: StepDifference) -> str:
    """Whether A needs "fewer" or "more" steps than B, or "inconclusive".

    If only B reaches the threshold in some training, the difference is a bound in favor of A, and A is not said to need
    fewer.
    """
    if difference.ci95 is None:
        return "inconclusive"
    low, high = difference.ci95
    if high < 0 and not difference.only_b:
        return "fewer"
    return "more" if low > 0 and not difference.only_a else "inconclusive"


def _smallest(
    title: str,
    do: str,
    where: str,
    arms: Sequence[ArmSummary],
    found: ArmResults,
    size: Callable[[ArmSummary], int],
    name: Callable[[ArmSummary], str],
) -> Point:
    """The smallest of `arms` (best first) that is as good as the best arm."""
    best = arms[0]
    smaller = sorted((arm for arm in arms[1:] if size(arm) < size(best)), key=size)
    compared = {arm: found.difference(arm.name, best.name) for arm in smaller or arms[1:]}
    words = {arm: _verdict(difference) for arm, difference in compared.items()}
    enough = next((name(arm) for arm in smaller if words[arm] in ("equal", "better")), None)
    unclear = [arm for arm, word in words.items() if word == "inconclusive"]
    also = dict.fromkeys(word for d in compared.values() if d is not None for word in d.differ_in if word != NETWORK)
    text = say(
        "advice.smallest",
        do=do,
        where=where,
        best=name(best),
        enough=enough,
        smaller=list(map(name, smaller)),
        unclear=list(map(name, unclear)),
        nearest=compared[unclear[0]] if unclear else None,
        also=list(also) if title == "size" else [],
    )
    return Point("inconclusive" if unclear and enough is None else title, text, _evidence(best, compared))


def _verdict(difference: ArmDifference | None) -> str:
    return "inconclusive" if difference is None else verdict(difference.ci95)


def _evidence(best: ArmSummary, compared: Mapping[object, ArmDifference | None]) -> str:
    known = (say("advice.difference", difference) for difference in compared.values() if difference is not None)
    return "; ".join([say("advice.auc", best), *known])


def _nearest_first(compared: Mapping[str, ArmDifference | None]) -> list[tuple[str, ArmDifference | None]]:
    """The smallest difference first; those that were not compared last."""
    return sorted(compared.items(), key=lambda pair: (pair[1] is None, abs(pair[1].value) if pair[1] else 0))
