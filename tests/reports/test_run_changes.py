import pytest
from run_files import write_run

from radtransfer.reports.changes import LayerChange, change_differences, gain_points
from radtransfer.reports.sections import change_difference_parts, gain_parts, gain_rows
from radtransfer.reports.subject import find_subject


def changes(values):
    return [LayerChange("stem", None, by_training={f"seed 0, fold {k + 1}": v for k, v in enumerate(values)})]


@pytest.fixture
def subject(tmp_path):
    write_run(tmp_path / "i", shift=2)
    write_run(tmp_path / "other", shift=2, noise=1, weights="other", settings={"training.learning_rate": 0.1})
    write_run(tmp_path / "s", shift=1, starts_from="random", noise=2)
    return find_subject([tmp_path])


def test_gain_is_over_the_arm_that_starts_at_random_on_the_same_fold(subject):
    points = gain_points(subject, {"i": changes([0.9, 0.8, 0.7]), "s": changes([0.5, 0.5, 0.5])})
    assert list(points) == [("i", "stem")]
    aucs = {arm.name: [fold.auc for fold in arm.folds] for arm in subject.arms}
    expected = [(a - b) / b for a, b in zip(aucs["i"], aucs["s"], strict=True)]
    assert [point.gain for point in points["i", "stem"]] == pytest.approx(expected)
    assert [point.similarity for point in points["i", "stem"]] == [0.9, 0.8, 0.7]
    (row,) = gain_rows(points)
    assert (row["n"], row["ci95"][0] <= row["slope"] <= row["ci95"][1]) == (3, True)
    picture, table = gain_parts(points, [row])
    assert table.cells[0][-1] == "3"
    assert picture.name == "gain"


def test_what_is_reused_is_more_alike_than_where_the_start_is_random(subject):
    found = {
        "i": [LayerChange("stem", 0.9, (0.86, 0.94)), LayerChange("stage1", 0.5)],
        "s": [LayerChange("stem", 0.6, (0.57, 0.63)), LayerChange("stage1", 0.5)],
    }
    first, second = change_differences(subject, found)
    assert (first["arm"], first["layer"], second["ci95"]) == ("i", "stem", None)
    assert first["difference"] == pytest.approx(0.3)
    assert first["ci95"] == pytest.approx((0.25, 0.35))
    (table,) = change_difference_parts([first, second])
    assert table.cells[0][1:] == ["s", "stem", "+0.300", "+0.250 to +0.350"]
    assert change_differences(subject, {"i": found["i"]}) == []


def test_an_arm_that_differs_in_more_than_its_start_has_no_gain(subject):
    assert gain_points(subject, {"other": changes([0.9, 0.8, 0.7])}) == {}
    assert gain_parts({}, []) == []


def test_a_fold_that_was_not_compared_is_no_point(subject):
    points = gain_points(subject, {"i": changes([0.9])})
    assert [point.fold for point in points["i", "stem"]] == ["seed 0, fold 1"]
    assert gain_rows(points)[0]["slope"] is None
