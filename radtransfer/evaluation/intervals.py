"""95 % intervals over patients, of AUCs, of their differences and of shares, that also hold with few patients.

Images of one patient are not independent, so the variance of an AUC is that of the patients' contributions (Obuchowski
1997; DeLong's, where each patient has one image). At an AUC of 1 it is 0, and near 1 it is too small where by luck no
patient is ranked wrong. It is therefore shrunk, with the weight of two patients, towards the variance that the AUC
would have if each patient were one image (Newcombe 2006, method 5), at an AUC to which one patient ranked right and one
ranked wrong are added. The variance says how many independent answers the AUC is worth; the interval is Wilson's score
interval of so many. It has a width whatever the data are.

Coverage and mean width, half of the patients positive, three images of each, intraclass correlation 0.5 (2,000
simulations; `tests/benchmarks/bench_intervals.py` has the other methods that were tried, and other data):

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

Below them: whether two networks differ on the same images (DeLong's test, which counts images as independent; how often
both are right or wrong), and ROC and precision-recall curves with bands over patients.
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
    """A mean AUC over questions and repeats, and what its interval is computed from."""

    area: float
    contributions: np.ndarray  # how far each patient moves it, (patients,); the sum of their squares is its variance
    patients: float  # of the rarer class (positive or negative), the mean over the questions
    answers: float  # as how many independent answers it counts if each patient is one image

    @property
    def variance(self) -> float:
        return float(self.contributions @ self.contributions)

    @property
    def ci95(self) -> Interval:
        low, high = score_interval(self.area, self.variance, self.patients, self.answers)
        return float(low), float(high)


def estimate_auc(repeats: Sequence[tuple[Sequence[Question], np.ndarray]]) -> AucEstimate | None:
    """The AUC averaged over the questions that have one, then over repeats; None where no question has one.

    Each repeat has its questions, and the patient of each of its images, int (images,). A patient has the same number
    in all repeats and counts once.
    """
    total = 1 + max(int(codes.max(initial=0)) for _, codes in repeats)
    means = []
    for questions, codes in repeats:
        found = [_of_question(question, codes[question.images], total) for question in questions]
        found = [each for each in found if each is not None]
        if found:
            area, contributions, patients, share = (np.mean(column, axis=0) for column in zip(*found, strict=True))
            # If every two of the questions' AUCs had a correlation of 1/2.
            means.append((area, contributions, patients, share * (1 + 1 / len(found)) / 2))
    if not means:
        return None
    area, contributions, patients, share = (np.mean(column, axis=0) for column in zip(*means, strict=True))
    return AucEstimate(float(area), contributions, float(patients), float(1 / share))


def _of_question(question: Question, codes: np.ndarray, total: int) -> tuple[float, np.ndarray, int, float] | None:
    """Area, contributions, patients of the rarer class and 1 / answers; None where a class is absent."""
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
    """95 % interval of AUC A less AUC B of the same images.

    Half its width is that of both intervals put together (Zou 2007), with the correlation of the two AUCs over patients
    shrunk towards 1/2 with the weight of one patient. It is laid around the difference, and around that of the middles
    of both intervals, which is nearer 0 where one AUC is near 1.
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
    """95 % interval of the share of `right` answers, bool (answers,), over the `patients` of the answers."""
    share, count = float(right.mean()), np.unique(patients).size
    low, high = score_interval(share, cluster_variance((right - share) / right.size, patients), count, count)
    return float(low), float(high)


def cluster_variance(parts: np.ndarray, patients: np.ndarray) -> float:
    """The variance of a sum of parts with mean 0, float (answers,), where those of one patient depend on each other."""
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
    """Wilson's 95 % score interval of a share (0–1) whose variance was estimated from `patients`: low and high end.

    `answers` is as how many independent answers the value counts if each patient gives one; `mean` what the variance is
    around, if not the value: of curves of drawn patients beside a step of the curve.
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
    """The value with one more patient who is right and one who is wrong."""
    return (value * patients + 1) / (patients + 2)


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of one yes-or-no question."""

    question: str
    auc_a: float
    auc_b: float
    difference: float  # auc_a - auc_b
    error: float  # its standard error, images counted as independent
    p: float | None  # of the two-sided test that there is no difference; None where the error is 0


