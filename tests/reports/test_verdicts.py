import pytest

from radtransfer.reports.arms import ArmDifference
from radtransfer.reports.page import say
from radtransfer.reports.statistics import more_patients, verdict


@pytest.mark.parametrize(
    ("ci95", "word"),
    [
        ((0.01, 0.05), "better"),
        ((-0.05, -0.01), "worse"),
        ((-0.01, 0.05), "inconclusive"),
        ((-0.01, 0.01), "equal"),
        ((0.005, 0.015), "equal"),
        ((-0.02, 0.01), "inconclusive"),
        (None, "inconclusive"),
        ((0.0, 0.0), "inconclusive"),
        ((0.3, 0.3), "inconclusive"),
    ],
)
def test_an_interval_allows_one_word(ci95, word):
    assert verdict(ci95) == word


def test_more_patients_narrow_the_interval_by_the_square_root():
    # Half as wide at four times as many: ±0.08 of 100 patients becomes ±0.04 of 400.
    assert more_patients(0.04, (-0.04, 0.12), 100) == (400, "apart")


def test_a_difference_about_zero_needs_patients_to_be_called_equal():
    # ±0.04 must become ±0.02.
    assert more_patients(0.0, (-0.04, 0.04), 100) == (400, "equal")


def test_what_is_out_of_reach_is_not_counted():
    assert more_patients(0.0199, (-0.38, 0.42), 10)[0] is None


def test_without_an_interval_nothing_is_promised():
    assert more_patients(0.1, None, 1) is None
    assert more_patients(0.0, (0.0, 0.0), 2) is None


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (
            (0.04, (-0.04, 0.12), 100, "patients"),
            "about 400 patients instead of 100 would show a difference, if",
        ),
        (
            (0.0, (-0.04, 0.04), 1000, "images"),
            "about 4,000 images instead of 1,000 would show that they are equal",
        ),
        (
            (0.0199, (-0.38, 0.42), 10, "patients"),
            "a conclusion needs more than 100 times as many patients as",
        ),
        ((0.1, None, 1, "folds"), "no interval can be computed from 1 folds"),
    ],
)
def test_what_would_decide_is_said_in_words(difference, text):
    assert say("advice.needed", ArmDifference("a", "b", *difference)).startswith(text)
