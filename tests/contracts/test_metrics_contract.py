"""Every metric of the registry keeps what its entry says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radtransfer.errors import TrainingError
from radtransfer.evaluation.metrics import METRICS, NEEDS, Metric, Predictions, evaluate, summarize
from radtransfer.evaluation.scoring import Scoring

SCORINGS = {
    "two classes": Scoring("multiclass", ("benign", "malignant")),
    "the first of two classes": Scoring("multiclass", ("benign", "malignant"), positive_class="benign"),
    "classes": Scoring("multiclass", ("a", "b", "c")),
    "many classes": Scoring("multiclass", tuple("abcdefg")),
    "grades": Scoring("multiclass", ("0", "1", "2", "3"), positive_from=2),
    "labels": Scoring("multilabel", ("edema", "mass", "nodule")),
}
PLACES = {"studies", "exports"}


def draw(scoring, images, seed, *, patients=True):
    """Labels and scores at random, some labels of several unknown, many scores tied."""
    rng, classes = np.random.default_rng(seed), len(scoring.classes)
    outputs = np.round(rng.random((images, classes)), 1)
    if scoring.task == "multilabel":
        targets = rng.choice([0.0, 1.0, np.nan], (images, classes), p=[0.5, 0.4, 0.1])
    else:
        targets = np.eye(classes)[rng.integers(classes, size=images)]
        outputs = (outputs + 1e-6) / (outputs + 1e-6).sum(axis=1, keepdims=True)
    names = [f"{number}.png" for number in range(images)]
    return Predictions(targets, outputs, names, [f"p{number // 2}" for number in range(images)] if patients else None)


def perfect(scoring):
    """Three images of each class, or of each label and of none, known without a doubt."""
    classes = len(scoring.classes)
    targets = np.tile(np.eye(classes), (3, 1))
    return Predictions(targets, targets, [str(number) for number in range(len(targets))])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_an_entry_says_all_that_printers_need(metric):
    assert METRICS[metric.name] is metric
    assert metric.name.isidentifier()
    assert metric.label and 0 < len(metric.heading) <= 13
    assert metric.range[0] < metric.range[1]
    assert set(metric.needs) <= {*NEEDS, "patients"}
    assert set(metric.left_out_of) <= PLACES


@pytest.mark.parametrize("kind", SCORINGS)
@given(images=st.integers(0, 30), seed=st.integers(0, 2**31), patients=st.booleans())
@settings(max_examples=25, deadline=None)
def test_values_keep_the_range_and_are_there_only_where_their_needs_are(kind, images, seed, patients):
    scoring = SCORINGS[kind]
    predictions = draw(scoring, images, seed, patients=patients)
    found = evaluate(predictions, scoring)
    assert list(found) == [
        "auc",
        "per_class",
        *(name for name in METRICS if name != "auc"),
        *("n_images", "n_patients", "undefined", "n_per_class"),
    ]
    for name, metric in METRICS.items():
        value = found[name]
        if not metric.applies(scoring) or ("patients" in metric.needs and not patients):
            assert value is None
        if value is not None:
            assert isinstance(value, float)
            assert metric.range[0] <= value <= metric.range[1]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", SCORINGS)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_nothing_is_better_than_being_right_and_sure(kind, metric):
    value = metric.value(perfect(SCORINGS[kind]), SCORINGS[kind])
    best = metric.range[1] if metric.higher_is_better else metric.range[0]
    assert value == (best if metric.applies(SCORINGS[kind]) else None)


@pytest.mark.parametrize("kind", SCORINGS)
def test_the_order_of_the_images_does_not_matter(kind):
    scoring, whole = SCORINGS[kind], draw(SCORINGS[kind], 40, 3)
    order = np.random.default_rng(0).permutation(40)
    mixed = Predictions(
        whole.targets[order],
        whole.probabilities[order],
        [whole.images[row] for row in order],
        [whole.patients[row] for row in order],
    )
    for metric in METRICS.values():
        assert metric.value(mixed, scoring) == pytest.approx(metric.value(whole, scoring))


def test_outputs_that_are_no_numbers_are_an_error():
    predictions = draw(SCORINGS["classes"], 6, 0)
    predictions.probabilities[2, 1] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        evaluate(predictions, SCORINGS["classes"])


def test_what_a_metric_needs_is_given_to_it_or_it_has_no_value(monkeypatch):
    share = Metric(
        "share",
        lambda targets, probabilities, scoring, *, patients: len(set(patients)) / len(patients),
        "patients per image",
        "share",
        needs=("patients", "several labels"),
    )
    monkeypatch.setitem(METRICS, share.name, share)
    scoring = SCORINGS["labels"]
    assert summarize([draw(scoring, 10, 0), draw(scoring, 10, 1)], scoring)["share"] == 0.5
    assert evaluate(draw(scoring, 10, 0, patients=False), scoring)["share"] is None
    assert evaluate(draw(SCORINGS["classes"], 10, 0), SCORINGS["classes"])["share"] is None
