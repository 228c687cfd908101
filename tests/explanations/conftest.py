"""Images whose reasons are known."""

import numpy as np
import pytest


@pytest.fixture
def spots():
    """Images with a light square on the left, and on the right: float32 (2, 32, 32, 3)."""
    images = np.full((2, 32, 32, 3), 10, np.float32)
    images[0, 8:20, 4:12] = 250
    images[1, 8:20, 20:28] = 250
    return images
