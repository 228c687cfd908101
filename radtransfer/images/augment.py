"""The values of the augmentation presets, with their sources. Where a paper gives no number, it is ours.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix A: mild random crop, hue and contrast;
        flips for fundus photographs only. No numbers.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), and its code.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts: the same values.

What an augmentation preset is: ranges of one affine map and of two colour changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import pi

import tensorflow as tf

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From an image, float32 (height, width, 3), 0–255, and a seed, int32 (2,), to such an image."""

_DRAWS = 13
"""Random numbers per image. They are always drawn together, so that one range does not move another."""


@dataclass(frozen=True)
class Preset:
    """Ranges that each image's variation is drawn from, uniformly.

    All geometry is one affine map, so that an image is resampled once; what lies outside the image
    repeats its border.

    Attributes:
        description: One line for the user.
        rotation: Degrees to either side.
        shift: Fraction of the side, along each axis on its own.
        shear: Degrees to either side.
        zoom: Fraction to either side, along each axis on its own.
        crop: Largest fraction of both sides that is cut away, around a window placed at random.
        flip_horizontal: Mirror left and right in half of the cases.
        flip_vertical: Mirror top and bottom in half of the cases.
        hue: Fraction of a full turn to either side.
        contrast: Fraction to either side, around each channel's mean.
    """

    description: str
    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    crop: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    hue: float = 0.0
    contrast: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether pixels change place."""
        ranges = (self.rotation, self.shift, self.shear, self.zoom, self.crop)
        return any(ranges) or self.flip_horizontal or self.flip_vertical

    @property
    def stays_inside(self) -> bool:
        """Whether every image is a window of itself, mirrored perhaps: the quick way to move pixels."""
        return not any((self.rotation, self.shift, self.shear, self.zoom))

    def build(self) -> Augment:
        """The preset as a function of one image and its seed."""
        return self._augment if self.moves or self.hue or self.contrast else lambda image, seed: image

    def _augment(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws = tf.random.stateless_uniform([_DRAWS], seed, -1.0, 1.0)
        if self.moves:
            move = window if self.stays_inside else affine
            image = move(image, self._source_matrix(draws[:11], tf.shape(image)))
        if self.hue:
            image = tf.image.adjust_hue(image, self.hue * draws[11])
        if self.contrast:
            image = tf.image.adjust_contrast(image, 1.0 + self.contrast * draws[12])
        return tf.clip_by_value(image, 0.0, 255.0)

    def _source_matrix(self, draws: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """(3, 3): where in the source each pixel of the result comes from, in (x, y, 1), from the centre.

        The order of the factors is that of Keras' ImageDataGenerator; flip and crop come first.
        """
        turn, slant, across, down, *draws = tf.unstack(draws)
        stretch_x, stretch_y, cut, cut_x, cut_y, mirror_x, mirror_y = draws
        height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
        cut = self.crop * (cut + 1.0) / 2.0
        flip_x = tf.sign(mirror_x) if self.flip_horizontal else 1.0
        flip_y = tf.sign(mirror_y) if self.flip_vertical else 1.0
        return (
            _rotated(self.rotation * pi / 180 * turn)
            @ _moved(self.shift * across * width, self.shift * down * height)
            @ _sheared(self.shear * pi / 180 * slant)
            @ _scaled(1.0 + self.zoom * stretch_x, 1.0 + self.zoom * stretch_y)
            @ _moved(cut / 2 * cut_x * width, cut / 2 * cut_y * height)
            @ _scaled((1.0 - cut) * flip_x, (1.0 - cut) * flip_y)
        )


def affine(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """`image` resampled once, bilinearly, its border repeated outside.

    Args:
        image: float32 (height, width, channels).
        matrix: (3, 3), from result to source, in (x, y, 1) pixels from the centre of the image.
    """
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


def window(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """What `affine` gives, three times as fast, for a matrix that scales, mirrors and moves within the image."""
    size = tf.shape(image)[:2]
    ends = tf.stack([-1.0, 1.0])
    rows, columns = (
        0.5 + matrix[i, i] * ends / 2 + matrix[i, 2] / tf.cast(size[1 - i] - 1, tf.float32) for i in (1, 0)
    )
    box = tf.stack([rows[0], columns[0], rows[1], columns[1]])
    # Rounding may put an end a trace outside of the image, where there is only black.
    box = tf.clip_by_value(box, 0.0, 1.0)
    seen = tf.image.crop_and_resize(image[tf.newaxis], box[tf.newaxis], [0], size)[0]
    return tf.ensure_shape(seen, image.shape)


def _matrix(*rows: tuple) -> tf.Tensor:
    return tf.convert_to_tensor([*rows, (0.0, 0.0, 1.0)], tf.float32)


def _rotated(angle: tf.Tensor) -> tf.Tensor:
    sine, cosine = tf.sin(angle), tf.cos(angle)
    return _matrix((cosine, -sine, 0.0), (sine, cosine, 0.0))


def _moved(across: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    return _matrix((1.0, 0.0, across), (0.0, 1.0, down))


def _sheared(angle: tf.Tensor) -> tf.Tensor:
    return _matrix((1.0, -tf.sin(angle), 0.0), (0.0, tf.cos(angle), 0.0))


def _scaled(across: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    return _matrix((across, 0.0, 0.0), (0.0, down, 0.0))


NONE = Preset("images as they are")

LIGHT = Preset(
    "rotation 10°, shift 5 %, zoom 10 %, contrast 10 %, no flip: left and right can be the finding "
    "(heart, liver, laterality), so a default must not swap them",
    rotation=10.0,  # all ours
    shift=0.05,
    zoom=0.1,
    contrast=0.1,
)

FUNDUS = Preset(
    "crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, flips in both directions",
    crop=0.1,  # ours
    hue=0.02,  # ours
    contrast=0.2,  # ours
    flip_horizontal=True,
    flip_vertical=True,
)

CHEST = replace(
    FUNDUS,
    description="crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, no flip",
    flip_horizontal=False,
    flip_vertical=False,
)

# Shear: `shear_range=0.1` of Keras' ImageDataGenerator, which both papers used, is in degrees.
JUODELYTE = Preset(
    "rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, horizontal flip",
    rotation=10.0,
    shift=0.1,
    shear=0.1,
    zoom=0.1,
    flip_horizontal=True,
)

JUODELYTE_NO_FLIP = replace(
    JUODELYTE, description="rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, no flip", flip_horizontal=False
)
