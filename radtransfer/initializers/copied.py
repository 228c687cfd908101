"""Weights as they are given: the `transfer` policy of batch norm."""

from typing import Any, Self

import keras
import numpy as np

from radtransfer.initializers.numpy_initializer import NumpyInitializer
from radtransfer.initializers.packed_array import finite_float32, pack, unpack


@keras.saving.register_keras_serializable(package="radtransfer")
class Copied(NumpyInitializer):
    """The values of an array, unchanged. Keras' own `Constant` is for one number.

    Args:
        array: Of the shape of the tensor to initialize; kept as float32.

    Raises:
        ValueError: `array` is empty or not finite; when called, the tensor has another shape.
    """

    def __init__(self, array: np.ndarray):
        self.array = finite_float32(array)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if shape != self.array.shape:
            raise ValueError(
                f"Expected a tensor of shape {self.array.shape}, that of the array to copy. Received: {shape}."
            )
        return self.array

    def get_config(self) -> dict[str, Any]:
        return {"array": pack(self.array)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The initializer with this config.

        Raises:
            ValueError: The packed array is damaged.
        """
        return cls(unpack(config.get("array")))
