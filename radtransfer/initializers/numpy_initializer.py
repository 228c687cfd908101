"""The base of our initializers: values computed in NumPy, handed to whichever backend Keras runs on."""

import copy
from typing import Self

import keras
import numpy as np


class NumpyInitializer(keras.initializers.Initializer):
    """An initializer whose subclasses say what `values` a shape gets.

    Instances never change after construction. As the values do not come from the backend, they are the same
    inside and outside a `tf.function`, and with every backend.
    """

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """The weights of a tensor of `shape`, float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `values(shape)`.")

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> "keras.KerasTensor":
        """The weights as a tensor of `dtype`; of Keras' default float type without one."""
        values = keras.ops.convert_to_tensor(self.values(tuple(shape)))
        return keras.ops.cast(values, dtype or keras.config.floatx())

    def clone(self) -> Self:
        """An equal initializer. It shares the array: every Keras layer clones the initializers it is given."""
        return copy.copy(self)
