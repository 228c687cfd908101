"""The weights of a seed never change: not with the platform, not with the version of NumPy."""

import json
from pathlib import Path

import numpy as np
import pytest

from radtransfer.initializers import MeanVar, PositiveMeanVar, Sampled, Shuffled

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "initializer_draws.json").read_text(encoding="utf-8"))
ARRAY = [0.5, -1.25, 3.0, 0.1, -0.2, 7.5]
MADE = {
    "mean_var": MeanVar(0.1, 2.0, 7),
    "positive_mean_var": PositiveMeanVar(0.1, 2.0, 7),
    "sampled": Sampled(ARRAY, 7),
    "shuffled": Shuffled(ARRAY, 7),
}


@pytest.mark.parametrize("name", MADE)
def test_draws_are_the_stored_ones(name):
    expected = np.array(GOLDEN["draws"][name], np.float32)
    np.testing.assert_allclose(MADE[name]((6,)), expected, rtol=2e-7)  # one unit in the last place
