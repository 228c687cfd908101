import pytest

from radtransfer.evaluation.results import calibration_axes
from radtransfer.evaluation.scoring import Scoring


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        (Scoring("multiclass", ("well", "sick")), ["probability of sick", "share that is sick"]),
        (Scoring("multiclass", ("a", "b", "c")), ["largest probability", "share that is right"]),
        (
            Scoring("multiclass", ("0", "1", "2"), positive_from=2),
            ["probability of grade >= 2", "share that is grade >= 2"],
        ),
        (
            Scoring("multilabel", ("edema", "mass")),
            ["probability of a label", "share that has it", "images × labels"],
        ),
    ],
)
def test_the_reliability_diagram_says_what_its_axes_are(scoring, words):
    assert list(calibration_axes(scoring).values()) == words
