"""Arms as a table: what each scores, and how pairs of them differ on the same images, folds and seeds.

Sees that the runs of a report answer one question: AUCs of different classes are not to be ranked.

Compares networks of several seeds: those that start from the same weights, and those that start at random.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4.
"""

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.errors import DataError, RadtransferError, RunError, SimilarityError
from radtransfer.evaluation.intervals import agreement, delong, kappa_interval
from radtransfer.evaluation.run_predictions import RunPredictions, read_predictions
from radtransfer.evaluation.scoring import Scoring, main_questions
from radtransfer.process import Progress
from radtransfer.reports.collect import (
    SETTINGS,
    Arm,
    ArmDifference,
    ArmResults,
    ArmRun,
    ArmSummary,
    Interval,
    image_sets,
    other_files,
)
from radtransfer.reports.names import CHANNELS, MOST_RUNS, Subject, differ_in, in_enough_channels
from radtransfer.reports.statistics import fold_difference, listed, spread
from radtransfer.runs.read import start_in_words
from radtransfer.similarity.compare_predictions import common_predictions, compare_aucs, pooled_auc

MOST_ARMS = 10
"""Up to so many arms every pair is compared; beyond, those that a rule of the advice needs."""

_TOLD = ("start", "depth", "backbone", "recipe", "context", "preprocessing")

Pair = tuple[RunPredictions, RunPredictions]


def summarize_arms(arms: Sequence[Arm], predictions: "PredictionShelf") -> list[ArmSummary]:
    """Each arm's row; AUCs that are not defined are None."""
    images = image_sets(arms, predictions.of)
    return [_summary(arm, predictions, images[arm.name]) for arm in arms]


class PredictionShelf:
    """The test predictions of runs, each read once; what cannot be read is noted."""

    def __init__(self, notes: list[str]):
        self.notes, self._read = notes, {}

    def of(self, run: ArmRun) -> RunPredictions | None:
        if run.path not in self._read:
            try:
                self._read[run.path] = read_predictions(str(run.path))
            except (RadtransferError, OSError, KeyError) as error:
                there = all((run.path / f"fold_{fold.fold}" / "predictions.csv").is_file() for fold in run.folds)
                if isinstance(error, RunError) and there:  # cut or changed, and not left out
                    raise
                self._read[run.path] = None
                self.notes.append(f"{run.path.name}: predictions cannot be read ({error}); not compared")
        return self._read[run.path]


def compare_arms(
    arms: Sequence[Arm],
    summaries: Sequence[ArmSummary],
    predictions: PredictionShelf,
    progress: Progress,
    *,
    named: Collection[frozenset[str]] = (),
) -> list[ArmDifference]:
    """The differences of pairs of arms, of those `named` above all; what cannot be compared is noted."""
    by_name = {arm.name: arm for arm in arms}
    chosen = list(_pairs(summaries, named))
    found = []
    for number, (a, b) in enumerate(chosen, start=1):
        progress.count("arms compared", number, len(chosen))
        try:
            found.append(_difference(by_name[a], by_name[b], predictions))
        except DataError as error:
            predictions.notes.append(f"{a} and {b} are not compared: {error}")
    return [difference for difference in found if difference is not None]


def _summary(arm: Arm, predictions: PredictionShelf, images: int) -> ArmSummary:
    aucs = [fold.auc for fold in arm.folds if fold.auc is not None]
    found = spread(aucs)
    pooled, interval = _pooled(arm, predictions)
    plan: dict[str, Any] = arm.runs[0].record.get("plan", {})
    return ArmSummary(
        name=arm.name,
        start=arm.start,
        depth=arm.depth,
        backbone=arm.backbone,
        recipe=arm.recipe,
        context=arm.context,
        parameters=plan.get("total_parameters"),
        trainable=plan.get("trainable_parameters"),
        trainings=len(aucs),
        seeds=len({fold.seed for fold in arm.folds}),
        mean=found.mean,
        sd=found.sd,
        pooled=pooled,
        ci95=interval,
        of_study=arm.of_study,
        images=images,
        preprocessing=arm.preprocessing,
    )


def _pooled(arm: Arm, predictions: PredictionShelf) -> tuple[float | None, Interval | None]:
    """The mean over runs and its interval over patients; of a run whose predictions are gone, as it recorded them."""
    read = [found for run in arm.runs if (found := predictions.of(run)) is not None]
    if read:
        found = pooled_auc(read)
        return (None, None) if found is None else (found.area, found.ci95)
    auc = (arm.runs[0].metrics.get("auc") or {}) if len(arm.runs) == 1 else {}
    return auc.get("pooled"), tuple(auc["ci95"]) if auc.get("ci95") else None


def _pairs(arms: Sequence[ArmSummary], named: Collection[frozenset[str]]) -> Iterator[tuple[str, str]]:
    """All pairs of few arms; of many, those that are named or differ in one thing, and each with the best.

    There is a best arm of each set of images.
    """
    scored = [arm for arm in arms if arm.mean is not None]
    best = {arm.images: arm for arm in reversed(ArmResults(arms).scored)}.values()
    for place, a in enumerate(scored):
        for b in scored[place + 1 :]:
            changed = sum(getattr(a, key) != getattr(b, key) for key in _TOLD)
            few = len(scored) <= MOST_ARMS or changed <= 1
            if few or a in best or b in best or {a.name, b.name} in named:
                yield a.name, b.name


