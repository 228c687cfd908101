import json

import numpy as np
import pytest
from run_files import write_run
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from radtransfer.evaluation.predictions import read_predictions
from radtransfer.process import Progress
from radtransfer.reports.arms import MOST_ARMS, ArmSummary, PredictionCache, _pairs, compare_arms, summarize_arms
from radtransfer.reports.collect import find_runs
from radtransfer.reports.statistics import verdict
from radtransfer.reports.subject import sort_arms
from radtransfer.similarity.compare_predictions import compare_predictions


def compared(*paths):
    runs, notes = find_runs(paths)
    arms = sort_arms(runs)
    shelf = PredictionCache(notes)
    summaries = summarize_arms(arms, shelf)
    return summaries, compare_arms(arms, summaries, shelf, Progress()), notes


def aucs(path):
    found = read_predictions(str(path))
    folds = np.array(found.folds)
    return [roc_auc_score(found.targets[folds == k, 1], found.probabilities[folds == k, 1]) for k in sorted(set(folds))]


def test_single_runs_are_compared_as_compare_predictions_does(tmp_path):
    a = write_run(tmp_path / "a", shift=2)
    b = write_run(tmp_path / "b", shift=1, noise=1, starts_from="random")
    summaries, (difference,), notes = compared(a, b)
    expected = compare_predictions(str(a), str(b))
    assert difference.value == expected.auc.difference
    assert difference.ci95 == expected.auc.ci95
    assert difference.p == expected.delong[0].p
    assert difference.agreement == (expected.errors.observed, expected.errors.independent)
    assert (difference.patients, difference.unit) == (60, "patients")
    assert notes == []
    assert summaries[0].mean == pytest.approx(np.mean(aucs(a)))
    assert summaries[0].sd == pytest.approx(np.std(aucs(a), ddof=1))
    assert summaries[0].ci95[0] < summaries[0].pooled < summaries[0].ci95[1]
    by_fold = np.subtract(aucs(a), aucs(b))
    assert difference.fold_mean == pytest.approx(by_fold.mean())
    assert (difference.trainings, difference.better) == (3, int((by_fold > 0).sum()))


def test_kappa_has_an_interval_over_patients(tmp_path):
    a, b = write_run(tmp_path / "a", shift=2), write_run(tmp_path / "b", shift=2, noise=1, weights="other")
    _, (difference,), _ = compared(a, b)
    right = [(read_predictions(str(path)).right[:, 0] > 0.5) for path in (a, b)]
    assert difference.kappa == pytest.approx(cohen_kappa_score(*right))
    low, high = difference.kappa_ci95
    assert low < difference.kappa < high
    assert 0.05 < high - low < 0.8


def test_seeds_are_paired_and_averaged(tmp_path):
    paths = [write_run(tmp_path / f"i{seed}", shift=2, seed=seed) for seed in range(3)]
    paths += [write_run(tmp_path / f"s{seed}", shift=1, seed=seed, noise=1, starts_from="random") for seed in (2, 1)]
    summaries, (difference,), _ = compared(*paths)
    assert (summaries[0].trainings, summaries[0].seeds) == (9, 3)
    pooled = [
        roc_auc_score(*(lambda f: (f.targets[:, 1], f.probabilities[:, 1]))(read_predictions(str(p)))) for p in paths
    ]
    assert summaries[0].pooled == pytest.approx(np.mean(pooled[:3]))
    assert summaries[0].ci95[0] < summaries[0].pooled < summaries[0].ci95[1]
    # Seeds 1 and 2, which both have.
    assert difference.value == pytest.approx(np.mean(pooled[1:3]) - np.mean(pooled[3:]))
    assert difference.trainings == 6
    assert difference.p is None


