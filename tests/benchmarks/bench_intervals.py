"""How often 95 % intervals of an AUC hold the true one, and how wide they are, with several images of each patient.

    python tests/benchmarks/bench_intervals.py [--patients 10,20,50] [--areas 0.6,0.7,0.86,0.96,0.99] [--images 3]
        [--icc 0.5] [--prevalence 0.5] [--labels patient|image] [--round DIGITS] [--difference] [--simulations 1000]
        [--json FILE]

Scores are binormal with an effect of the patient. A row is one method; each column has its coverage and mean width.
With --difference a second network with correlated scores is compared, whose AUC is 0.1 lower; beside 0.96 and 0.99 it
is the same. Methods that have no width at an AUC of 1 are counted as they are.

References: Obuchowski 1997, Biometrics 53; DeLong et al. 1988, Biometrics 44; Qin and Hotilovac 2008, Statistical
Methods in Medical Research 17; Newcombe 2006, Statistics in Medicine 25; Efron 1987, Journal of the American
Statistical Association 82 (BCa); Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 12 (bootstrap t);
Zou 2007, Psychological Methods 12 (MOVER).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from radtransfer.evaluation.intervals import difference_interval, estimate_auc
from radtransfer.evaluation.scoring import Question, exact_area

Z = norm.ppf(0.975)


def main():
    options = parse()
    rng, results = np.random.default_rng(options.seed), []
    contest, arms = (of_difference, 2) if options.difference else (of_one, 1)
    for patients in options.patients:
        found = {}
        for area in options.areas:
            areas = (area, area if area in (0.96, 0.99) else area - 0.1)[:arms]
            of_arms = areas if options.round is None else [true_area(rng, each, options.round) for each in areas]
            truth = of_arms[0] - of_arms[1] if arms == 2 else of_arms[0]
            for _ in range(options.simulations):
                for name, (low, high) in contest(*draw(rng, patients, areas, options), rng, options.draws).items():
                    found.setdefault((name, area), []).append((low <= truth <= high, high - low))
        print(f"{patients} patients, {options.images} images of each: coverage (mean width) at AUC", *options.areas)
        for name in dict.fromkeys(name for name, _ in found):
            means = [np.mean(found[name, area], axis=0) for area in options.areas]
            print(f"  {name:<38}", "  ".join(f"{held:.3f} ({width:.3f})" for held, width in means), flush=True)
            results += [
                {"patients": patients, "method": name, "auc": area, "coverage": held, "width": width}
                for area, (held, width) in zip(options.areas, means, strict=True)
            ]
    if options.json:
        options.json.write_text(json.dumps({"settings": {**vars(options), "json": None}, "rows": results}, indent=2))


def parse():
    def several(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=several(int), default=[10, 20, 50])
    parser.add_argument("--areas", type=several(float), default=[0.6, 0.7, 0.86, 0.96, 0.99])
    parser.add_argument("--images", type=int, default=3, help="of each patient; if negative, so many on average")
    parser.add_argument("--icc", type=float, default=0.5, help="intraclass correlation of the scores")
    parser.add_argument("--prevalence", type=float, default=0.5)
    parser.add_argument("--labels", choices=["patient", "image"], default="patient")
    parser.add_argument("--round", type=int, help="digits of the scores: few make ties")
    parser.add_argument("--difference", action="store_true")
    parser.add_argument("--shared", type=float, default=0.7, help="share of the variance that two networks share")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500, help="of the bootstraps; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def draw(rng, patients, areas, options):
    """Truth, scores of each network and patients; patients are positive in the exact share of the prevalence."""
    sizes = np.full(patients, options.images)
    if options.images < 0:
        sizes = rng.integers(1, -2 * options.images, size=patients)
    codes = np.repeat(np.arange(patients), sizes)
    truth = np.zeros(0, bool)
    while truth.all() or not truth.any():
        if options.labels == "patient":
            truth = rng.permutation(patients)[codes] < round(options.prevalence * patients)
        else:
            truth = rng.random(codes.size) < options.prevalence

    def noise():
        own = rng.normal(size=codes.size) * np.sqrt(1 - options.icc)
        return own + rng.normal(size=patients)[codes] * np.sqrt(options.icc)

    common, part = noise(), options.shared if len(areas) == 2 else 0
    scores = [
        np.sqrt(part) * common + np.sqrt(1 - part) * noise() + np.sqrt(2) * norm.ppf(area) * truth for area in areas
    ]
    return truth, [each if options.round is None else np.round(each, options.round) for each in scores], codes


def true_area(rng, area, digits):
    """Of rounded scores, which is a little nearer to 0.5."""
    scores, truth = rng.normal(size=1_000_000), np.arange(1_000_000) % 2 == 1
    return exact_area(truth, np.round(scores + np.sqrt(2) * norm.ppf(area) * truth, digits))


class Clustered:
    """Pairs won between every two patients, from which any weighting of the patients takes one product."""

    def __init__(self, truth, scores, codes):
        above, below = scores[truth][:, None], scores[~truth][None]
        won = (above > below) + (above == below) / 2
        member = np.eye(codes.max() + 1)[codes]
        self.won, self.positives, self.negatives = (
            member[truth].T @ won @ member[~truth],
            member[truth].sum(axis=0),
            member[~truth].sum(axis=0),
        )
        self.patients = len(self.positives)

    def areas(self, weights):
        """The AUC under each row of weights, float (rows,); NaN where a class is absent."""
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = (weights @ self.positives) * (weights @ self.negatives)
            return ((weights @ self.won) * weights).sum(axis=1) / pairs

    def variances(self, weights):
        """Obuchowski's under each row of weights: all, that of the positives and that of the negatives."""
        with np.errstate(invalid="ignore", divide="ignore"):
            areas = self.areas(weights)[:, None]
            m, n = ((weights @ side)[:, None] for side in (self.positives, self.negatives))
            up = ((weights @ self.won.T) / n - areas * self.positives) / m
            down = ((weights @ self.won) / m - areas * self.negatives) / n
            for part, side in ((up, self.positives), (down, self.negatives)):
                count = (weights * (side > 0)).sum(axis=1)[:, None]
                part *= np.sqrt(count / np.maximum(count - 1, 1))
            return [(weights * part**2).sum(axis=1) for part in (up + down, up, down)]