def _difference(a: Arm, b: Arm, predictions: PredictionShelf) -> ArmDifference | None:
    pairs = list(_read_pairs(a, b, predictions))
    if not pairs:
        return None
    compared = compare_aucs(pairs)
    if compared.difference is None:
        return None
    folds = fold_difference(*({fold.key: fold.auc for fold in arm.folds if fold.auc is not None} for arm in (a, b)))
    kappa, kappa_interval, shares = _agreement(pairs)
    first = pairs[0][0]
    clusters = {name for pair, _ in pairs for name in pair.clusters}
    return ArmDifference(
        a=a.name,
        b=b.name,
        value=compared.difference,
        ci95=compared.ci95,
        patients=len(clusters),
        unit="images" if first.patients is None else "patients",
        fold_mean=folds and folds.mean,
        fold_sd=folds and folds.sd,
        fold_ci95=folds and folds.ci95,
        trainings=folds.n if folds else 0,
        better=folds.positive if folds else 0,
        p=_delong(pairs),
        kappa=kappa,
        kappa_ci95=kappa_interval,
        agreement=shares,
        differ_in=differ_in(a, b),
    )


def _read_pairs(a: Arm, b: Arm, predictions: PredictionShelf) -> Iterator[Pair]:
    """Runs of the same seed; where no seed is shared, in their order."""
    seeds = {run.seed: run for run in b.runs}
    runs = [(run, seeds[run.seed]) for run in a.runs if run.seed in seeds] or list(zip(a.runs, b.runs, strict=False))
    for one, other in runs:
        read = predictions.of(one), predictions.of(other)
        if None not in read:
            if other_files(one, other):
                raise DataError("their images have the same names, and are different files.")
            yield common_predictions(*read, Progress())


def _delong(pairs: Sequence[Pair]) -> float | None:
    if len(pairs) > 1 or pairs[0][0].repeated:
        return None
    one, other = ([*main_questions(run.targets, run.probabilities, run.scoring)] for run in pairs[0])
    test = delong(one[0].name, one[0].truth, one[0].scores, other[0].scores) if len(one) == 1 else None
    return test and test.p


def _agreement(pairs: Sequence[Pair]) -> tuple[float | None, Interval | None, tuple[float, float]]:
    """Kappa of being right together, its interval over patients, and the shares it comes from."""
    right = [[np.nanmean(run.right, axis=1) for run in pair] for pair in pairs]
    a, b = (np.concatenate([sides[side] for sides in right]) for side in (0, 1))
    known = ~(np.isnan(a) | np.isnan(b))
    found = agreement(a[known], b[known])
    patients = np.concatenate([np.array(one.clusters, object) for one, _ in pairs])[known]
    interval = None if found.kappa is None else kappa_interval(a[known], b[known], patients)
    return found.kappa, interval, (found.observed, found.independent)


MOST_CLASSES = 12
"""Classes that a question names; of more, the first."""


def check_one_question(runs: Iterable[ArmRun], out: Path, options: Sequence[str] = ()) -> None:
    """See that all runs have the same classes, kind of labels, and positive grades or class.

    Args:
        runs: All of a report.
        out: Its folder, after which those of the commands in the message are called.
        options: Of the command, for the same.

    Raises:
        RunError: They have not; the message names the runs of each question and a command for each.
    """
    asked: dict[Scoring, list[ArmRun]] = {}
    for run in runs:
        asked.setdefault(run.scoring, []).append(run)
    if len(asked) < 2:
        return
    lines = [
        f"Expected runs that answer one question: AUCs of different questions cannot be compared. "
        f"Received {len(asked)} questions:"
    ]
    words = [question(scoring) for scoring in asked]
    for text, (scoring, its) in zip(words, asked.items(), strict=True):
        # Of two runs that tell the same classes apart, the positive class is what differs.
        text = f"{text} {scoring.subject}" if words.count(text) > 1 else text
        lines.append(f"  {text}  {listed([str(run.path) for run in its])}")
    lines.append("Make a report of each:")
    for number, its in enumerate(asked.values(), start=1):
        words = ["radtransfer", "report", *(str(run.path) for run in its), *options, "--out", f"{out}-{number}"]
        lines.append(f"  {shlex.join(words)}")
    raise RunError("\n".join(lines))


def question(scoring: Scoring) -> str:
    """What the main AUC is of, such as "benign or malignant?" or "2 or worse, of 0, 1 and 2?"."""
    if scoring.positive_from is not None:
        return f"{scoring.positive_from} or worse, of {_named(scoring.classes, 'and')}?"
    if scoring.task == "multilabel":
        return f"{_named(scoring.classes, 'and')}: {'each ' if len(scoring.classes) > 1 else ''}present or not?"
    return f"{_named(scoring.classes, 'or')}?"


def _named(classes: Sequence[str], word: str) -> str:
    if len(classes) <= MOST_CLASSES:
        return listed(classes, word)
    return f"{', '.join(classes[:MOST_CLASSES])}, … ({len(classes):,} classes)"


if TYPE_CHECKING:
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.population import Population


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
    from radtransfer.similarity.population import compare_population

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
