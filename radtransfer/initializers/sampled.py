"""Sampling init: draws from the empirical distribution of pretrained weights."""

from typing import Any, Self

import keras
import numpy as np

from radtransfer.initializers.numpy_initializer import NumpyInitializer
from radtransfer.initializers.packed_array import finite_float32, pack, unpack
from radtransfer.initializers.random_stream import checked_seed, random_stream


@keras.saving.register_keras_serializable(package="radtransfer")
class Sampled(NumpyInitializer):
    """Independent draws, with replacement, from the values of an array; for tensors of any shape.

    The values are kept sorted: their order says nothing about their distribution, and sorted values need a third of
    the space in a saved model.

    Args:
        array: The values to draw from, of any shape; kept as float32.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: `array` is empty or not finite, or `seed` is not a non-negative integer.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.2.
    """

    def __init__(self, array: np.ndarray, seed: int):
        self.array, self.seed = np.sort(finite_float32(array), axis=None), checked_seed(seed)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.array[random_stream(self.seed).integers(self.array.size, size=shape)]

    def get_config(self) -> dict[str, Any]:
        return {"array": pack(self.array), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The initializer with this config.

        Raises:
            ValueError: The packed array is damaged.
        """
        return cls(**{**config, "array": unpack(config.get("array"))})