def of_one(truth, scores, codes, rng, draws):
    data = Clustered(truth, scores[0], codes)
    once = np.ones((1, data.patients))
    area = data.areas(once)[0]
    variance, up, down = (each[0] for each in data.variances(once))
    rarer = [int((side > 0).sum()) for side in (data.positives, data.negatives)]
    df = {"patients - 1": data.patients - 1, "rarer class - 1": max(min(rarer) - 1, 1)}
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [part**2 / max(count - 1, 1) for part, count in zip((up, down), rarer, strict=True)]
        df["Satterthwaite"] = max((up + down) ** 2 / sum(parts), 1) if sum(parts) > 0 else 1
    found = {}
    if draws:
        found |= bootstraps(data, area, variance, rng, draws)
    for name, freedom in df.items():
        found[f"Obuchowski, logit, t {name}"] = transformed(area, variance, t.ppf(0.975, freedom), logit, expit)
    found["Obuchowski, probit, z"] = transformed(area, variance, Z, norm.ppf, norm.cdf)
    found["Obuchowski, arcsine, z"] = transformed(
        area, variance, Z, lambda x: np.arcsin(np.sqrt(x)), lambda x: np.sin(np.clip(x, 0, np.pi / 2)) ** 2
    )
    found["Obuchowski, logit, t; exact at 1"] = found["Obuchowski, logit, t patients - 1"]
    if area in (0, 1):
        bound = 0.025 ** (1 / min(rarer))
        found["Obuchowski, logit, t; exact at 1"] = (bound, 1) if area else (0, 1 - bound)
    found["Newcombe 5, patients as images"] = newcombe(area, *rarer)
    found["radtransfer"] = estimate(truth, scores[0], codes).ci95
    return found


