"""Where weights can start from, as registered Keras initializers that are usable on any layer.

    from radtransfer.initializers import MeanVar
    keras.layers.Conv2D(64, 7, kernel_initializer=MeanVar.like(pretrained_kernel, seed=1))

Each is a pure function of its arguments: the same seed gives the same weights, so two layers with one seed start alike.
Give every layer its own, as `radtransfer.process.derive_seed(seed, layer.name)` does. To add one, write a registered
`NumpyInitializer` here and name it in `INITIALIZERS`. Importing this module registers all of them, which is what a
saved model that carries one needs to load.
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
    """`seed` as a plain Python integer, which a config can hold; ValueError if it is negative or no integer."""
    if not isinstance(seed, bool) and hasattr(seed, "__index__") and operator.index(seed) >= 0:
        return operator.index(seed)
    raise ValueError(f"Expected a non-negative integer as seed. Received: {seed!r}. Give every layer its own.")


def random_stream(seed: int) -> np.random.Generator:
    """A new generator at the start of the stream of `seed`.

    NumPy on the host rather than operations of the backend: TensorFlow's may differ between devices, JAX's and
    PyTorch's differ from TensorFlow's, and not all have a permutation. PCG64 is named because `default_rng` may
    get another generator one day. NumPy promises that of PCG64's own bits, not of what it makes of them; that is
    unchanged since 1.17, and a test with stored draws tells when it is not.
    """
    return np.random.Generator(np.random.PCG64(seed))


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


class _ArrayInitializer(NumpyInitializer):
    """An initializer with an array of finite float32, which its config holds packed (see `pack`)."""

    array: np.ndarray

    def get_config(self) -> dict[str, Any]:
        return {"array": pack(self.array)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The initializer with this config.

        Raises:
            ValueError: The packed array is damaged.
        """
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

    Differs from the paper, which says "resampling … according to the ImageNet means and variances" and not how a
    variance stays positive. The moving variances of pretrained networks spread as far as their mean, so a normal
    cut or folded at zero would have neither the mean nor the variance that it was given; the log-normal has both.

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
        return {**super().get_config(), "seed": self.seed}


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


@keras.saving.register_keras_serializable(package="radtransfer")
class Copied(_ArrayInitializer):
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


POLICIES = ("identity", "mean_var", "transfer")
"""Names of the three policies, as in YAML."""

_IDENTITY = {
    "gamma": keras.initializers.Ones,
    "beta": keras.initializers.Zeros,
    "moving_mean": keras.initializers.Zeros,
    "moving_variance": keras.initializers.Ones,
}


def batch_norm_initializers(
    policy: str, vectors: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, keras.initializers.Initializer]:
    """The arguments that make a batch-norm layer start as `policy` says.

        keras.layers.BatchNormalization(**batch_norm_initializers("mean_var", pretrained, seed=1))

    Args:
        policy: `identity`: gamma and moving variance 1, beta and moving mean 0. `mean_var`: each vector redrawn
            with the mean and variance of the pretrained one; a variance stays positive. `transfer`: each copied.
        vectors: The pretrained `gamma`, `beta`, `moving_mean` and `moving_variance`; some may be left out.
        seed: Of the layer; each vector has its own stream.

    Returns:
        `gamma_initializer` and so on, for the vectors given.

    Raises:
        UnknownNameError: No such policy or vector.
        ValueError: A vector is empty or not finite, or the variances are not above 0.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.1 and Figure 17.
    """
    return {
        f"{name}_initializer": _vector_initializer(policy, name, vector, seed=derive_seed(seed, name))
        for name, vector in vectors.items()
    }


def _vector_initializer(policy: str, name: str, vector: np.ndarray, *, seed: int) -> keras.initializers.Initializer:
    if name not in _IDENTITY:
        raise UnknownNameError("batch-norm vector", name, _IDENTITY)
    if policy == "identity":
        return _IDENTITY[name]()
    if policy == "mean_var":
        return (PositiveMeanVar if name == "moving_variance" else MeanVar).like(vector, seed)
    if policy == "transfer":
        return Copied(vector)
    raise UnknownNameError("batch-norm policy", policy, POLICIES)


FREQUENCIES, SIGMA, REACH, RESIZED, CROPPED = (0.08, 0.16, 0.25, 0.32), 2.0, 3.0, 10, 7
"""Of Gabor pictures: cycles per pixel before a picture is resized; standard deviation of the envelope in these pixels;
how many of these it extends from its centre; to which side in pixels it is resized, and its centre cut out."""


