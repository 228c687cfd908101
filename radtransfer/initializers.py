"""Registered Keras initializers for the transfer schemes, usable in any layer.

    from radtransfer.initializers import MeanVar
    keras.layers.Conv2D(64, 7, kernel_initializer=MeanVar.like(pretrained_kernel, seed=1))

Each is a pure function of its arguments: layers with the same seed get the same weights. Give every layer its own seed,
such as `radtransfer.process.derive_seed(seed, layer.name)`. Importing this module registers all initializers, so that
saved models with one of them load. To add one, write a registered `NumpyInitializer` and add it to `INITIALIZERS`.
"""

import base64
import copy
import math
import operator
import zlib
from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np

from radtransfer.errors import UnknownNameError
from radtransfer.process import derive_seed


def checked_seed(seed: int) -> int:
    """`seed` as a Python integer; ValueError if it is negative or not an integer."""
    if not isinstance(seed, bool) and hasattr(seed, "__index__") and operator.index(seed) >= 0:
        return operator.index(seed)
    raise ValueError(f"Expected a non-negative integer as seed. Received: {seed!r}. Give every layer its own.")


def random_stream(seed: int) -> np.random.Generator:
    """A new random generator.

    NumPy's, as those of the backends differ between devices and backends. PCG64 by name, as `default_rng` may change.
    NumPy guarantees PCG64's bits but not the distributions computed from them, which a test compares with stored draws.
    """
    return np.random.Generator(np.random.PCG64(seed))


class NumpyInitializer(keras.initializers.Initializer):
    """An initializer whose subclasses compute `values` with NumPy.

    The values are the same inside and outside a `tf.function`, and with every backend.
    """

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """The weights of a tensor of `shape`, float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} must define `values(shape)`.")

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> "keras.KerasTensor":
        """The weights as a tensor of `dtype`, by default Keras' float type."""
        values = keras.ops.convert_to_tensor(self.values(tuple(shape)))
        return keras.ops.cast(values, dtype or keras.config.floatx())

    def clone(self) -> Self:
        """An equal initializer that shares the array, as every Keras layer clones its initializers."""
        return copy.copy(self)


class _ArrayInitializer(NumpyInitializer):
    """An initializer with an array of finite float32, stored packed in its config (see `pack`)."""

    array: np.ndarray

    def get_config(self) -> dict[str, Any]:
        return {"array": pack(self.array)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The initializer with this config; ValueError if the packed array is damaged."""
        return cls(**{**config, "array": unpack(config.get("array"))})


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


@keras.saving.register_keras_serializable(package="radtransfer")
class PositiveMeanVar(MeanVar):
    """Independent draws from a log-normal distribution of a given mean and standard deviation.

    The paper says "resampling … according to the ImageNet means and variances", but not how variances stay positive.
    The moving variances of pretrained networks vary as much as their mean, so that a normal distribution truncated or
    folded at zero would change mean and variance; the log-normal distribution has both.

    Args:
        mean: Of the distribution (not of its logarithm), above 0.
        stddev: Its standard deviation, at least 0.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: An argument is out of range.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.1.
    """

    def __init__(self, mean: float, stddev: float, seed: int):
        super().__init__(mean, stddev, seed)
        if self.mean <= 0:
            raise ValueError(f"Expected a mean above 0. Received: {mean}. Use MeanVar for values that may be negative.")

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        log_variance = math.log1p((self.stddev / self.mean) ** 2)
        normal = random_stream(self.seed).standard_normal(shape)
        return self.mean * np.exp(math.sqrt(log_variance) * normal - log_variance / 2)


@keras.saving.register_keras_serializable(package="radtransfer")
class Sampled(_ArrayInitializer):
    """Independent draws, with replacement, from the values of an array; for tensors of any shape.

    The values are stored sorted, which takes a third of the space in a saved model.

    Args:
        array: The values to draw from, of any shape; converted to float32.
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
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="radtransfer")
class Shuffled(Sampled):
    """A random permutation of the values of an array, that is, draws without replacement.

    Args:
        array: The values, as many as the tensor has, of any shape; converted to float32.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: `array` is empty or not finite, or `seed` is not a non-negative integer; when called: the
            tensor has another number of values.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.2.
    """

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if math.prod(shape) != self.array.size:
            raise ValueError(
                f"Expected a tensor of {self.array.size} values, the number of values to shuffle. "
                f"Received: shape {shape}, {math.prod(shape)} values. Use `Sampled`, which takes any shape."
            )
        return random_stream(self.seed).permutation(self.array).reshape(shape)


