"""Activations of any functional Keras model: every layer that is asked for, in one forward pass, in float32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from radtransfer.comparisons.flat_model import flat_model, is_flat
from radtransfer.comparisons.sampling import Grid, Positions, image_order, places, sample_channels, spread_positions
from radtransfer.errors import SimilarityError, UnknownNameError

_MAP_BYTES = 256 << 20
_LARGEST_BATCH = 32


@dataclass(frozen=True, eq=False)
class Reading:
    """What is read of one layer: its name, and which of its channels, int64 (dims,)."""

    layer: str
    channels: np.ndarray


class FeatureMaps:
    """Gives the outputs of some layers of a network as maps, float32 (images, height, width, channels).

    Vectors are maps of one position, and sequences maps of one column. The network is run in float32, whatever
    precision it was trained with, and never compiled with XLA; layers of sub-models are found like all others.

    Args:
        model: Functional; its input is a batch of images, (images, height, width, channels).
        layers: Names of layers.
        image_size: In pixels, where the model takes images of any size.

    Raises:
        UnknownNameError: No such layer.
        SimilarityError: A layer whose output is not an array of 2 to 4 dimensions.
    """

    def __init__(self, model: keras.Model, layers: Sequence[str], *, image_size: int | None = None):
        model = model if is_flat(model) else flat_model(model)
        known = [layer.name for layer in model.layers]
        for name in layers:
            if name not in known:
                raise UnknownNameError("layer", name, known)
        self.layers = tuple(layers)
        extractor = keras.Model(model.inputs, [_output(model.get_layer(name)) for name in layers])
        height, width, channels = (size or image_size for size in model.inputs[0].shape[1:])
        self._function = tf.function(
            lambda images: _listed(extractor(images, training=False)),
            input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32)],
        )
        outputs = self._function.get_concrete_function().structured_outputs
        self._shapes = {name: _map_shape(name, output) for name, output in zip(layers, outputs, strict=True)}

    def grid(self, layer: str) -> Grid:
        """Height and width of a layer's map."""
        return self._shapes[layer][:2]

    def width(self, layer: str) -> int:
        """How many channels a layer has."""
        return self._shapes[layer][2]

    @property
    def batch_size(self) -> int:
        """So many images that their maps fit into a quarter of a gigabyte; results do not depend on it."""
        size = 4 * sum(int(np.prod(shape)) for shape in self._shapes.values())
        return int(np.clip(_MAP_BYTES // size, 1, _LARGEST_BATCH))

    def of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps of a batch of images, by layer."""
        with _exact_float32():
            outputs = self._function(images)
        return {
            name: tf.reshape(output, (-1, *self._shapes[name]))
            for name, output in zip(self.layers, outputs, strict=True)
        }


def read_rows(
    maps: tf.Tensor, cells: np.ndarray, images: np.ndarray, *, grid: Grid, channels: np.ndarray
) -> np.ndarray:
    """Some positions and channels of a batch of maps, float32 (rows, channels); gathered where the maps are.

    Args:
        maps: float32 (images, height, width, channels).
        cells: Of `grid`, int (rows,).
        images: Of the batch, int (rows,).
        grid: Not finer than the maps.
        channels: int (channels,).
    """
    _, height, width, depth = maps.shape
    y, x = places(cells, grid, (height, width))
    rows = tf.gather(tf.reshape(maps, (-1, depth)), (images * height + y) * width + x)
    return tf.gather(rows, channels, axis=1).numpy()


def collect_rows(
    model: keras.Model,
    images: np.ndarray,
    layers: Sequence[str],
    *,
    rows: int = 10_000,
    dims: int = 64,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of several layers of one network, spread over images in memory, float32 (rows, channels) by layer.

    Two networks give rows that can be compared layer by layer if images, layers' shapes and seed are the same.

    Args:
        model: As for `FeatureMaps`.
        images: As the model takes them, float (images, height, width, channels).
        layers: Names of layers.
        rows: How many, or as many as there are positions.
        dims: How many channels, or as many as there are.
        seed: Of positions and channels.
    """
    maps = FeatureMaps(model, layers, image_size=images.shape[1])
    order, _ = image_order([str(image) for image in range(len(images))], groups=1, seed=seed)
    drawn = {name: _spread(maps.grid(name), len(images), rows, seed) for name in layers}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    for first in range(0, len(images), maps.batch_size):
        batch = order[first : first + maps.batch_size]
        of_layer = maps.of(tf.constant(images[batch], tf.float32))
        for name, positions in drawn.items():
            cells, owners = positions.between(first, first + len(batch))
            channels = sample_channels(maps.width(name), dims, seed=seed)
            parts[name].append(read_rows(of_layer[name], cells, owners, grid=positions.grid, channels=channels))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


@contextmanager
def _exact_float32() -> Iterator[None]:
    """No TensorFloat-32, with which a GPU rounds the factors of a product to three digits."""
    switch = tf.config.experimental
    before = switch.tensor_float_32_execution_enabled()
    switch.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        switch.enable_tensor_float_32_execution(before)


def _spread(grid: Grid, images: int, rows: int, seed: int) -> Positions:
    return spread_positions(grid, images=images, rows=rows, rng=np.random.default_rng(seed))


def _output(layer: keras.Layer) -> keras.KerasTensor:
    output = layer.output
    if not isinstance(output, keras.KerasTensor) or not 2 <= len(output.shape) <= 4:
        raise SimilarityError(
            f"{layer.name}: expected a layer with one output of 2 to 4 dimensions, received "
            f"{getattr(output, 'shape', type(output).__name__)}. Leave it out of --layers."
        )
    return output


def _listed(outputs: tf.Tensor | list[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.cast(output, tf.float32) for output in (outputs if isinstance(outputs, list) else [outputs])]


def _map_shape(name: str, output: tf.Tensor) -> tuple[int, int, int]:
    """Height, width and channels."""
    shape = output.shape[1:]
    if None in shape:
        raise SimilarityError(f"{name}: expected a layer of known size, received {tuple(shape)}. Give --image-size.")
    *positions, channels = shape
    height, width = (*positions, 1, 1)[:2]
    return height, width, channels
