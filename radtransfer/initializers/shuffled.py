"""Shuffled init: the pretrained weights themselves, in random order."""

import math

import keras
import numpy as np

from radtransfer.initializers.random_stream import random_stream
from radtransfer.initializers.sampled import Sampled


@keras.saving.register_keras_serializable(package="radtransfer")
class Shuffled(Sampled):
    """A random permutation of the values of an array; that is, draws without replacement.

    Args:
        array: The values, of any shape with as many values as the tensor has; kept as float32, sorted.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: `array` is empty or not finite, or `seed` is not a non-negative integer; when called, the
            tensor has another number of values.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.2.
    """

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if math.prod(shape) != self.array.size:
            raise ValueError(
                f"Expected a tensor of {self.array.size} values, as many as were given to shuffle. "
                f"Received: shape {shape}, {math.prod(shape)} values. `Sampled` takes any shape."
            )
        return random_stream(self.seed).permutation(self.array).reshape(shape)
