"""What the predictions on held-out images are worth: exact AUCs, and intervals over patients.

The main AUC is the mean of the AUCs of the main questions of `scoring.py`, and so is the sensitivity at 90 %
specificity. A class or label that lacks positive or negative images has no AUC: it is left out of the mean,
and the reason is given.

Whether two networks are right and wrong about the same images, more often than independent ones would be.

ROC and precision-recall curves, exact, with bands over patients.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from radtransfer.evaluation.intervals import Interval, cluster_variance, estimate_auc, score_interval
from radtransfer.evaluation.scoring import (
    Question,
    Scoring,
    class_questions,
    exact_area,
    main_questions,
    sensitivity_at_specificity,
)


@dataclass(frozen=True)
class Predictions:
    """The test images of one fold and what the network said about them.

    Attributes:
        targets: float (images, classes), 0 or 1; NaN where not known.
        probabilities: float (images, classes), 0–1, in the order of the classes.
        images: What identifies each image, such as its path.
        patients: Patient of each image; None where patients are not known.
        repeat: Folds of one repeat are disjoint and are pooled; repeats are averaged.
    """

    targets: np.ndarray
    probabilities: np.ndarray
    images: Sequence[str]
    patients: Sequence[str] | None = None
    repeat: int = 0

    @property
    def clusters(self) -> Sequence[str]:
        return self.images if self.patients is None else self.patients


@dataclass(frozen=True)
class Metrics:
    """The figures of one fold; None where a figure is undefined.

    Attributes:
        auc: The main AUC (see the module).
        per_class: Each class' or label's one-versus-rest AUC.
        accuracy: Share of images whose largest output is their class (or exact grade); with several labels,
            share of the known labels on the right side of 0.5.
        top5_accuracy: Share of images whose class is among the five largest outputs; None up to five classes.
        sensitivity_at_90_specificity: The largest at a specificity of at least 0.9, on the ROC curve itself.
        brier: Mean squared error of the main question's score, if there is one main question (0–1), so that of two
            classes one counts, half of the sum over both; with more classes, of all outputs, summed over the classes
            (Brier 1950; 0–2); with several labels, averaged over the known ones (0–1). scikit-learn's
            `brier_score_loss` has the same scales.
        undefined: Why an AUC is None, by "auc" or class.
        n_per_class: How many images the AUC of each class or label is of: those that have it, and those that are known
            not to.
    """

    auc: float | None
    per_class: dict[str, float | None]
    accuracy: float | None
    top5_accuracy: float | None
    sensitivity_at_90_specificity: float | None
    brier: float | None
    n_images: int
    n_patients: int | None
    undefined: dict[str, str] = field(default_factory=dict)
    n_per_class: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class AucSummary:
    """The main AUC over folds.

    Attributes:
        mean: Over the folds in which it is defined.
        sd: Standard deviation over them, ddof 1; None for a single one. It is no confidence interval.
        per_fold: In the order of the folds; None where undefined.
        pooled: Of all out-of-fold predictions of a repeat taken together; the mean over the repeats.
        ci95: 95 % interval of `pooled` over patients (images where patients are not known), as in `intervals.py`.
        per_class: The mean over folds of each class' AUC.
    """

    mean: float | None
    sd: float | None
    per_fold: list[float | None]
    pooled: float | None
    ci95: list[float] | None
    per_class: dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """The figures of a whole run: means over its folds, except `auc.pooled`, `auc.ci95` and the counts.

    Attributes:
        n_images: Different images tested.
        n_patients: Different patients tested; None where not known.
        n_per_class: Of the different images, as in `Metrics`.
    """

    auc: AucSummary
    accuracy: float | None
    top5_accuracy: float | None
    sensitivity_at_90_specificity: float | None
    brier: float | None
    n_images: int
    n_patients: int | None
    n_per_class: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def exact_auc(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """The main AUC, for watching the validation images while training; None where undefined.

    Raises:
        TrainingError: An output is not finite.
    """
    return _mean(_areas(main_questions(targets, probabilities, scoring)))


def evaluate(predictions: Predictions, scoring: Scoring) -> Metrics:
    """The figures of one fold.

    Raises:
        TrainingError: An output is not finite.
    """
    targets, probabilities = predictions.targets, predictions.probabilities
    main = main_questions(targets, probabilities, scoring)
    each = class_questions(targets, probabilities, scoring)
    return Metrics(
        auc=_mean(_areas(main)),
        per_class=dict(zip(scoring.classes, _areas(each), strict=True)),
        accuracy=accuracy(targets, probabilities, scoring),
        top5_accuracy=_top5_accuracy(targets, probabilities, scoring),
        sensitivity_at_90_specificity=_mean(
            [sensitivity_at_specificity(question.truth, question.scores, 0.9) for question in main]
        ),
        brier=_brier(targets, probabilities, scoring),
        n_images=len(set(predictions.images)),
        n_patients=None if predictions.patients is None else len(set(predictions.patients)),
        undefined=_reasons(main, each),
        n_per_class=_counts(targets, scoring),
    )


def summarize(folds: Sequence[Predictions], scoring: Scoring) -> Summary:
    """The figures of a run from its folds' predictions, in order.

    Raises:
        TrainingError: An output is not finite.
    """
    each = [evaluate(predictions, scoring) for predictions in folds]
    areas = [metrics.auc for metrics in each]
    per_class = {name: _mean([metrics.per_class[name] for metrics in each]) for name in scoring.classes}
    pooled, interval = _pooled(folds, scoring)
    known = {image: row for fold in folds for image, row in zip(fold.images, fold.targets, strict=True)}
    no_patients = any(predictions.patients is None for predictions in folds)
    return Summary(
        auc=AucSummary(_mean(areas), _sd(areas), areas, pooled, interval, per_class),
        accuracy=_mean([metrics.accuracy for metrics in each]),
        top5_accuracy=_mean([metrics.top5_accuracy for metrics in each]),
        sensitivity_at_90_specificity=_mean([metrics.sensitivity_at_90_specificity for metrics in each]),
        brier=_mean([metrics.brier for metrics in each]),
        n_images=len({image for predictions in folds for image in predictions.images}),
        n_patients=None if no_patients else len({patient for fold in folds for patient in fold.patients}),
        n_per_class=_counts(np.array(list(known.values())), scoring),
    )


def _counts(targets: np.ndarray, scoring: Scoring) -> dict[str, dict[str, int]]:
    return {
        name: {"positive": int((column == 1).sum()), "negative": int((column == 0).sum())}
        for name, column in zip(scoring.classes, targets.reshape(-1, len(scoring.classes)).T, strict=True)
    }


def _areas(questions: Sequence[Question]) -> list[float | None]:
    return [exact_area(question.truth, question.scores) for question in questions]


def accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """As `Metrics.accuracy`, for watching the validation images while training."""
    known = ~np.isnan(targets)
    if scoring.task == "multilabel":
        return _mean(((probabilities > 0.5) == (targets > 0.5))[known])
    labelled = known.all(axis=1)
    return _mean((probabilities.argmax(axis=1) == targets.argmax(axis=1))[labelled])


def curve_figures(
    targets: np.ndarray, probabilities: np.ndarray, *, scoring: Scoring
) -> tuple[float | None, dict[str, float | None]]:
    """The main AUC and that of each class, for watching a network while it learns."""
    each = _areas(class_questions(targets, probabilities, scoring))
    return exact_auc(targets, probabilities, scoring), dict(zip(scoring.classes, each, strict=True))


def _top5_accuracy(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    if scoring.task != "multiclass" or len(scoring.classes) <= 5 or len(targets) == 0:
        return None
    of_class = probabilities[targets == 1]
    return float(np.mean((probabilities > of_class[:, None]).sum(axis=1) < 5))


def _brier(targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring) -> float | None:
    """As `Metrics.brier`: summed over several classes, of one class where there are two."""
    if scoring.task == "multilabel" or (len(scoring.classes) > 2 and scoring.positive_from is None):
        errors = (probabilities.astype(np.float64) - targets) ** 2
        per_image = errors[~np.isnan(errors)] if scoring.task == "multilabel" else errors.sum(axis=1)
        return _mean(per_image[~np.isnan(per_image)])
    (question,) = main_questions(targets, probabilities, replace(scoring, average="macro"))
    return _mean((question.scores - question.truth) ** 2)


def _reasons(main: Sequence[Question], each: Sequence[Question]) -> dict[str, str]:
    """Why each AUC that is None is so."""
    areas = zip(each, _areas(each), strict=True)
    reasons = {question.name: _one_sided(question) for question, area in areas if area is None}
    if _mean(_areas(main)) is None:
        reasons["auc"] = "; ".join(f"{question.name}: {_one_sided(question)}" for question in main)
    return reasons


def _one_sided(question: Question) -> str:
    if not question.truth.size:
        return "no image with a known label"
    return f"all {question.truth.size} images are {'positive' if question.truth[0] else 'negative'}"


def _pooled(folds: Sequence[Predictions], scoring: Scoring) -> tuple[float | None, list[float] | None]:
    """The pooled AUC and its interval."""
    names = sorted({name for predictions in folds for name in predictions.clusters})
    number = {name: index for index, name in enumerate(names)}
    repeats = []
    for repeat in sorted({predictions.repeat for predictions in folds}):
        members = [predictions for predictions in folds if predictions.repeat == repeat]
        clusters = np.array([number[name] for predictions in members for name in predictions.clusters])
        targets = np.concatenate([predictions.targets for predictions in members])
        probabilities = np.concatenate([predictions.probabilities for predictions in members])
        repeats.append((main_questions(targets, probabilities, scoring), clusters))
    found = estimate_auc(repeats)
    return (None, None) if found is None else (found.area, list(found.ci95))


def _mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """The mean of the defined values; None where there is none."""
    defined = _defined(values)
    return float(defined.mean()) if defined.size else None


def _sd(values: Sequence[float | None]) -> float | None:
    defined = _defined(values)
    return float(defined.std(ddof=1)) if defined.size > 1 else None


def _defined(values: Sequence[float | None] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]


@dataclass(frozen=True)
class Agreement:
    """How often two networks agree, against how often they would by chance.

    Attributes:
        observed: Share, 0–1.
        independent: The same for networks of the same accuracies whose errors have nothing to do with each other.
        kappa: (observed - independent) / (1 - independent), Cohen's; None where agreement is certain by chance.
    """

    observed: float
    independent: float
    kappa: float | None


def agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """The agreement of two networks about the same questions: both right, or both wrong.

    With accuracies a and b, independent networks agree on a·b + (1 - a)(1 - b). Probabilities of the truth may
    stand for right and wrong: then it is the agreement to expect when each network draws its answer from them.

    Differs from the code of Juodelyte et al., which took one network's accuracy twice.

    Args:
        a: 0–1 or bool (questions,): how right one network is.
        b: The same of the other.

    References:
        Juodelyte, Jiménez-Sánchez and Cheplygina 2023, prediction similarity;
        Cohen 1960, Educational and Psychological Measurement 20 (kappa).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    observed = float(np.mean(a * b + (1 - a) * (1 - b)))
    independent = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return Agreement(observed, independent, _kappa(observed, independent))


