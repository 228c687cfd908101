"""KerasCV layers as augmentations that depend on the image and its seed alone.

KerasCV draws from global, stateful generators, so that the same image would be varied differently with
other parallelism or after a resume. Here every source of chance in a layer (its generator, its factor
samplers, and AugMix' own gamma draws) is replaced by stateless draws from the image's seed.
KerasCV is imported only when one of these is built.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from radtransfer.errors import ConfigError
from radtransfer.images.augment import Augment


@dataclass(frozen=True)
class KerasCVLayer:
    """A KerasCV layer that keeps shape and label, with its values (ours, unless KerasCV's defaults).

    Attributes:
        description: One line for the user.
        layer: Builds it; imports KerasCV.
    """

    description: str
    layer: Callable[[], Any]

    def build(self) -> Augment:
        """The layer as a function of one image and its seed.

        Raises:
            ConfigError: KerasCV was imported on tf_keras.
        """
        import keras

        layer, draws = self.layer(), StatelessDraws()
        if not isinstance(layer, keras.layers.Layer):
            raise ConfigError(
                "KerasCV's augmentations need Keras 3, and tf.keras is tf_keras in this Python. "
                "Start Python again without TF_USE_LEGACY_KERAS, or choose another augmentation."
            )
        _make_pure(layer, draws)

        def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            draws.restart(seed)
            varied = tf.clip_by_value(tf.cast(layer(image), tf.float32), 0.0, 255.0)
            return tf.ensure_shape(varied, image.shape)

        return augment


class StatelessDraws:
    """The methods of `tf.random.Generator` that KerasCV calls, numbered draws from one seed.

    The number is counted while the graph is traced, so that each place that draws has its own.
    """

    def __init__(self):
        self._seed, self._drawn = tf.zeros([2], tf.int32), 0

    def restart(self, seed: tf.Tensor) -> None:
        """Draw from `seed`, int32 (2,), from the first number on."""
        self._seed, self._drawn = seed, 0

    @contextmanager
    def inside_loop(self, step: tf.Tensor) -> Iterator[None]:
        """Make the draws of a graph loop's body differ from step to step; a body is traced once."""
        outer = self._seed
        self._seed = tf.random.fold_in(outer, tf.cast(tf.reshape(step, []), tf.int32))
        yield
        self._seed = outer

    def _next_seed(self) -> tf.Tensor:
        self._drawn += 1
        return tf.random.fold_in(self._seed, self._drawn)

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32) -> tf.Tensor:
        maxval = 1 if maxval is None else maxval
        return tf.random.stateless_uniform(shape, self._next_seed(), minval, maxval, dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=tf.float32) -> tf.Tensor:
        return tf.random.stateless_normal(shape, self._next_seed(), mean, stddev, dtype)

    def gamma(self, shape, alpha) -> tf.Tensor:
        return tf.random.stateless_gamma(shape, self._next_seed(), alpha)


@dataclass(frozen=True)
class _StatelessFactor:
    """A KerasCV factor sampler whose numbers come from `draws`."""

    sampler: Any
    draws: StatelessDraws

    def __call__(self, shape=(), dtype="float32") -> tf.Tensor:
        sampler, dtype = self.sampler, tf.as_dtype(dtype)
        if hasattr(sampler, "stddev"):
            value = self.draws.normal(shape, sampler.mean, sampler.stddev, dtype)
            return tf.clip_by_value(value, sampler.min_value, sampler.max_value)
        return self.draws.uniform(shape, sampler.lower, sampler.upper, dtype)


def _make_pure(layer: Any, draws: StatelessDraws) -> None:
    """Put `draws` in place of the generators and samplers of `layer` and of every layer inside it.

    It computes in float32 from then on, whatever precision the network is trained in.
    """
    import keras_cv

    random_samplers = (keras_cv.core.UniformFactorSampler, keras_cv.core.NormalFactorSampler)
    layer.dtype_policy = "float32"
    layer.built = True  # else Keras runs it twice the first time, and the draws are numbered otherwise
    for name, value in list(vars(layer).items()):
        if name == "_random_generator":
            setattr(layer, name, draws)
        elif isinstance(value, random_samplers):
            setattr(layer, name, _StatelessFactor(value, draws))
    for inner in _inner_layers(layer):
        _make_pure(inner, draws)


def _inner_layers(layer: Any) -> Iterator[Any]:
    import keras

    for value in list(vars(layer).values()):
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, keras.layers.Layer):
                yield item


def _keras_cv_layer(class_name: str, **arguments: Any) -> Callable[[], Any]:
    def build() -> Any:
        import keras_cv

        return getattr(keras_cv.layers, class_name)(**arguments)

    return build


def _augmix() -> Any:
    import keras_cv

    class StatelessAugMix(keras_cv.layers.AugMix):
        """AugMix with its gamma draws and the draws inside its graph loops made stateless."""

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

    return StatelessAugMix(value_range=(0, 255))


RANDAUGMENT = KerasCVLayer(
    "KerasCV RandAugment: three of ten operations, magnitude 0.3",
    _keras_cv_layer("RandAugment", value_range=(0, 255), augmentations_per_image=3, magnitude=0.3),
)
AUGMIX = KerasCVLayer("KerasCV AugMix: three mixed chains, severity 0.3", _augmix)
RANDOM_FLIP = KerasCVLayer("KerasCV RandomFlip, horizontal", _keras_cv_layer("RandomFlip", mode="horizontal"))
RANDOM_ROTATION = KerasCVLayer(
    "KerasCV RandomRotation, 10°", _keras_cv_layer("RandomRotation", factor=10 / 360, fill_mode="nearest")
)
RANDOM_ZOOM = KerasCVLayer(
    "KerasCV RandomZoom, 10 %",
    _keras_cv_layer("RandomZoom", height_factor=0.1, width_factor=0.1, fill_mode="nearest"),
)
RANDOM_SHEAR = KerasCVLayer(
    "KerasCV RandomShear, 0.1",
    _keras_cv_layer("RandomShear", x_factor=0.1, y_factor=0.1, fill_mode="nearest"),
)
RANDOM_CONTRAST = KerasCVLayer(
    "KerasCV RandomContrast, 20 %", _keras_cv_layer("RandomContrast", value_range=(0, 255), factor=0.2)
)
RANDOM_COLOR_JITTER = KerasCVLayer(
    "KerasCV RandomColorJitter: brightness, contrast 20 %, saturation 40–60 of 100, hue 2 %",
    _keras_cv_layer(
        "RandomColorJitter",
        value_range=(0, 255),
        brightness_factor=0.2,
        contrast_factor=0.2,
        saturation_factor=(0.4, 0.6),
        hue_factor=0.02,
    ),
)
RANDOM_GAUSSIAN_BLUR = KerasCVLayer(
    "KerasCV RandomGaussianBlur, sigma 0–1 pixels",
    _keras_cv_layer("RandomGaussianBlur", kernel_size=5, factor=1.0),
)
RANDOM_CUTOUT = KerasCVLayer(
    "KerasCV RandomCutout, up to 20 % of each side",
    _keras_cv_layer("RandomCutout", height_factor=0.2, width_factor=0.2),
)
