import pytest

from radtransfer.runs.read import steps_to


def rows(*points, split="test"):
    return [{"step": step, "split": split, "auc": auc} for step, auc in points]


@pytest.mark.parametrize(
    ("points", "step"),
    [
        ([(10, 0.6), (20, 0.8), (30, 0.7)], 20),
        ([(10, 0.6), (20, 0.79)], None),
        ([(10, None), (20, "0.81")], 20),
        ([], None),
    ],
)
def test_the_first_step_that_reaches_the_threshold_counts(points, step):
    assert steps_to(rows(*points), 0.8) == step


def test_only_the_split_that_is_asked_for_counts():
    both = rows((10, 0.9), split="val") + rows((10, 0.5), (20, 0.9))
    assert steps_to(both, 0.8) == 20
    assert steps_to(both, 0.8, split="val") == 10