def decision_agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """How often two networks decide for the same class, whatever the truth; a and b are classes, int (images,)."""
    classes = np.arange(max(a.max(), b.max()) + 1)
    shares = [(choices[:, None] == classes).mean(axis=0) for choices in (a, b)]
    observed, independent = float(np.mean(a == b)), float(shares[0] @ shares[1])
    return Agreement(observed, independent, _kappa(observed, independent))


def kappa_interval(a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> Interval:
    """95 % interval of the kappa of `agreement` over patients, where it is defined.

    (kappa + 1) / 2 is treated as a share, as `score_interval` says, with the variance of kappa's linear approximation.
    Patients of whom both networks are always right, or always wrong, tell little about it: counted are the others, or
    those that are right, whichever are fewer. Measured coverage: 0.93 to 1.00 with 10 to 200 patients.

    Args:
        a: 0–1 or bool (questions,): how right one network is.
        b: The same of the other.
        patients: Of each question.

    References:
        Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72 (the linear approximation of its variance).
    """
    a, b, found = np.asarray(a, np.float64), np.asarray(b, np.float64), agreement(a, b)
    agree, chance = a * b + (1 - a) * (1 - b), found.independent
    moved = (2 * b.mean() - 1) * (a - a.mean()) + (2 * a.mean() - 1) * (b - b.mean())
    parts = (agree - found.observed - (1 - found.kappa) * moved) / (1 - chance) / a.size
    telling = min(np.unique(patients[a + b < 2]).size, np.unique(patients[a + b > 0]).size)
    count = np.unique(patients).size
    answers = count * (1 - chance) / max(chance, 1 / (count + 2))  # by chance never, if one is always right, one wrong
    low, high = score_interval((found.kappa + 1) / 2, cluster_variance(parts, patients) / 4, max(telling, 1), answers)
    return float(2 * low - 1), float(2 * high - 1)


def _kappa(observed: float, independent: float) -> float | None:
    return None if independent >= 1 else (observed - independent) / (1 - independent)


GRID = np.linspace(0, 1, 101)
"""Where bands are drawn: false-positive rates, or recalls."""


@dataclass(frozen=True)
class Curve:
    """One curve and its band.

    Attributes:
        question: Which it is of.
        kind: "roc" or "pr".
        x: False-positive rate, or recall, at every threshold.
        y: Sensitivity, or precision, there.
        low: Of the 95 % band, at `GRID`.
        high: Likewise.
        area: Exact area under a ROC curve; average precision of the other.
        prevalence: Share of positives.
    """

    question: str
    kind: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    area: float
    prevalence: float


@dataclass(frozen=True)
class _Sorted:
    """Answers from the highest score down, and where the score changes."""

    truth: np.ndarray
    clusters: np.ndarray
    last: np.ndarray


def both_curves(
    question: str, truth: np.ndarray, scores: np.ndarray, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[Curve, Curve] | None:
    """The ROC and the precision-recall curve of one question; None where there is no positive or no negative.

    The bands are pointwise 95 % intervals of sensitivity at a false-positive rate, and of precision at a recall, as
    `score_interval` gives them. The variance is that of whole patients drawn with replacement; a draw without positives
    or without negatives is left out.

    Args:
        question: Its name.
        truth: bool (answers,).
        scores: float (answers,), finite; higher means more likely true.
        clusters: What is drawn together, (answers,).
        draws: Of the bootstrap.
        seed: Of the draws.

    References:
        Fawcett 2006, Pattern Recognition Letters 27, section 7 (vertical averaging); Field and Welsh 2007,
        J. R. Stat. Soc. B 69 (cluster bootstrap). Average precision is scikit-learn's, without interpolation.
    """
    if not truth.any() or truth.all():
        return None
    names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), truth.size - 1)
    answers = _Sorted(truth[order], codes[order], last)
    true, false = _counts_curves(answers, np.ones(names.size))
    bands = _bands(answers, names.size, draws, seed)
    x, y = np.append(0, false / false[-1]), np.append(0, true / true[-1])
    roc = Curve(question, "roc", x.tolist(), y.tolist(), *bands[0], float(np.trapezoid(y, x)), float(truth.mean()))
    recall, precision = true / true[-1], true / (true + false)
    average = float(np.sum(np.diff(recall, prepend=0) * precision))
    pr = Curve(question, "pr", recall.tolist(), precision.tolist(), *bands[1], average, float(truth.mean()))
    return roc, pr