def delong(question: str, truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> DeLong | None:
    """Compare the areas of two networks' scores of the same images; None with fewer than two positives or negatives.

    References:
        DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; computed by ranks as
        Sun and Xu 2014, IEEE Signal Processing Letters 21.
    """
    if min(truth.sum(), (~truth).sum()) < 2:
        return None
    areas = [exact_area(truth, scores) for scores in (a, b)]
    # The variance of the difference, without forming the covariance of both.
    gained = placements(truth, a) - placements(truth, b)
    variance = sum(np.var(gained[side], ddof=1) / side.sum() for side in (truth, ~truth))
    difference, error = areas[0] - areas[1], math.sqrt(variance)
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else None
    return DeLong(question, *areas, difference, error, p)


@dataclass(frozen=True)
class Agreement:
    """How often two networks agree, against how often they would by chance; shares, 0–1."""

    observed: float
    independent: float  # for networks of the same accuracies with independent errors
    kappa: float | None  # Cohen's, (observed - independent) / (1 - independent); None where that is 0 / 0

    @classmethod
    def of(cls, observed: float, independent: float) -> "Agreement":
        kappa = None if independent >= 1 else (observed - independent) / (1 - independent)
        return cls(observed, independent, kappa)


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
    return Agreement.of(observed, independent)


def decision_agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """How often two networks decide for the same class, whatever the truth; a and b are classes, int (images,)."""
    classes = np.arange(max(a.max(), b.max()) + 1)
    shares = [(choices[:, None] == classes).mean(axis=0) for choices in (a, b)]
    return Agreement.of(float(np.mean(a == b)), float(shares[0] @ shares[1]))


def kappa_interval(a: np.ndarray, b: np.ndarray, patients: np.ndarray) -> Interval:
    """95 % interval of the kappa of `agreement` over patients, where it is defined.

    (kappa + 1) / 2 is treated as a share, as `score_interval` says, with the variance of kappa's linear approximation.
    Patients of whom both networks are always right, or always wrong, tell little about it: counted are the others, or
    those that are right, whichever are fewer. Measured coverage: 0.93 to 1.00 with 10 to 200 patients. Arguments as of
    `agreement`, and the patient of each question.

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


GRID = np.linspace(0, 1, 101)
"""Where bands are drawn: false-positive rates, or recalls."""


@dataclass(frozen=True)
class Curve:
    """One curve and its 95 % band."""

    question: str
    kind: str  # "roc" or "pr"
    x: list[float]  # false-positive rate, or recall, at every threshold
    y: list[float]  # sensitivity, or precision, there
    low: list[float]  # of the band, at GRID
    high: list[float]
    area: float  # exact area under a ROC curve; average precision of the other
    prevalence: float


def both_curves(
    question: str, truth: np.ndarray, scores: np.ndarray, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[Curve, Curve] | None:
    """The ROC and the precision-recall curve of one question; None where there is no positive or no negative.

    The bands are pointwise 95 % intervals of sensitivity at a false-positive rate, and of precision at a recall, as
    `score_interval` gives them. The variance is that of whole patients drawn with replacement; a draw without positives
    or without negatives is left out. `clusters` (answers,) are what is drawn together.

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
    bands[0][0][-1] = 1.0  # at a false-positive rate of 1 every positive is found
    prevalence, recall, precision = float(truth.mean()), true / true[-1], true / (true + false)
    x, y = np.append(0, false / false[-1]), np.append(0, recall)
    roc = Curve(question, "roc", x.tolist(), y.tolist(), *bands[0], float(np.trapezoid(y, x)), prevalence)
    average = float(np.sum(np.diff(recall, prepend=0) * precision))
    return roc, Curve(question, "pr", recall.tolist(), precision.tolist(), *bands[1], average, prevalence)


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
