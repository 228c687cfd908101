import pytest

from radtransfer.evaluation.results import calibration_axes
from radtransfer.evaluation.scoring import Scoring


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        (Scoring("multiclass", ("well", "sick")), ["probability of sick", "share of sick"]),
        (Scoring("multiclass", ("a", "b", "c")), ["largest probability", "share correct"]),
        (
            Scoring("multiclass", ("0", "1", "2"), positive_from=2),
            ["probability of grade >= 2", "share of grade >= 2"],
        ),
        (
            Scoring("multilabel", ("edema", "mass")),
            ["probability of a label", "share with the label", "images × labels"],
        ),
    ],
)
def test_the_reliability_diagram_says_what_its_axes_are(scoring, words):
    assert list(calibration_axes(scoring).values()) == words
