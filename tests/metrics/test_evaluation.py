"""The figures agree with scikit-learn and with hand calculations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from radtransfer.errors import ConfigError, TrainingError
from radtransfer.evaluation.metrics import Predictions, evaluate, exact_auc, summarize
from radtransfer.evaluation.scoring import Scoring, exact_area, sensitivity_at_specificity

TWO = Scoring("multiclass", ("benign", "malignant"))
THREE = Scoring("multiclass", ("a", "b", "c"))
GRADES = Scoring("multiclass", ("0", "1", "2"), positive_from=1)
LABELS = Scoring("multilabel", ("edema", "effusion"))


def names(n, start=0):
    return [f"image_{start + i}" for i in range(n)]


def softmax_case(rng, n, classes, digits=1):
    """One-hot targets and rounded, hence tied, probabilities that sum to one or nearly so."""
    truth = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    targets = np.eye(classes)[truth]
    scores = rng.random((n, classes)) + 0.7 * targets
    return targets, np.round(scores / scores.sum(1, keepdims=True), digits)


def fold(targets, probabilities, start=0, patients=None, repeat=0):
    targets, probabilities = np.asarray(targets, float), np.asarray(probabilities, float)
    return Predictions(targets, probabilities, names(len(targets), start), patients, repeat)


def binary(truth, scores, **keywords):
    truth, scores = np.asarray(truth), np.asarray(scores)
    return fold(np.stack([1 - truth, truth], 1), np.stack([1 - scores, scores], 1), **keywords)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_the_area_is_scikit_learns_also_with_ties(pairs):
    truth, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], float)
    if truth.all() or not truth.any():
        assert exact_area(truth, scores) is None
    else:
        assert exact_area(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@given(
    st.lists(st.booleans(), min_size=2, max_size=45),
    st.integers(0, 2**31),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
)
@settings(max_examples=80, deadline=None)
def test_the_sensitivity_is_the_best_point_of_the_roc_curve(truth, seed, specificity):
    truth, scores = np.array(truth), np.random.default_rng(seed).integers(0, 12, len(truth)).astype(float)
    if truth.all() or not truth.any():
        assert sensitivity_at_specificity(truth, scores, specificity) is None
        return
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    best = true[1 - false >= specificity - 1e-9].max()
    assert sensitivity_at_specificity(truth, scores, specificity) == pytest.approx(best)


def test_one_false_positive_of_ten_is_ninety_percent_specificity():
    truth = np.array([False] * 10 + [True] * 2)
    scores = np.array([0.1] * 9 + [0.8, 0.5, 0.9])
    assert sensitivity_at_specificity(truth, scores, 0.9) == 1
    assert sensitivity_at_specificity(truth[1:], scores[1:], 0.9) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_more_classes_are_macro_one_versus_rest(seed):
    targets, probabilities = softmax_case(np.random.default_rng(seed), 60, 3)
    expected = roc_auc_score(targets, probabilities, average="macro")
    assert exact_auc(targets, probabilities, THREE) == pytest.approx(expected, abs=1e-12)


def test_two_classes_are_scored_by_the_last_one():
    targets, probabilities = softmax_case(np.random.default_rng(0), 60, 2)
    expected = roc_auc_score(targets[:, 1], probabilities[:, 1])
    assert exact_auc(targets, probabilities, TWO) == pytest.approx(expected, abs=1e-12)


def test_two_sigmoids_are_scored_by_the_last_one_as_it_is():
    metrics = evaluate(fold([[1, 0], [0, 1]], [[0.1, 0.4], [0.9, 0.5]]), TWO)
    assert metrics["auc"] == 1
    assert metrics["per_class"] == {"benign": 0.0, "malignant": 1.0}


@pytest.mark.parametrize("positive", ["benign", "malignant"])
@pytest.mark.parametrize("seed", range(3))
def test_two_sigmoids_are_scored_by_the_positive_class(seed, positive):
    rng = np.random.default_rng(seed)
    targets, _ = softmax_case(rng, 60, 2)
    outputs = np.round(rng.random((60, 2)) * 0.7 + 0.3 * targets, 2)
    column = TWO.classes.index(positive)
    truth, scores = targets[:, column], outputs[:, column]
    found = evaluate(fold(targets, outputs), replace(TWO, positive_class=positive))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["sensitivity_at_90_specificity"] == pytest.approx(true[1 - false >= 0.9 - 1e-9].max())
    assert found["brier"] == pytest.approx(brier_score_loss(truth, scores))


def test_the_positive_class_is_the_last_of_two_unless_another_is_named_and_comes_last_in_figures():
    assert Scoring("multiclass", ("benign", "malignant"), positive_class="malignant") == TWO
    benign = Scoring("multiclass", ("benign", "malignant"), positive_class="benign")
    assert (TWO.in_order, benign.in_order) == (("benign", "malignant"), ("malignant", "benign"))
    assert [item.positive_class for item in (THREE, GRADES, LABELS)] == [None] * 3
    subjects = [item.subject for item in (benign, GRADES, Scoring("multilabel", ("edema",)), THREE, LABELS)]
    assert subjects == ["positive class benign", "grade ≥ 1", "label edema", "", ""]


@pytest.mark.parametrize("scoring", [TWO, THREE, GRADES, LABELS])
def test_a_positive_class_that_does_not_fit_is_refused(scoring):
    with pytest.raises(ConfigError, match="expected one of two classes"):
        replace(scoring, positive_class="a" if scoring is THREE else "0")


def test_float32_outputs_are_not_compared_after_rounding():
    close = np.nextafter(np.float32(0.5), np.float32(1))
    targets, probabilities = np.eye(2), np.array([[0.5, 0.5], [0.5, close]], np.float32)
    assert exact_auc(targets, probabilities, TWO) == 1


def test_micro_pools_the_outputs_and_differs_from_macro():
    targets = np.eye(3)[[0] * 8 + [1, 2]]
    probabilities = np.tile([0.8, 0.1, 0.1], (10, 1))
    micro = Scoring("multiclass", ("a", "b", "c"), average="micro")
    assert exact_auc(targets, probabilities, THREE) == 0.5
    assert exact_auc(targets, probabilities, micro) == pytest.approx(
        roc_auc_score(targets, probabilities, average="micro")
    )
    assert exact_auc(targets, probabilities, micro) > 0.8


def test_the_referable_score_is_the_share_of_the_grades_from_k_on():
    targets = np.eye(3)[[0, 0, 1, 2]]
    # Shares of grades 1 and 2: 0.2, 0.5, 0.4, 0.9; sums alone would be 0.2, 1.0, 0.2, 0.9.
    sigmoids = [[0.8, 0.1, 0.1], [1.0, 0.5, 0.5], [0.3, 0.1, 0.1], [0.1, 0.4, 0.5]]
    metrics = evaluate(fold(targets, sigmoids), GRADES)
    assert metrics["auc"] == 0.75
    assert metrics["brier"] == pytest.approx((0.2**2 + 0.5**2 + 0.6**2 + 0.1**2) / 4)
    assert metrics["per_class"] == {"0": 1.0, "1": pytest.approx(1 / 6), "2": pytest.approx(5 / 6)}
    assert metrics["accuracy"] == 0.75


def test_a_referable_score_exists_where_every_output_is_zero():
    metrics = evaluate(fold(np.eye(3)[[0, 2]], [[0, 0, 0], [0, 0, 1]]), GRADES)
    assert metrics["auc"] == 1


@pytest.mark.parametrize(
    ("task", "classes", "grade", "average"),
    [
        ("multiclass", ("a", "b"), 1, "macro"),
        ("multiclass", ("0", "1"), 0, "macro"),
        ("multiclass", ("0", "1"), 2, "macro"),
        ("multilabel", ("0", "1"), 1, "macro"),
        ("multiclass", ("0", "1"), 1, "micro"),
        ("multiclass", ("0", "1"), None, "weighted"),
    ],
)
def test_a_scoring_that_cannot_be_is_refused(task, classes, grade, average):
    with pytest.raises(ConfigError):
        Scoring(task, classes, grade, average)


def test_unknown_labels_are_never_counted():
    targets = np.array([[1, 0], [0, np.nan], [np.nan, 1], [0, 0]])
    probabilities = np.array([[0.9, 0.2], [0.1, 0.99], [0.99, 0.6], [0.4, 0.7]])
    metrics = evaluate(fold(targets, probabilities), LABELS)
    assert metrics["per_class"] == {"edema": 1.0, "effusion": 0.5}
    assert metrics["auc"] == 0.75
    assert metrics["accuracy"] == pytest.approx(5 / 6)
    assert metrics["brier"] == pytest.approx(np.mean([0.01, 0.01, 0.16, 0.04, 0.16, 0.49]))


def test_a_label_with_one_value_is_left_out_with_a_reason():
    metrics = evaluate(fold([[1, 0], [0, 0], [0, np.nan]], [[0.9, 0.2], [0.1, 0.9], [0.2, 0.1]]), LABELS)
    assert metrics["auc"] == 1
    assert metrics["per_class"] == {"edema": 1.0, "effusion": None}
    assert metrics["undefined"] == {"effusion": "all 2 images are negative"}


def test_one_class_alone_gives_no_auc_but_a_reason():
    metrics = evaluate(binary([1, 1], [0.2, 0.7]), TWO)
    assert (metrics["auc"], metrics["sensitivity_at_90_specificity"]) == (None, None)
    assert metrics["accuracy"] == 0.5
    assert metrics["undefined"]["auc"] == "malignant: all 2 images are positive"


def test_labels_that_are_all_unknown_give_no_figure():
    metrics = evaluate(fold(np.full((2, 2), np.nan), np.full((2, 2), 0.5)), LABELS)
    assert (metrics["auc"], metrics["accuracy"], metrics["brier"]) == (None, None, None)
    assert metrics["undefined"]["edema"] == "no image with a known label"


def test_outputs_that_are_not_finite_are_an_error():
    with pytest.raises(TrainingError, match="1 of 4 outputs are not finite"):
        exact_auc(np.eye(2), np.array([[0.5, np.nan], [0.5, 0.5]]), TWO)


def test_arrays_that_do_not_fit_the_classes_are_an_error():
    with pytest.raises(ValueError, match="Expected probabilities of shape"):
        exact_auc(np.eye(2), np.ones((2, 3)), TWO)


def test_the_brier_score_is_scikit_learns():
    targets, probabilities = softmax_case(np.random.default_rng(1), 50, 2, digits=3)
    probabilities[:, 0] = 1 - probabilities[:, 1]
    expected = brier_score_loss(targets[:, 1], probabilities[:, 1])
    assert evaluate(fold(targets, probabilities), TWO)["brier"] == pytest.approx(expected)


def test_the_brier_score_of_more_classes_is_summed_over_them():
    metrics = evaluate(fold(np.eye(3), [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]), THREE)
    assert metrics["brier"] == pytest.approx((0.25 + 0.25 + 1) / 3)


def test_folds_are_summarized_with_the_sample_standard_deviation():
    folds = [
        binary([0, 1], [0.1, 0.2]),
        binary([0, 1], [0.2, 0.1], start=2),
        binary([0, 0, 1], [0.6, 0.4, 0.5], start=4),
    ]
    summary = summarize(folds, TWO)
    assert summary["auc"]["per_fold"] == [1.0, 0.0, 0.5]
    assert summary["auc"]["mean"] == pytest.approx(0.5)
    assert summary["auc"]["sd"] == pytest.approx(np.std([1, 0, 0.5], ddof=1)) == pytest.approx(0.5)
    assert summary["n_images"] == 7
    assert summary["n_patients"] is None


def test_one_fold_has_no_standard_deviation():
    assert summarize([binary([0, 1], [0.1, 0.2])], TWO)["auc"]["sd"] is None


def test_an_undefined_fold_keeps_its_place_and_still_counts_in_the_pool():
    folds = [binary([0, 1], [0.3, 0.4]), binary([1, 1], [0.1, 0.9], start=2)]
    summary = summarize(folds, TWO)
    assert summary["auc"]["per_fold"] == [1.0, None]
    assert summary["auc"]["mean"] == 1
    assert summary["auc"]["pooled"] == pytest.approx(2 / 3)


def test_the_pool_is_per_repeat_and_averaged_over_repeats():
    folds = [
        binary([0, 1], [0.1, 0.4]),
        binary([0, 1], [0.5, 0.9], start=2),
        binary([0, 1], [0.4, 0.1], repeat=1),
        binary([0, 1], [0.9, 0.5], start=2, repeat=1),
    ]
    summary = summarize(folds, TWO)
    assert summary["auc"]["pooled"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert summary["n_images"] == 4


def test_figures_are_means_over_folds():
    folds = [binary([0, 1], [0.1, 0.2]), binary([0, 1, 1, 1], [0.1, 0.9, 0.9, 0.9], start=2)]
    assert summarize(folds, TWO)["accuracy"] == pytest.approx((0.5 + 1) / 2)


def test_patients_are_counted_once():
    summary = summarize([binary([0, 1, 1], [0.1, 0.2, 0.3], patients=["p", "q", "q"])], TWO)
    assert summary["n_patients"] == 2


def test_everything_can_be_written_as_json():
    folds = [binary([0, 1], np.array([0.3, 0.4], np.float32)), binary([1, 1], [0.1, 0.9], start=2)]
    for result in (summarize(folds, TWO), evaluate(folds[1], TWO)):
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def clustered(rng, patients, images):
    """Images of one patient share their label and most of their score."""
    truth = np.repeat(rng.integers(2, size=patients), images)
    scores = np.repeat(rng.normal(size=patients), images) + 0.2 * rng.normal(size=patients * images) + truth
    return truth, 1 / (1 + np.exp(-scores)), [f"p{i}" for i in np.repeat(np.arange(patients), images)]


def width(summary):
    return summary["auc"]["ci95"][1] - summary["auc"]["ci95"][0]


def test_the_interval_over_patients_is_wider_than_over_images_where_these_are_alike():
    truth, scores, patients = clustered(np.random.default_rng(0), 40, 8)
    over_patients = summarize([binary(truth, scores, patients=patients)], TWO)
    over_images = summarize([binary(truth, scores)], TWO)
    assert over_patients["auc"]["pooled"] == over_images["auc"]["pooled"]
    assert width(over_patients) > 1.8 * width(over_images)


def test_patients_that_stand_in_two_repeats_are_drawn_together():
    truth, scores, patients = clustered(np.random.default_rng(0), 40, 2)
    once = summarize([binary(truth, scores, patients=patients)], TWO)
    twice = summarize([binary(truth, scores, patients=patients, repeat=repeat) for repeat in (0, 1)], TWO)
    assert twice["auc"]["ci95"] == pytest.approx(once["auc"]["ci95"])


def test_one_patient_or_one_positive_has_a_wide_interval_and_one_class_none():
    for folds in ([binary([0, 1], [0.1, 0.2], patients=["p", "p"])], [binary([0] * 30 + [1], np.linspace(0, 1, 31))]):
        low, high = summarize(folds, TWO)["auc"]["ci95"]
        assert isinstance(low, float) and isinstance(high, float)
        assert (low < 0.5, high) == (True, 1)
    assert summarize([binary([1, 1], [0.1, 0.2])], TWO)["auc"]["ci95"] is None


@pytest.mark.parametrize(
    ("patients", "area", "least", "widest"),
    [
        (10, 0.70, 0.92, 0.52),
        (10, 0.96, 0.93, 0.36),
        (20, 0.60, 0.93, 0.41),
        (20, 0.86, 0.94, 0.28),
        (20, 0.99, 0.95, 0.17),
        (50, 0.96, 0.94, 0.09),
    ],
)
def test_the_interval_holds_the_true_area_with_few_patients_and_is_not_needlessly_wide(patients, area, least, widest):
    rng, truth = np.random.default_rng(0), np.repeat(np.arange(patients) % 2, 3)
    names = [f"p{number}" for number in np.repeat(np.arange(patients), 3)]
    held, widths = [], []
    for _ in range(400):
        # Half of the variance is the patient's, and so is the intraclass correlation.
        noise = (np.repeat(rng.normal(size=patients), 3) + rng.normal(size=truth.size)) / np.sqrt(2)
        scores = norm.cdf(noise + np.sqrt(2) * norm.ppf(area) * truth)
        low, high = summarize([binary(truth, scores, patients=names)], TWO)["auc"]["ci95"]
        held.append(low <= area <= high)
        widths.append(high - low)
    assert np.mean(held) >= least
    assert np.min(widths) > 0 and np.mean(widths) < widest


def test_the_top_five_of_many_classes_is_counted():
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    truth, probabilities = rng.integers(9, size=60), rng.dirichlet(np.ones(9), size=60)
    scoring = Scoring("multiclass", tuple("abcdefghi"))
    predictions = Predictions(np.eye(9)[truth], probabilities, [str(i) for i in range(60)])
    expected = top_k_accuracy_score(truth, probabilities, k=5, labels=range(9))
    assert evaluate(predictions, scoring)["top5_accuracy"] == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_every_figure_of_labels_is_scikit_learns_on_the_known_images_and_says_of_how_many(data):
    rows = data.draw(st.integers(2, 25))
    cell = st.sampled_from([0.0, 1.0, np.nan])
    targets = np.array(data.draw(st.lists(st.tuples(cell, cell), min_size=rows, max_size=rows)))
    scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])  # few, so that many are tied
    outputs = np.array(data.draw(st.lists(st.tuples(scores, scores), min_size=rows, max_size=rows)))
    found = evaluate(fold(targets, outputs), LABELS)
    for column, name in enumerate(LABELS.classes):
        known = ~np.isnan(targets[:, column])
        truth, score = targets[known, column], outputs[known, column]
        positive, negative = int(truth.sum()), int((1 - truth).sum())
        assert found["n_per_class"][name] == {"positive": positive, "negative": negative}
        if positive and negative:
            assert found["per_class"][name] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        else:
            assert found["per_class"][name] is None and name in found["undefined"]


def test_images_of_several_folds_are_counted_once():
    parts = [binary([0, 1, 1], [0.1, 0.7, 0.4], repeat=repeat) for repeat in (1, 2)]
    summary = summarize(parts, TWO)
    assert summary["n_images"] == 3
    assert summary["n_per_class"] == {
        n: {"positive": p, "negative": 3 - p} for n, p in (("benign", 1), ("malignant", 2))
    }