def of_difference(truth, scores, codes, rng, draws):
    both = [estimate(truth, each, codes) for each in scores]
    value = both[0].area - both[1].area
    moved = both[0].contributions - both[1].contributions
    error, ends, found = np.sqrt(moved @ moved), [each.ci95 for each in both], {}
    if draws:
        data = [Clustered(truth, each, codes) for each in scores]
        weights = rng.multinomial(data[0].patients, np.full(data[0].patients, 1 / data[0].patients), size=draws)
        drawn = data[0].areas(weights) - data[1].areas(weights)
        found["percentile bootstrap"] = np.percentile(drawn[~np.isnan(drawn)], [2.5, 97.5])
    for name, factor in (("z", Z), ("t patients - 1", t.ppf(0.975, moved.size - 1))):
        found[f"clustered DeLong, {name}"] = value - factor * error, value + factor * error
    (low_a, high_a), (low_b, high_b) = ends
    spread = np.sqrt(both[0].variance * both[1].variance)
    r = both[0].contributions @ both[1].contributions / spread if spread else 0
    sides = [(both[0].area - low_a, high_b - both[1].area), (high_a - both[0].area, both[1].area - low_b)]
    halves = [np.sqrt(max(x**2 + y**2 - 2 * r * x * y, 0)) for x, y in sides]
    found["MOVER of radtransfer's intervals"] = value - halves[0], value + halves[1]
    found["radtransfer"] = difference_interval(*both)
    return found


def estimate(truth, scores, codes):
    return estimate_auc([([Question("", np.arange(truth.size), truth, scores)], codes)])


def bootstraps(data, area, variance, rng, draws):
    weights = rng.multinomial(data.patients, np.full(data.patients, 1 / data.patients), size=draws)
    drawn, variances = data.areas(weights), data.variances(weights)[0]
    known = ~np.isnan(drawn)
    found = {"percentile bootstrap": np.percentile(drawn[known], [2.5, 97.5])}
    left_out = data.areas(1 - np.eye(data.patients))
    moved = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    size = np.sum(moved**2) ** 1.5
    skew = np.sum(moved**3) / 6 / size if size > 0 else 0
    bias = norm.ppf(np.clip(np.mean((drawn[known] < area) + (drawn[known] == area) / 2), 0.001, 0.999))
    ends = [norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in (-Z, Z)]
    found["BCa bootstrap"] = np.quantile(drawn[known], np.clip(ends, 0, 1))
    usable = known & (drawn > 0) & (drawn < 1) & (variances > 0)
    found["bootstrap t, logit"] = (area, area)
    if variance > 0 and 0 < area < 1 and usable.any():
        x, errors = drawn[usable], np.sqrt(variances[usable])
        ratios = (logit(x) - logit(area)) / (errors / x / (1 - x))
        error, (low, high) = np.sqrt(variance) / area / (1 - area), np.percentile(ratios, [2.5, 97.5])
        found["bootstrap t, logit"] = expit(logit(area) - high * error), expit(logit(area) - low * error)
    return found


def transformed(area, variance, factor, forward, back):
    """By the delta method; at 0 and 1 it has no width."""
    if not 0 < area < 1:
        return area, area
    step = 1e-6 * min(area, 1 - area)
    slope = (forward(area + step) - forward(area - step)) / 2 / step
    half = factor * np.sqrt(variance) * slope
    return back(forward(area) - half), back(forward(area) + half)


def newcombe(area, m, n):
    """The ends x at which (area - x)² is Z² times the variance at x, by bisection."""

    def inside(x):
        spread = 1 + ((m + n) / 2 - 1) * ((1 - x) / (2 - x) + x / (1 + x))
        return (area - x) ** 2 <= Z**2 * x * (1 - x) / m / n * spread

    ends = []
    for outer in (0.0, 1.0):
        inner = area
        for _ in range(40):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if inside(middle) else (inner, middle)
        ends.append(inner)
    return tuple(ends)


if __name__ == "__main__":
    main()
