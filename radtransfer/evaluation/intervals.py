"""95 % intervals over patients for AUCs, their differences and shares, valid also with few patients.

Images of one patient are not independent, so the variance of an AUC is computed from the contributions of patients
(Obuchowski 1997; the same as DeLong's with one image per patient). It is 0 at an AUC of 1 and too small near 1. It is
therefore shrunk, with the weight of two patients, towards the variance of an AUC with one image per patient (Newcombe
2006, method 5), at an AUC with one correctly and one wrongly ranked patient added. The variance gives an effective
number of independent answers, and the interval is Wilson's score interval for this number. It is never empty.

Coverage and mean width, half of the patients positive, three images each, intraclass correlation 0.5 (2,000
simulations; other methods and other data are in `tests/benchmarks/bench_intervals.py`):

    AUC                                  0.60           0.70           0.86           0.96           0.99
    10 patients                      0.970 (0.53)   0.983 (0.50)   0.982 (0.42)   0.984 (0.35)   0.983 (0.34)
        percentile bootstrap         0.911 (0.55)   0.890 (0.49)   0.843 (0.32)   0.718 (0.12)   0.491 (0.04)
    20 patients                      0.964 (0.39)   0.958 (0.36)   0.975 (0.27)   0.979 (0.18)   0.984 (0.17)
        percentile bootstrap         0.940 (0.39)   0.918 (0.36)   0.897 (0.24)   0.825 (0.10)   0.696 (0.03)
    50 patients                      0.952 (0.25)   0.960 (0.23)   0.959 (0.16)   0.971 (0.08)   0.987 (0.05)
        percentile bootstrap         0.939 (0.25)   0.947 (0.23)   0.936 (0.16)   0.898 (0.07)   0.823 (0.02)

References:
    Obuchowski 1997, Biometrics 53 (clustered ROC data); DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44;
    Hanley and McNeil 1982, Radiology 143; Newcombe 2006, Statistics in Medicine 25 (intervals of an AUC, part 2);
    Qin and Hotilovac 2008, Statistical Methods in Medical Research 17 (a comparison of intervals of an AUC);
    Wilson 1927, Journal of the American Statistical Association 22; Zou 2007, Psychological Methods 12 (an interval of
    a difference from the intervals of both).

Also here: the comparison of two networks on the same images (DeLong's test, which takes images as independent, and
agreement), and ROC and precision-recall curves with bands over patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radtransfer.evaluation.scoring import Question, exact_area, placements

Interval = tuple[float, float]

_Z = 1.959963984540054


@dataclass(frozen=True, eq=False)
class AucEstimate:
    """A mean AUC over questions and repeats, with the data for its interval."""

    area: float
    contributions: np.ndarray  # of each patient, (patients,); the sum of their squares is the variance
    patients: float  # in the rarer class (positive or negative), mean over the questions
    answers: float  # effective number of independent answers with one image per patient

    @property
    def variance(self) -> float:
        return float(self.contributions @ self.contributions)

    @property
    def ci95(self) -> Interval:
        low, high = score_interval(self.area, self.variance, self.patients, self.answers)
        return float(low), float(high)


def estimate_auc(repeats: Sequence[tuple[Sequence[Question], np.ndarray]]) -> AucEstimate | None:
    """The mean AUC over questions, then over repeats; None if no question has one.

    A repeat is its questions and the patient number of each image, int (images,), the same in all repeats.
    """
    total = 1 + max(int(codes.max(initial=0)) for _, codes in repeats)
    means = []
    for questions, codes in repeats:
        found = [_of_question(question, codes[question.images], total) for question in questions]
        found = [each for each in found if each is not None]
        if found:
            area, contributions, patients, share = (np.mean(column, axis=0) for column in zip(*found, strict=True))
            # Assuming a correlation of 1/2 between the AUCs of any two questions.
            means.append((area, contributions, patients, share * (1 + 1 / len(found)) / 2))
    if not means:
        return None
    area, contributions, patients, share = (np.mean(column, axis=0) for column in zip(*means, strict=True))
    return AucEstimate(float(area), contributions, float(patients), float(1 / share))


def _of_question(question: Question, codes: np.ndarray, total: int) -> tuple[float, np.ndarray, int, float] | None:
    """Area, contributions, patients in the rarer class, and 1 / answers; None if a class is absent."""
    area = question.area
    if area is None:
        return None
    won, contributions, counts = placements(question.truth, question.scores), np.zeros(total), []
    for side in (question.truth, ~question.truth):
        counts.append(np.unique(codes[side]).size)
        sums = np.bincount(codes[side], won[side] - area, total) / side.sum()
        contributions += sums * math.sqrt(counts[-1] / max(counts[-1] - 1, 1))
    shrunk = _shrunk(area, min(counts))
    spread = 1 + (sum(counts) / 2 - 1) * ((1 - shrunk) / (2 - shrunk) + shrunk / (1 + shrunk))
    return area, contributions, min(counts), spread / math.prod(counts)


def difference_interval(a: AucEstimate, b: AucEstimate) -> Interval:
    """95 % interval of AUC A minus AUC B on the same images.

    Its half width combines both intervals (Zou 2007), with the correlation of the two AUCs over patients shrunk towards
    1/2 with the weight of one patient. It covers this width around the difference of the AUCs and around the difference
    of the interval centers, which is nearer to 0 if one AUC is near 1.
    """
    ends, areas = np.array([a.ci95, b.ci95]), np.array([a.area, b.area])
    shrunk = _shrunk(areas, a.patients)
    assumed = shrunk * (1 - shrunk) / np.array([a.answers, b.answers])
    known = a.patients - 1
    own = known * np.array([a.variance, b.variance]) + assumed
    common = known * (a.contributions @ b.contributions) + np.sqrt(assumed.prod()) / 2
    halves, middles = np.diff(ends, axis=1).ravel() / 2, ends.mean(axis=1)
    half = math.sqrt(halves @ halves - 2 * halves.prod() * common / np.sqrt(own.prod()))
    differences = areas[0] - areas[1], middles[0] - middles[1]
    return float(max(min(differences) - half, -1)), float(min(max(differences) + half, 1))


def share_interval(right: np.ndarray, patients: np.ndarray) -> Interval:
    """95 % interval over patients for the share of `right` answers, bool (answers,)."""
    share, count = float(right.mean()), np.unique(patients).size
    low, high = score_interval(share, cluster_variance((right - share) / right.size, patients), count, count)
    return float(low), float(high)


def cluster_variance(parts: np.ndarray, patients: np.ndarray) -> float:
    """The variance of a sum of parts with mean 0, float (answers,), that depend on each other within a patient."""
    _, codes = np.unique(patients, return_inverse=True)
    sums = np.bincount(codes, parts)
    return float(sums @ sums) * sums.size / max(sums.size - 1, 1)


def score_interval(
    value: float | np.ndarray,
    variance: float | np.ndarray,
    patients: float,
    answers: float,
    *,
    mean: float | np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of a share (0–1) with a variance estimated from `patients`: low and high end.

    `answers`: effective number of independent answers with one per patient; `mean`: center of the variance, if not the
    value, as for bootstrapped curves beside a step.
    """
    mean = value if mean is None else mean
    shrunk = _shrunk(mean, patients)
    known, assumed = (patients - 1) * mean * (1 - mean), 2 * shrunk * (1 - shrunk)
    return wilson_interval(value, (known + assumed) / ((patients - 1) * variance + assumed / answers))