@keras.saving.register_keras_serializable(package="radtransfer")
class Copied(_ArrayInitializer):
    """The values of an array, unchanged; Keras' own `Constant` is for one number.

    Args:
        array: Of the shape of the tensor; converted to float32.

    Raises:
        ValueError: `array` is empty or not finite; when called: the tensor has another shape.
    """

    def __init__(self, array: np.ndarray):
        self.array = finite_float32(array)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if shape != self.array.shape:
            raise ValueError(f"Expected a tensor of shape {self.array.shape}, as the array. Received: {shape}.")
        return self.array


POLICIES = ("identity", "mean_var", "transfer")
"""The batch-norm policies, as in YAML."""

_IDENTITY = {
    "gamma": keras.initializers.Ones,
    "beta": keras.initializers.Zeros,
    "moving_mean": keras.initializers.Zeros,
    "moving_variance": keras.initializers.Ones,
}


def batch_norm_initializers(
    policy: str, vectors: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, keras.initializers.Initializer]:
    """The initializers of a batch-norm layer for a policy, as arguments.

        keras.layers.BatchNormalization(**batch_norm_initializers("mean_var", pretrained, seed=1))

    Args:
        policy: `identity`: gamma and moving variance 1, beta and moving mean 0. `mean_var`: each vector drawn with the
            mean and variance of the pretrained one; variances are positive. `transfer`: each vector copied.
        vectors: The pretrained `gamma`, `beta`, `moving_mean` and `moving_variance`, or some of them.
        seed: Of the layer; each vector has its own stream.

    Returns:
        `gamma_initializer` and so on, for the given vectors.

    Raises:
        UnknownNameError: Unknown policy or vector.
        ValueError: A vector is empty or not finite, or variances are not above 0.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.1 and Figure 17.
    """
    initializers: dict[str, keras.initializers.Initializer] = {}
    for name, vector in vectors.items():
        if name not in _IDENTITY:
            raise UnknownNameError("batch-norm vector", name, _IDENTITY)
        if policy not in POLICIES:
            raise UnknownNameError("batch-norm policy", policy, POLICIES)
        if policy == "identity":
            initializer = _IDENTITY[name]()
        elif policy == "mean_var":
            kind = PositiveMeanVar if name == "moving_variance" else MeanVar
            initializer = kind.like(vector, derive_seed(seed, name))
        else:
            initializer = Copied(vector)
        initializers[f"{name}_initializer"] = initializer
    return initializers


FREQUENCIES, SIGMA, REACH, RESIZED, CROPPED = (0.08, 0.16, 0.25, 0.32), 2.0, 3.0, 10, 7
"""Of Gabor images: frequencies in cycles per pixel, standard deviation of the envelope in pixels, radius in standard
deviations, side in pixels after resizing, and side of the filter cropped from the center."""


@keras.saving.register_keras_serializable(package="radtransfer")
class Gabor(NumpyInitializer):
    """Grayscale Gabor filters of all orientations, equal on all input channels.

    For a 7×7 kernel with 64 filters this is the paper's construction: 16 angles k/16·π at each of the frequencies
    0.08, 0.16, 0.25 and 0.32, σ = 2, ordered by frequency, then angle. Each image

        exp(−(x² + y²) / 2σ²) · cos(2π · frequency · (x cos θ + y sin θ)),   |x|, |y| ≤ ⌈3σ · max(|cos θ|, |sin θ|)⌉

    is 11×11 or 13×13 and is resized to 10×10; the filter is its center, from pixel (10 − 7) // 2. One factor for
    all filters then sets the standard deviation of the kernel.

    * For another number of filters there are more or fewer angles, evenly over half a turn. If it is not a multiple
      of four, the lower frequencies have one angle more.
    * A smaller kernel is a smaller crop of the same 10×10 image, with the same frequencies per pixel. (Resizing
      would raise them beyond the resolution.)
    * A larger kernel, with a longer side of k pixels, magnifies everything by k/7: the filter shows the same
      image with more pixels. An image not larger than the magnified 10×10 is not resized, as in the paper.

    Differences: the paper's listing crops in the branch that does not resize, and would return uncropped 10×10
    images, but its text and Figure 21 have 7×7 filters. scikit-image's `resize` smooths first, which here would
    add the neighboring pixel with a weight of 2·10⁻¹⁰; its `gabor_kernel` has a constant factor 1/(2πσ²).

    Args:
        scale: Standard deviation of all values of the kernel, above 0, such as that of the pretrained first
            convolution. None for that of He-normal, √(2 / fan-in).

    Raises:
        ValueError: `scale` is out of range; when called: the tensor is not the kernel of a 2-D convolution.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.3, Figures 8 and 21.
        He et al. 2015, Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2: the default scale.
    """

    def __init__(self, scale: float | None = None):
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"Expected a standard deviation above 0 as scale, or None. Received: {scale}. "
                "Use that of the pretrained kernel."
            )
        self.scale = None if scale is None else float(scale)

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(
                "Expected the shape of a 2-D convolution kernel, (height, width, channels, filters). "
                f"Received: {shape}. Gabor filters suit the first convolution of a network."
            )
        height, width, channels, filters = shape
        planes = gabor_planes(height, width, filters)
        if planes.std() == 0:
            raise ValueError(f"Expected a kernel of at least two values per channel. Received: {shape}.")
        scale = math.sqrt(2 / (height * width * channels)) if self.scale is None else self.scale
        return np.repeat(planes[:, :, None] * (scale / planes.std()), channels, axis=2)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}