def _counts_curves(answers: _Sorted, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each threshold, from the highest, with these weights of the clusters."""
    each = weights[answers.clusters]
    true = np.cumsum(each * answers.truth)[answers.last]
    return true, np.cumsum(each * ~answers.truth)[answers.last]


def _bands(answers: _Sorted, clusters: int, draws: int, seed: int) -> list[list[list[float]]]:
    """Low and high end of both bands at `GRID`."""
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        weights = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters).astype(float)
        true, false = _counts_curves(answers, weights)
        if true[-1] and false[-1]:
            drawn.append((_sensitivity(true, false), _precision(true, false)))
    curves = _counts_curves(answers, np.ones(clusters))
    patients = np.unique(answers.clusters[answers.truth]).size
    bands = []
    for number, at_grid in enumerate((_sensitivity, _precision)):
        value = at_grid(*curves)
        values = np.array([each[number] for each in drawn] or [value])
        ends = score_interval(value, values.var(axis=0), patients, patients, mean=values.mean(axis=0))
        bands.append([end.tolist() for end in ends])
    bands[0][0][-1] = 1.0  # at a false-positive rate of 1 every positive is found
    return bands


def _sensitivity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """At `GRID`: the top of the curve where it is vertical."""
    # A little to the right, since a rate such as 3/60 may be the least bit above 0.05.
    return np.interp(GRID + 1e-9, np.append(0, false / false[-1]), np.append(0, true / true[-1]))


def _precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """At `GRID`: of the highest threshold that has this recall."""
    held = true + false > 0
    true, false = true[held], false[held]
    place = np.searchsorted(true / true[-1], GRID - 1e-12)
    return (true / (true + false))[np.minimum(place, true.size - 1)]
