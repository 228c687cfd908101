"""Mean Var: the scale of pretrained weights without their features."""

import math
from typing import Any, Self

import keras
import numpy as np

from radtransfer.initializers.numpy_initializer import NumpyInitializer
from radtransfer.initializers.random_stream import checked_seed, random_stream


@keras.saving.register_keras_serializable(package="radtransfer")
class MeanVar(NumpyInitializer):
    """Independent draws from a normal distribution, not truncated.

    Args:
        mean: Of the distribution.
        stddev: Its standard deviation, at least 0.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: An argument is out of range.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), section 5.
    """

    def __init__(self, mean: float, stddev: float, seed: int):
        if not (math.isfinite(mean) and math.isfinite(stddev) and stddev >= 0):
            raise ValueError(
                "Expected a finite mean and a finite stddev of at least 0. "
                f"Received: mean={mean}, stddev={stddev}. Check the tensor they come from for NaN."
            )
        self.mean, self.stddev, self.seed = float(mean), float(stddev), checked_seed(seed)

    @classmethod
    def like(cls, array: np.ndarray, seed: int) -> Self:
        """The initializer with the mean and the population standard deviation of `array`."""
        array = np.asarray(keras.ops.convert_to_numpy(array), np.float64)
        if array.size == 0:
            raise ValueError(f"Expected a tensor with values. Received one of shape {array.shape}.")
        return cls(float(array.mean()), float(array.std()), seed)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.mean + self.stddev * random_stream(self.seed).standard_normal(shape)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}
