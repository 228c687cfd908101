"""Intervals over patients agree with published formulas computed naively, and have a width whatever the data are."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from radtransfer.evaluation.intervals import (
    agreement,
    delong,
    difference_interval,
    estimate_auc,
    kappa_interval,
    share_interval,
)
from radtransfer.evaluation.scoring import Question
from radtransfer.reports.statistics import verdict


def estimate(truth, scores, patients=None):
    truth = np.asarray(truth, bool)
    question = Question("q", np.arange(truth.size), truth, np.asarray(scores, float))
    return estimate_auc([([question], np.arange(truth.size) if patients is None else patients)])


def drawn(rng, patients, areas, *, images=3, shared=0.8, of_patient=True):
    """Truth, patients and a score of each area; half of a score's variance is the patient's."""
    codes = np.repeat(np.arange(patients), images)
    truth = np.arange(patients)[codes] % 2 == 1 if of_patient else rng.permutation(codes.size) % 2 == 1

    def noise():
        return (rng.normal(size=patients)[codes] + rng.normal(size=codes.size)) / np.sqrt(2)

    common = noise()
    scores = [
        np.sqrt(shared) * common + np.sqrt(1 - shared) * noise() + np.sqrt(2) * norm.ppf(area) * truth for area in areas
    ]
    return truth, codes, scores


def test_the_variance_is_obuchowskis_computed_pair_by_pair():
    rng = np.random.default_rng(0)
    truth, codes, (scores,) = drawn(rng, 14, [0.8])
    keep = rng.random(truth.size) < 0.7  # patients with one to three images
    truth, codes, scores = truth[keep], codes[keep], np.round(scores[keep], 1)
    won = {
        (i, j): 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
        for i in np.flatnonzero(truth)
        for j in np.flatnonzero(~truth)
    }
    positives, negatives = truth.sum(), (~truth).sum()
    area = sum(won.values()) / positives / negatives
    variance = 0
    for side, place, own, others in ((truth, 0, positives, negatives), (~truth, 1, negatives, positives)):
        sums = {}
        for image in np.flatnonzero(side):
            share = sum(value for pair, value in won.items() if pair[place] == image) / others
            sums[codes[image]] = sums.get(codes[image], 0) + share - area
        count = len(sums)
        variance += count / (count - 1) / own**2 * sum(value**2 for value in sums.values())
    found = estimate(truth, scores, codes)
    assert (found.area, found.variance) == (pytest.approx(area), pytest.approx(variance))


def test_of_independent_images_the_variances_are_delongs():
    truth, _, (a, b) = drawn(np.random.default_rng(1), 240, [0.85, 0.8], images=1)
    mine, its, test = estimate(truth, a), estimate(truth, b), delong("q", truth, a, b)
    moved = mine.contributions - its.contributions
    assert moved @ moved == pytest.approx(test.error**2)
    low, high = difference_interval(mine, its)
    assert low < test.difference < high
    assert (high - low) / 2 / 1.96 == pytest.approx(test.error, rel=0.1)


def test_copies_of_a_patients_images_change_nothing():
    truth, codes, (a, b) = drawn(np.random.default_rng(2), 20, [0.9, 0.8], of_patient=False)
    once = [estimate(truth, scores, codes) for scores in (a, b)]
    twice = [estimate(np.tile(truth, 2), np.tile(scores, 2), np.tile(codes, 2)) for scores in (a, b)]
    assert twice[0].ci95 == pytest.approx(once[0].ci95)
    assert difference_interval(*twice) == pytest.approx(difference_interval(*once))


def test_the_other_class_has_the_mirrored_interval():
    truth, codes, (scores,) = drawn(np.random.default_rng(3), 12, [0.9])
    low, high = estimate(truth, scores, codes).ci95
    assert estimate(~truth, scores, codes).ci95 == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("positives", [1, 3, 80])
def test_perfect_networks_have_an_interval_and_few_patients_do_not_make_them_equal(positives):
    truth = np.arange(2 * positives) < positives
    perfect = estimate(truth, truth)
    low, high = perfect.ci95
    assert (perfect.area, high) == (1, 1)
    # The worth of as many answers as there are patients, at most.
    assert binomtest(positives, positives).proportion_ci(method="wilson").low - 0.03 < low
    assert low < binomtest(3 * positives, 3 * positives).proportion_ci(method="wilson").low
    of_difference = difference_interval(perfect, perfect)
    assert of_difference[0] < 0 < of_difference[1]
    assert verdict(of_difference) == ("equal" if positives == 80 else "inconclusive")


def test_a_network_and_itself_differ_by_less_the_more_patients_there_are():
    widths = []
    for patients in (10, 100, 1000):
        truth, codes, (scores,) = drawn(np.random.default_rng(4), patients, [0.85])
        found = estimate(truth, scores, codes)
        low, high = difference_interval(found, found)
        assert low < 0 < high and low == pytest.approx(-high)
        widths.append(high - low)
    assert widths[0] > 5 * widths[1] > 25 * widths[2] > 0


@pytest.mark.parametrize(
    ("patients", "areas", "least"), [(10, (0.8, 0.7), 0.93), (20, (0.96, 0.86), 0.93), (50, (0.99, 0.96), 0.92)]
)
def test_the_interval_of_a_difference_holds_it_also_where_one_area_is_near_1(patients, areas, least):
    rng, held = np.random.default_rng(5), []
    for _ in range(400):
        truth, codes, scores = drawn(rng, patients, areas)
        low, high = difference_interval(*(estimate(truth, each, codes) for each in scores))
        held.append(low <= areas[0] - areas[1] <= high)
    assert np.mean(held) >= least


def test_no_difference_of_areas_is_beyond_1():
    truth = np.arange(10) < 5
    best, worst = estimate(truth, truth), estimate(truth, ~truth)
    low, high = difference_interval(best, worst)
    assert 0 < low < high == 1
    assert difference_interval(worst, best) == (-high, -low)


def test_the_interval_of_a_mean_over_labels_is_narrower_than_that_of_one():
    rng = np.random.default_rng(6)
    truth, codes, scores = drawn(rng, 40, [0.8] * 4, shared=0.0)
    questions = [Question(f"{number}", np.arange(truth.size), truth, each) for number, each in enumerate(scores)]
    one, all_four = (np.ptp(estimate_auc([(chosen, codes)]).ci95) for chosen in (questions[:1], questions))
    assert 0.4 < all_four / one < 0.75
    absent = Question("absent", np.arange(3), np.zeros(3, bool), np.zeros(3))
    assert estimate_auc([([absent], codes)]) is None
    assert estimate_auc([([questions[0], absent], codes)]).ci95 == estimate_auc([(questions[:1], codes)]).ci95


def test_a_share_of_nothing_wrong_has_wilsons_interval_of_as_many_answers_as_patients():
    expected = tuple(binomtest(8, 8).proportion_ci(method="wilson"))
    assert share_interval(np.ones(24, bool), np.arange(24) // 3) == pytest.approx(expected)
    right = np.arange(600) % 5 > 0
    assert share_interval(right, np.arange(600)) == pytest.approx(
        tuple(binomtest(480, 600).proportion_ci(method="wilson")), abs=1e-3
    )


def test_the_interval_of_kappa_holds_it_where_errors_are_few():
    rng = np.random.default_rng(7)

    def right(patients, codes):
        noise = [rng.normal(size=patients)[codes] + rng.normal(size=codes.size) for _ in range(3)]
        return [(0.6**0.5 * noise[0] + 0.4**0.5 * own) / 2**0.5 < norm.ppf(0.9) for own in noise[1:]]

    expected = agreement(*right(200_000, np.arange(200_000))).kappa
    held, codes = [], np.arange(60) // 3
    for _ in range(300):
        a, b = right(20, codes)
        if agreement(a, b).kappa is not None:
            low, high = kappa_interval(a, b, codes)
            held.append(low <= expected <= high)
            assert high - low > 0.1
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("images", [1, 10, 1000])
def test_kappa_of_a_network_that_is_always_right_and_one_that_never_is_has_an_interval(images):
    right, wrong = np.ones(images, bool), np.zeros(images, bool)
    low, high = kappa_interval(right, wrong, np.arange(images))
    assert -1 < low < agreement(right, wrong).kappa == 0 < high < 1
    assert type(low) is type(high) is float
