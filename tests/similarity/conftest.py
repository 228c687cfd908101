import numpy as np
import pytest


def related_layers(seed, rows, channels_x, channels_y):
    """Two rectified layers that see the same inputs, with spectra that decay."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, 12))

    def layer(channels):
        signal = inputs @ rng.normal(size=(12, channels)) + rng.normal(size=(rows, channels))
        return np.where(signal > 0, signal, 0.1 * signal) * rng.uniform(0.5, 2, channels)

    return layer(channels_x), layer(channels_y)


@pytest.fixture(params=[(0, 500, 10, 10), (1, 900, 24, 9), (2, 1200, 7, 30)], ids=["equal", "wide-x", "wide-y"])
def layers(request):
    return related_layers(*request.param)


@pytest.fixture
def make_layers():
    return related_layers