def gabor_planes(height: int, width: int, filters: int) -> np.ndarray:
    """Gabor filters before scaling: float64, (height, width, filters), at most 1."""
    magnification = max(1.0, max(height, width) / CROPPED)
    side, sigma = round(RESIZED * magnification), SIGMA * magnification
    each, left = divmod(filters, len(FREQUENCIES))
    planes = []
    for i, frequency in enumerate(FREQUENCIES):
        angles = each + (i < left)
        for step in range(angles):
            angle = step / angles * math.pi
            cos, sin = math.cos(angle), math.sin(angle)
            radius = math.ceil(REACH * sigma * max(abs(cos), abs(sin)))
            y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
            envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
            image = envelope * np.cos(2 * math.pi * (frequency / magnification) * (x * cos + y * sin))
            image = _shrink(image, side) if len(image) > side else image
            top, start = (len(image) - height) // 2, (len(image) - width) // 2
            planes.append(image[top : top + height, start : start + width])
    return np.stack(planes, axis=-1)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """A square image, interpolated linearly at the centers of fewer pixels."""
    size = len(image)
    centers = (np.arange(side) + 0.5) * size / side - 0.5
    weights = np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(size)))
    return weights @ image @ weights.T


MAX_VALUES = 2**27
"""Maximum number of values in an array: half a gigabyte, more than the largest dense kernel of VGG16."""

_COMPRESSION = 1  # zlib's level; level 6 takes six times as long for a tenth less text


def finite_float32(array: np.ndarray) -> np.ndarray:
    """A float32 copy of an array, tensor, variable or list; ValueError if it is empty, too large, NaN or infinite."""
    array = np.asarray(keras.ops.convert_to_numpy(array))
    _check_size(array.shape)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        wrong = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"Expected finite float32 values. Received: {wrong} of {array.size} that are NaN or infinite.")
    return array


def pack(array: np.ndarray) -> dict[str, Any]:
    """`array` as a dictionary for JSON, `{"shape": [7, 7, 3, 64], "float32": "eAFsm…"}`; exact for float32.

    The text is base64 of zlib of the little-endian bytes, first the lowest byte of all values, then the second, and so
    on. Neighboring weights share their high bytes, so that this order compresses best: a sorted 3×3×512×512 kernel,
    9.4 MB of float32, becomes 4.3 MB of text, compared with 53 MB as a list of numbers.
    """
    planes = array.astype("<f4").reshape(-1, 1).view(np.uint8).T
    compressed = zlib.compress(planes.tobytes(), _COMPRESSION)
    return {"shape": list(array.shape), "float32": base64.b64encode(compressed).decode("ascii")}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Restore the float32 array; ValueError if `packed` is damaged. Memory is limited by `MAX_VALUES`."""
    try:
        shape = tuple(operator.index(length) for length in packed["shape"])
        _check_size(shape)
        data = _inflate(base64.b64decode(packed["float32"], validate=True), 4 * math.prod(shape))
        return np.frombuffer(data, np.uint8).reshape(4, -1).T.copy().view("<f4").astype(np.float32).reshape(shape)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(
            'Expected a packed array, {"shape": […], "float32": "…"}, in the config of an initializer. '
            f"Received a damaged one ({error}). Save the model again, or build the initializer from its array."
        ) from error


def _check_size(shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    if not 0 < size <= MAX_VALUES or min(shape, default=1) < 0:
        received = f"{size:,} in shape {list(shape)[:8]}"
        raise ValueError(f"Expected an array of 1 to {MAX_VALUES:,} values. Received: {received}.")


def _inflate(compressed: bytes, size: int) -> bytes:
    """The `size` bytes in `compressed`; reads at most one byte more, so that no text can fill the memory."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(compressed, size + 1)
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"the text does not contain exactly the {size:,} bytes of its shape")
    return inflated


INITIALIZERS = {
    "mean_var": MeanVar,
    "positive_mean_var": PositiveMeanVar,
    "sampled": Sampled,
    "shuffled": Shuffled,
    "copied": Copied,
    "gabor": Gabor,
}
"""Name to class."""