def wilson_interval(share: float | np.ndarray, answers: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of a share of independent answers: low and high end."""
    middle = (share + _Z**2 / 2 / answers) / (1 + _Z**2 / answers)
    half = _Z / (1 + _Z**2 / answers) * np.sqrt(share * (1 - share) / answers + (_Z / 2 / answers) ** 2)
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def _shrunk(value: float | np.ndarray, patients: float) -> float | np.ndarray:
    """The value with one correct and one wrong patient added."""
    return (value * patients + 1) / (patients + 2)


@dataclass(frozen=True)
class DeLong:
    """DeLong's test for one binary question."""

    question: str
    auc_a: float
    auc_b: float
    difference: float  # auc_a - auc_b
    error: float  # its standard error, images taken as independent
    p: float | None  # two-sided; None if the error is 0


def delong(question: str, truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> DeLong | None:
    """Compare the AUCs of two networks on the same images; None with fewer than two positives or negatives.

    References:
        DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; computed by ranks as
        Sun and Xu 2014, IEEE Signal Processing Letters 21.
    """
    if min(truth.sum(), (~truth).sum()) < 2:
        return None
    areas = [exact_area(truth, scores) for scores in (a, b)]
    # The variance of the difference, without the covariance matrix of both AUCs.
    gained = placements(truth, a) - placements(truth, b)
    variance = sum(np.var(gained[side], ddof=1) / side.sum() for side in (truth, ~truth))
    difference, error = areas[0] - areas[1], math.sqrt(variance)
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else None
    return DeLong(question, *areas, difference, error, p)


@dataclass(frozen=True)
class Agreement:
    """Observed agreement of two networks and agreement by chance; shares, 0–1."""

    observed: float
    independent: float  # of networks with the same accuracies and independent errors
    kappa: float | None  # Cohen's, (observed - independent) / (1 - independent); None if this is 0 / 0

    @classmethod
    def of(cls, observed: float, independent: float) -> "Agreement":
        kappa = None if independent >= 1 else (observed - independent) / (1 - independent)
        return cls(observed, independent, kappa)


def agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """The agreement of two networks on the same questions: both correct, or both wrong.

    With accuracies a and b, independent networks agree on a·b + (1 - a)(1 - b). `a` and `b` are correctness, bool or
    0–1 (questions,); with probabilities of the true answer, the result is the expected agreement of answers sampled
    from them. Differs from the code of Juodelyte et al., which used the accuracy of one network twice.

    References:
        Juodelyte, Jiménez-Sánchez and Cheplygina 2023, prediction similarity;
        Cohen 1960, Educational and Psychological Measurement 20 (kappa).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    observed = float(np.mean(a * b + (1 - a) * (1 - b)))
    independent = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return Agreement.of(observed, independent)


def decision_agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """How often two networks predict the same class, correct or not; a and b are classes, int (images,)."""
    classes = np.arange(max(a.max(), b.max()) + 1)
    shares = [(choices[:, None] == classes).mean(axis=0) for choices in (a, b)]
    return Agreement.of(float(np.mean(a == b)), float(shares[0] @ shares[1]))


def kappa_interval(a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> Interval:
    """95 % interval over patients for the kappa of `agreement`; arguments as there, with the patient of each question.

    `score_interval` for (kappa + 1) / 2, with the variance of the linear approximation of kappa. Patients with only
    correct or only wrong answers carry little information; the number of patients is therefore that of the patients
    with a wrong answer, or with a correct one, if smaller. Coverage in simulations: 0.93 to 1.00 with 10 to 200
    patients.

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


GRID = np.linspace(0, 1, 101)  # the points of the bands: false-positive rates, or recalls


@dataclass(frozen=True)
class Curve:
    """One curve and its 95 % band."""

    question: str
    kind: str  # "roc" or "pr"
    x: list[float]  # false-positive rate, or recall, at every threshold
    y: list[float]  # sensitivity, or precision, there
    low: list[float]  # band at GRID
    high: list[float]
    area: float  # exact area under the ROC curve, or average precision
    prevalence: float


def both_curves(
    question: str, truth: np.ndarray, scores: np.ndarray, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[Curve, Curve] | None:
    """The ROC and precision-recall curves of one question; None without positives or without negatives.

    The bands are pointwise 95 % intervals (`score_interval`) of sensitivity at each false-positive rate and of
    precision at each recall, with the variance of a bootstrap of patients (`clusters`, one per answer). Samples without
    positives or without negatives are left out.

    References:
        Fawcett 2006, Pattern Recognition Letters 27, section 7 (vertical averaging); Field and Welsh 2007,
        J. R. Stat. Soc. B 69 (cluster bootstrap). Average precision is scikit-learn's, without interpolation.
    """
    if not truth.any() or truth.all():
        return None
    names, codes = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), truth.size - 1)
    yes, owner = truth[order], codes[order]

    def counts(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at each threshold, from the highest, with these weights of the clusters."""
        each = weights[owner]
        return np.cumsum(each * yes)[last], np.cumsum(each * ~yes)[last]

    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        weights = np.bincount(rng.integers(names.size, size=names.size), minlength=names.size).astype(float)
        true, false = counts(weights)
        if true[-1] and false[-1]:
            drawn.append((_sensitivity(true, false), _precision(true, false)))
    true, false = counts(np.ones(names.size))
    patients, bands = np.unique(owner[yes]).size, []
    for number, at_grid in enumerate((_sensitivity, _precision)):
        value = at_grid(true, false)
        values = np.array([each[number] for each in drawn] or [value])
        ends = score_interval(value, values.var(axis=0), patients, patients, mean=values.mean(axis=0))
        bands.append([end.tolist() for end in ends])
    bands[0][0][-1] = 1.0  # at a false-positive rate of 1, sensitivity is 1
    prevalence, recall, precision = float(truth.mean()), true / true[-1], true / (true + false)
    x, y = np.append(0, false / false[-1]), np.append(0, recall)
    roc = Curve(question, "roc", x.tolist(), y.tolist(), *bands[0], float(np.trapezoid(y, x)), prevalence)
    average = float(np.sum(np.diff(recall, prepend=0) * precision))
    return roc, Curve(question, "pr", recall.tolist(), precision.tolist(), *bands[1], average, prevalence)


def _sensitivity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Sensitivity at `GRID`: the upper end where the curve is vertical."""
    # Slightly to the right, since a rate such as 3/60 may be slightly above 0.05 in floating point.
    return np.interp(GRID + 1e-9, np.append(0, false / false[-1]), np.append(0, true / true[-1]))


def _precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Precision at `GRID`: of the highest threshold with this recall."""
    held = true + false > 0
    true, false = true[held], false[held]
    place = np.searchsorted(true / true[-1], GRID - 1e-12)
    return (true / (true + false))[np.minimum(place, true.size - 1)]
