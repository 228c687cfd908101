"""Augmentation of training images by name: presets, and KerasCV layers.

Every entry of `AUGMENTATIONS` has `build()`, which returns a function of an image, float32 (height, width, 3), RGB,
0–255, and a seed, int32 (2,), to an image of the same shape and range. The result depends on these two only, so epochs
are reproducible. To add a preset, write it into the table. TensorFlow and KerasCV are imported when one is built.

KerasCV uses global stateful generators, which would give other results with other parallelism or after a resume. Here
all of its random draws (generator, factor samplers, gamma draws of AugMix) are stateless, from the seed of the image.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix A: mild random crop, hue and contrast;
        flips for fundus photographs only. No numbers.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), and its code.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts: the same values.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import pi
from typing import TYPE_CHECKING, Any

from radtransfer.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    import tensorflow as tf

Augment = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
"""(image, seed) to image: float32 (height, width, 3), 0–255, and int32 (2,)."""


@dataclass(frozen=True)
class Preset:
    """Ranges of uniform draws per image; all geometry is one affine map, outside of which the border is repeated."""

    description: str
    rotation: float = 0.0  # degrees to either side
    shift: float = 0.0  # fraction of the side, along each axis on its own
    shear: float = 0.0  # degrees to either side
    zoom: float = 0.0  # fraction to either side, along each axis on its own
    crop: float = 0.0  # largest fraction cut off both sides, with a random position of the window
    flip_horizontal: bool = False
    flip_vertical: bool = False
    hue: float = 0.0  # fraction of a full turn to either side
    contrast: float = 0.0  # fraction to either side, around each channel's mean

    @property
    def stays_inside(self) -> bool:
        """Whether the result is a window of the image, perhaps mirrored, which is faster."""
        return not any((self.rotation, self.shift, self.shear, self.zoom))

    def build(self) -> Augment:
        moves = not self.stays_inside or bool(self.crop) or self.flip_horizontal or self.flip_vertical
        if not (moves or self.hue or self.contrast):
            return lambda image, seed: image
        import tensorflow as tf

        def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            # Always all draws, so that they do not depend on which ranges are set.
            draws = tf.random.stateless_uniform([13], seed, -1.0, 1.0)
            if moves:
                move = window if self.stays_inside else affine
                image = move(image, self._source_matrix(draws[:11], tf.shape(image)))
            if self.hue:
                image = tf.image.adjust_hue(image, self.hue * draws[11])
            if self.contrast:
                image = tf.image.adjust_contrast(image, 1.0 + self.contrast * draws[12])
            return tf.clip_by_value(image, 0.0, 255.0)

        return augment

    def _source_matrix(self, draws: "tf.Tensor", shape: "tf.Tensor") -> "tf.Tensor":
        """Matrix (3, 3) from result to source in (x, y, 1) from the centre; factor order of ImageDataGenerator."""
        import tensorflow as tf

        turn, slant, across, down, *draws = tf.unstack(draws)
        stretch_x, stretch_y, cut, cut_x, cut_y, mirror_x, mirror_y = draws
        height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
        angle, slope = self.rotation * pi / 180 * turn, self.shear * pi / 180 * slant
        sine, cosine = tf.sin(angle), tf.cos(angle)
        cut = self.crop * (cut + 1.0) / 2.0
        flip_x = tf.sign(mirror_x) if self.flip_horizontal else 1.0
        flip_y = tf.sign(mirror_y) if self.flip_vertical else 1.0
        return (
            _matrix((cosine, -sine, 0.0), (sine, cosine, 0.0))
            @ _moved(self.shift * across * width, self.shift * down * height)
            @ _matrix((1.0, -tf.sin(slope), 0.0), (0.0, tf.cos(slope), 0.0))
            @ _scaled(1.0 + self.zoom * stretch_x, 1.0 + self.zoom * stretch_y)
            @ _moved(cut / 2 * cut_x * width, cut / 2 * cut_y * height)
            @ _scaled((1.0 - cut) * flip_x, (1.0 - cut) * flip_y)
        )


def affine(image: "tf.Tensor", matrix: "tf.Tensor") -> "tf.Tensor":
    """`image` resampled bilinearly with its border repeated.

    Args:
        image: float32 (height, width, channels).
        matrix: (3, 3), from result to source, in (x, y, 1) pixels from the centre.
    """
    import tensorflow as tf

    size = tf.shape(image)[:2]
    middle = (tf.cast(size, tf.float32) - 1.0) / 2.0
    matrix = _moved(middle[1], middle[0]) @ matrix @ _moved(-middle[1], -middle[0])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.reshape(matrix, [1, 9])[:, :8],
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    return tf.ensure_shape(moved, image.shape)


def window(image: "tf.Tensor", matrix: "tf.Tensor") -> "tf.Tensor":
    """As `affine`, three times as fast, for scaling, mirroring and shifting within the image."""
    import tensorflow as tf

    size = tf.shape(image)[:2]
    ends = tf.stack([-1.0, 1.0])
    rows, columns = (
        0.5 + matrix[i, i] * ends / 2 + matrix[i, 2] / tf.cast(size[1 - i] - 1, tf.float32) for i in (1, 0)
    )
    box = tf.stack([rows[0], columns[0], rows[1], columns[1]])
    # Rounding errors outside the image would give black pixels.
    box = tf.clip_by_value(box, 0.0, 1.0)
    seen = tf.image.crop_and_resize(image[tf.newaxis], box[tf.newaxis], [0], size)[0]
    return tf.ensure_shape(seen, image.shape)


def _matrix(*rows: tuple) -> "tf.Tensor":
    import tensorflow as tf

    return tf.convert_to_tensor([*rows, (0.0, 0.0, 1.0)], tf.float32)


def _moved(across: "tf.Tensor", down: "tf.Tensor") -> "tf.Tensor":
    return _matrix((1.0, 0.0, across), (0.0, 1.0, down))


def _scaled(across: "tf.Tensor", down: "tf.Tensor") -> "tf.Tensor":
    return _matrix((across, 0.0, 0.0), (0.0, down, 0.0))


@dataclass(frozen=True)
class KerasCVLayer:
    """A KerasCV layer that keeps shape and label, with its arguments."""

    description: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Augment:
        """The layer as a function of image and seed; ConfigError if KerasCV was imported with tf_keras."""
        import keras
        import keras_cv
        import tensorflow as tf

        layer_class = _stateless_augmix() if self.name == "AugMix" else getattr(keras_cv.layers, self.name)
        layer, draws = layer_class(**self.arguments), StatelessDraws()
        if not isinstance(layer, keras.layers.Layer):
            raise ConfigError(
                "KerasCV augmentations need Keras 3, but this Python uses tf_keras. "
                "Restart Python without TF_USE_LEGACY_KERAS, or choose another augmentation."
            )
        _make_pure(layer, draws)

        def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            draws.restart(seed)
            varied = tf.clip_by_value(tf.cast(layer(image), tf.float32), 0.0, 255.0)
            return tf.ensure_shape(varied, image.shape)

        return augment


class StatelessDraws:
    """The methods of `tf.random.Generator` that KerasCV uses, as draws from one seed numbered while tracing."""

    def restart(self, seed: "tf.Tensor") -> None:
        self._seed, self._drawn = seed, 0

    @contextmanager
    def inside_loop(self, step: "tf.Tensor") -> Iterator[None]:
        """Make the draws in the body of a graph loop, which is traced once, differ between steps."""
        import tensorflow as tf

        outer = self._seed
        self._seed = tf.random.fold_in(outer, tf.cast(tf.reshape(step, []), tf.int32))
        yield
        self._seed = outer

    def uniform(self, shape, minval=0, maxval=None, dtype="float32") -> "tf.Tensor":
        return self._draw("stateless_uniform", shape, minval, 1 if maxval is None else maxval, dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype="float32") -> "tf.Tensor":
        return self._draw("stateless_normal", shape, mean, stddev, dtype)

    def gamma(self, shape, alpha) -> "tf.Tensor":
        return self._draw("stateless_gamma", shape, alpha)

    def _draw(self, distribution: str, shape, *arguments: Any) -> "tf.Tensor":
        import tensorflow as tf

        self._drawn += 1
        return getattr(tf.random, distribution)(shape, tf.random.fold_in(self._seed, self._drawn), *arguments)


class _StatelessFactor:
    """A KerasCV factor sampler that uses `draws`."""

    def __init__(self, sampler: Any, draws: StatelessDraws) -> None:
        self._sampler, self._draws = sampler, draws

    def __call__(self, shape=(), dtype="float32") -> "tf.Tensor":
        import tensorflow as tf

        sampler, dtype = self._sampler, tf.as_dtype(dtype)
        if hasattr(sampler, "stddev"):
            value = self._draws.normal(shape, sampler.mean, sampler.stddev, dtype)
            return tf.clip_by_value(value, sampler.min_value, sampler.max_value)
        return self._draws.uniform(shape, sampler.lower, sampler.upper, dtype)


def _make_pure(layer: Any, draws: StatelessDraws) -> None:
    """Replace the generators and samplers of `layer` and its inner layers by `draws`."""
    import keras
    import keras_cv

    random_samplers = (keras_cv.core.UniformFactorSampler, keras_cv.core.NormalFactorSampler)
    layer.dtype_policy = "float32"  # whatever the precision of training
    layer.built = True  # else Keras runs it twice at first, which changes the numbers of draws
    for name, value in list(vars(layer).items()):
        if name == "_random_generator":
            setattr(layer, name, draws)
        elif isinstance(value, random_samplers):
            setattr(layer, name, _StatelessFactor(value, draws))
    for value in list(vars(layer).values()):
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, keras.layers.Layer):
                _make_pure(inner, draws)


def _stateless_augmix() -> type:
    import keras_cv
    import tensorflow as tf

    class StatelessAugMix(keras_cv.layers.AugMix):
        def _sample_from_dirichlet(self, alpha):
            sample = self._random_generator.gamma(tf.shape(alpha), alpha)
            return sample / tf.reduce_sum(sample, axis=-1, keepdims=True)

        def _sample_from_beta(self, alpha, beta):
            first = self._random_generator.gamma([], alpha)
            return first / (first + self._random_generator.gamma([], beta))

        def _loop_on_width(self, image, chain_mixing_weights, curr_chain, result):
            with self._random_generator.inside_loop(curr_chain):
                return super()._loop_on_width(image, chain_mixing_weights, curr_chain, result)

        def _loop_on_depth(self, depth_level, image_aug):
            with self._random_generator.inside_loop(depth_level):
                return super()._loop_on_depth(depth_level, image_aug)

    return StatelessAugMix


class _Augmentations(dict[str, Preset | KerasCVLayer]):
    def __missing__(self, name: str) -> None:
        raise UnknownNameError("augmentation", name, self)

    def check(self, name: str) -> None:
        self[name]


_ALL = {"value_range": (0, 255)}

# Numbers not given in the papers are ours.
AUGMENTATIONS = _Augmentations(
    none=Preset("images as they are"),
    light=Preset(
        "rotation 10°, shift 5 %, zoom 10 %, contrast 10 %, no flip, as laterality (heart, liver) can be a finding",
        rotation=10.0,
        shift=0.05,
        zoom=0.1,
        contrast=0.1,
    ),
    fundus=Preset(
        "crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, flips in both directions",
        crop=0.1,
        hue=0.02,
        contrast=0.2,
        flip_horizontal=True,
        flip_vertical=True,
    ),
    chest=Preset(
        "crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, no flip", crop=0.1, hue=0.02, contrast=0.2
    ),
    # Shear: `shear_range=0.1` of Keras' ImageDataGenerator, which both papers used, is in degrees.
    juodelyte=Preset(
        "rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, horizontal flip",
        rotation=10.0,
        shift=0.1,
        shear=0.1,
        zoom=0.1,
        flip_horizontal=True,
    ),
    juodelyte_no_flip=Preset(
        "rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, no flip", rotation=10.0, shift=0.1, shear=0.1, zoom=0.1
    ),
    randaugment=KerasCVLayer(
        "KerasCV RandAugment: three of ten operations, magnitude 0.3",
        "RandAugment",
        _ALL | {"augmentations_per_image": 3, "magnitude": 0.3},
    ),
    augmix=KerasCVLayer("KerasCV AugMix: three mixed chains, severity 0.3", "AugMix", _ALL),
    random_flip=KerasCVLayer("KerasCV RandomFlip, horizontal", "RandomFlip", {"mode": "horizontal"}),
    random_rotation=KerasCVLayer(
        "KerasCV RandomRotation, 10°", "RandomRotation", {"factor": 10 / 360, "fill_mode": "nearest"}
    ),
    random_zoom=KerasCVLayer(
        "KerasCV RandomZoom, 10 %", "RandomZoom", {"height_factor": 0.1, "width_factor": 0.1, "fill_mode": "nearest"}
    ),
    random_shear=KerasCVLayer(
        "KerasCV RandomShear, 0.1", "RandomShear", {"x_factor": 0.1, "y_factor": 0.1, "fill_mode": "nearest"}
    ),
    random_contrast=KerasCVLayer("KerasCV RandomContrast, 20 %", "RandomContrast", _ALL | {"factor": 0.2}),
    random_color_jitter=KerasCVLayer(
        "KerasCV RandomColorJitter: brightness, contrast 20 %, saturation 40–60 of 100, hue 2 %",
        "RandomColorJitter",
        _ALL | {"brightness_factor": 0.2, "contrast_factor": 0.2, "saturation_factor": (0.4, 0.6), "hue_factor": 0.02},
    ),
    random_gaussian_blur=KerasCVLayer(
        "KerasCV RandomGaussianBlur, sigma 0–1 pixels", "RandomGaussianBlur", {"kernel_size": 5, "factor": 1.0}
    ),
    random_cutout=KerasCVLayer(
        "KerasCV RandomCutout, up to 20 % of each side", "RandomCutout", {"height_factor": 0.2, "width_factor": 0.2}
    ),
)
"""In the order shown to users."""