@keras.saving.register_keras_serializable(package="radtransfer")
class Gabor(NumpyInitializer):
    """Grey Gabor filters of every orientation, the same on all input channels.

    For a 7×7 kernel with 64 filters this is the paper's construction: 16 angles k/16·π at each of the frequencies
    0.08, 0.16, 0.25 and 0.32, σ = 2, ordered by frequency, then angle. Each picture

        exp(−(x² + y²) / 2σ²) · cos(2π · frequency · (x cos θ + y sin θ)),   |x|, |y| ≤ ⌈3σ · max(|cos θ|, |sin θ|)⌉

    is 11×11 or 13×13, is resized to 10×10, and its centre, from pixel (10 − 7) // 2 on, is the filter. One factor
    for all filters then sets the standard deviation of the whole kernel.

    * Another number of filters takes more or fewer angles, evenly over half a turn. Where it is no multiple
      of four, the lower frequencies take one angle more.
    * A smaller kernel is a smaller cut from the same 10×10 picture: its frequencies per pixel stay as they
      are, which resizing would push beyond what pixels can show.
    * A larger kernel, with a longer side of k pixels, magnifies everything by k/7: σ and the 10×10 grow, the
      frequencies fall, so that the filter shows the same picture in more pixels. A picture that is no larger
      than the grown 10×10 is not resized, as in the paper.

    Differs from the paper's listing, in which the crop stands in the branch that does not resize, so that it
    would return uncropped 10×10 pictures; the text and Figure 21 have 7×7 filters. Differs from
    scikit-image's `resize` by leaving out the smoothing before it, which in a 7×7 kernel would mix in the
    neighbouring pixel with a weight of 2·10⁻¹⁰, and from `gabor_kernel` by its constant factor 1/(2πσ²).

    Args:
        scale: Standard deviation of the kernel over all its values, above 0; that of the pretrained first
            convolution makes the two comparable. None for that of He-normal, √(2 / fan-in).

    Raises:
        ValueError: `scale` is out of range; when called, the tensor is no kernel of a 2-D convolution.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.3, Figures 8 and 21.
        He et al. 2015, Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2: the default scale.
    """

    def __init__(self, scale: float | None = None):
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"Expected a standard deviation above 0 as scale, or None. Received: {scale}. "
                "Give that of the pretrained kernel."
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
    side = round(RESIZED * magnification)
    each, left = divmod(filters, len(FREQUENCIES))
    planes = []
    for position, frequency in enumerate(FREQUENCIES):
        angles = each + (position < left)
        for step in range(angles):
            picture = _gabor(frequency / magnification, step / angles * math.pi, SIGMA * magnification)
            picture = _resized(picture, side) if len(picture) > side else picture
            top, start = (len(picture) - height) // 2, (len(picture) - width) // 2
            planes.append(picture[top : top + height, start : start + width])
    return np.stack(planes, axis=-1)


def _gabor(frequency: float, angle: float, sigma: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    radius = math.ceil(REACH * sigma * max(abs(cos), abs(sin)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return envelope * np.cos(2 * math.pi * frequency * (x * cos + y * sin))


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture made smaller, each new pixel interpolated linearly at its centre."""
    size = len(picture)
    centres = (np.arange(side) + 0.5) * size / side - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)))
    return weights @ picture @ weights.T


LARGEST = 2**27
"""Values, at most: half a gigabyte, and more than the largest dense kernel of VGG16."""

_PREFER_SPEED = 1  # zlib's level: six takes six times as long for a tenth less text


def finite_float32(array: np.ndarray) -> np.ndarray:
    """A float32 copy of an array, tensor, variable or list; ValueError if it is empty, too large or not finite."""
    array = np.asarray(keras.ops.convert_to_numpy(array))
    _check_size(array.shape)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        wrong = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"Expected finite float32 values. Received {wrong} of {array.size} that are not.")
    return array


def pack(array: np.ndarray) -> dict[str, Any]:
    """`array` as a dictionary that JSON can hold, `{"shape": [7, 7, 3, 64], "float32": "eAFsm…"}`; exact for float32.

    The text is base64 of zlib of the four bytes of every little-endian float32, first all lowest bytes, then all second
    ones, and so on. Neighbouring weights share their high bytes, so these planes compress best: a sorted 3×3×512×512
    kernel, 9.4 MB of float32, becomes 4.3 MB of text, and 53 MB as a list of numbers.
    """
    planes = array.astype("<f4").reshape(-1, 1).view(np.uint8).T
    compressed = zlib.compress(planes.tobytes(), _PREFER_SPEED)
    return {"shape": list(array.shape), "float32": base64.b64encode(compressed).decode("ascii")}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """The float32 array that `pack` was given.

    Memory is bounded by `LARGEST` and the length of the text, whatever `packed` says.

    Raises:
        ValueError: `packed` is damaged, or holds another number of values than its shape says.
    """
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
    if not 0 < size <= LARGEST or min(shape, default=1) < 0:
        received = f"{size:,} in shape {list(shape)[:8]}"
        raise ValueError(f"Expected an array of 1 to {LARGEST:,} values. Received: {received}.")


def _inflate(compressed: bytes, size: int) -> bytes:
    """The `size` bytes in `compressed`; stops one byte after them, so that no text can fill the memory."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(compressed, size + 1)
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"the text does not hold the {size:,} bytes of its shape, and no more")
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
