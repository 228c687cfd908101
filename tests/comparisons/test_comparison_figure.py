"""What the axis of a comparison's curve is called."""

from types import SimpleNamespace

import pytest

from radtransfer.similarity.compare_layers import _measure


@pytest.mark.parametrize(
    ("a", "b", "kinds", "label"),
    [
        ("r@initial", "r@final", ("cca",), "similarity (mean CCA),\nbefore and after training"),
        ("r@initial", "r", ("cka",), "similarity (debiased linear CKA),\nbefore and after training"),
        ("r@initial", "s", ("cca",), "similarity (mean CCA)"),
        ("r", "s", ("cca", "cka"), "similarity"),
    ],
)
def test_the_axis_names_the_measure_and_what_is_compared(a, b, kinds, label):
    assert _measure(SimpleNamespace(settings={"a": a, "b": b, "similarity": kinds})) == label