def test_averaging_seeds_narrows_no_interval_below_that_of_the_patients(tmp_path):
    """Three copies of one run tell nothing new: the interval stays as it was."""
    for seed in range(3):
        write_run(tmp_path / f"copy{seed}", seed=0).joinpath("config.yaml").write_text(
            f"seed: {seed}\nmodel: {{backbone: resnet50, weights: imagenet}}\n", encoding="utf-8"
        )
    (summary,), _, _ = compared(tmp_path)
    single = compared(write_run(tmp_path.parent / "single", seed=0))[0][0]
    assert summary.seeds == 3
    assert summary.ci95 == pytest.approx(single.ci95, abs=0.012)


def test_runs_of_other_images_are_not_compared_and_noted(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", starts_from="random")
    for file in b.glob("fold_*/predictions.csv"):
        file.write_text(file.read_text(encoding="utf-8").replace("image_", "other_"), encoding="utf-8")
    _, differences, notes = compared(a, b)
    assert differences == []
    assert "a and b are not compared" in notes[0]
    assert "no test image in common" in notes[0]


def test_a_run_of_an_earlier_version_has_todays_interval(tmp_path):
    path = write_run(tmp_path / "run")
    expected = compared(path)[0][0]
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["auc"]["ci95"] = [metrics["auc"]["pooled"]] * 2
    (path / "metrics.json").write_text(json.dumps(metrics))
    assert compared(path)[0][0] == expected
    assert expected.ci95[0] < expected.pooled < expected.ci95[1]


def test_predictions_that_are_gone_are_noted(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", starts_from="random")
    (b / "fold_1" / "predictions.csv").unlink()
    summaries, differences, notes = compared(a, b)
    assert [summary.trainings for summary in summaries] == [3, 3]
    assert differences == []
    assert "predictions cannot be read" in notes[0]


def test_of_many_arms_those_that_the_advice_needs_are_compared():
    arms = [
        ArmSummary(f"{start}{depth}", f"start {start}", f"depth {depth}", "b", mean=0.5 + 0.01 * start + 0.001 * depth)
        for start in range(4)
        for depth in range(4)
    ]
    assert len(arms) > MOST_ARMS
    pairs = {frozenset(pair) for pair in _pairs(arms, [frozenset(("00", "33"))])}
    assert frozenset(("00", "01")) in pairs and frozenset(("00", "33")) in pairs
    assert frozenset(("00", "11")) not in pairs
    assert len(list(_pairs(arms[:4], []))) == 6


def test_of_many_arms_each_is_compared_with_the_best_by_its_pooled_auc():
    arms = [ArmSummary(f"{n}", f"s{n}", f"d{n}", "b", mean=0.9 - 0.01 * n, pooled=0.5 + 0.01 * n) for n in range(11)]
    assert {frozenset(pair) for pair in _pairs(arms, [])} == {frozenset((str(n), "10")) for n in range(10)}


def test_two_perfect_arms_on_few_patients_are_not_called_equal(tmp_path):
    few = [write_run(tmp_path / f"few_{k}", shift=30, weights=k, patients=6, folds=1) for k in ("imagenet", "other")]
    summaries, (difference,), _ = compared(*few)
    assert (difference.value, verdict(difference.ci95)) == (0, "inconclusive")
    assert [summary.pooled for summary in summaries] == [1, 1]
    assert all(summary.ci95[0] < 0.8 and summary.ci95[1] == 1 for summary in summaries)
    many = [write_run(tmp_path / f"many_{k}", shift=30, weights=k, patients=200) for k in ("imagenet", "other")]
    assert verdict(compared(*many)[1][0].ci95) == "equal"


def test_the_interval_of_seeds_taken_together_is_of_their_mean(tmp_path):
    seeds = [write_run(tmp_path / f"{seed}", seed=seed, noise=1) for seed in (0, 1, 2)]
    (together,), _, _ = compared(*seeds)
    alone = [compared(path)[0][0] for path in seeds]
    assert together.pooled == pytest.approx(np.mean([arm.pooled for arm in alone]))
    assert np.ptp(together.ci95) < np.mean([np.ptp(arm.ci95) for arm in alone])
