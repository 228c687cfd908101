"""Any functional Keras model as a network of RGB images: every layer at the top, in float32, its maps by name."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from radtransfer.errors import SimilarityError, UnknownNameError, WeightsError
from radtransfer.images.preprocessing import preprocess
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.models.layers import with_dtype
from radtransfer.models.vit import CLASS_TOKEN, patch_grid, tokens_before_patches

_SCALING = ("Rescaling", "Normalization")
_MAP_BYTES = 256 << 20
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Network:
    """A network that takes RGB images 0–255 of one size, its preprocessing inside the model.

    `card` is its backbone, where known; `preprocessing` the mode of its input, None where the file brings its own.
    """

    model: keras.Model
    card: Backbone | None
    preprocessing: str | None


def network_of(model: keras.Model, *, given: str, path: Path, scaled: bool, notify: Callable[[str], None]) -> Network:
    """The network that a `.keras` file holds as `model`, every layer at the top.

    One that scales its input, or is known to (`scaled`, what radtransfer exported), is as it is; another gets the
    preprocessing of its backbone, if that is known, of which `notify` is told.

    Raises:
        WeightsError: It is no functional model of one image.
        ValueError: Layers of different sub-models share a name.
    """
    if not isinstance(model, keras.Model) or len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise WeightsError(f"{path}: expected a functional model of one image. Received: {type(model).__name__}.")
    model = flat_model(model)
    card = known_backbone(model)
    if scaled or any(type(layer).__name__ in _SCALING for layer in model.layers):
        return Network(model, card, None)
    scale = f"input {card.preprocessing}, as of {card.name}" if card else "RGB, 0 to 255"
    notify(f"{given} has no preprocessing inside; it is given {scale}")
    if card is None:
        return Network(model, None, None)
    prepared = flat_model(model, prepare=partial(preprocess, mode=card.preprocessing))
    return Network(prepared, card, card.preprocessing)


def known_backbone(model: keras.Model) -> Backbone | None:
    """The backbone whose stages the model has, by the names of their last layers."""
    names = {layer.name for layer in model.layers}
    cards = [card for card in BACKBONES.values() if {*card.stages.values()} <= names]
    named = [card for card in cards if card.name == model.name]
    return named[0] if named else cards[0] if len(cards) == 1 else None


def check_input(given: str, shape: Sequence[int | None]) -> None:
    """See that a network takes square RGB images; `shape` is its input's (height, width, channels)."""
    height, width, channels = shape
    if channels != 3 or height != width:
        raise WeightsError(
            f"{given}: expected a network of square images of 3 channels, received an input of {height} x {width} "
            f"x {channels}. Collect its activations with radtransfer.similarity.layer_scores and compare the arrays in "
            "Python."
        )


def flat_model(
    model: keras.Model, *, prepare: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None
) -> keras.Model:
    """A functional copy with the same weights and layer names, without sub-models, in float32; itself if it is such.

    Args:
        model: Functional or Sequential, of one input; it is left as it is.
        prepare: Becomes the beginning of the graph; the input is then what `prepare` takes, of the same shape.

    Raises:
        ValueError: Layers of different sub-models share a name.
    """
    if prepare is None and all(
        not isinstance(layer, keras.Model) and layer.compute_dtype == "float32" for layer in model.layers
    ):
        return model
    image = keras.Input(model.inputs[0].shape[1:], dtype="float32", name="image")
    copies: dict[int, keras.Operation] = {}

    def call(operation: keras.Operation, *inputs, **options):
        if isinstance(operation, keras.Sequential):
            x = inputs[0]
            for layer in operation.layers:
                x = call(layer, x)
            return x
        if isinstance(operation, keras.Model):
            return _walked(operation, image, inputs[0], call)
        is_layer = isinstance(operation, keras.Layer)
        if id(operation) not in copies:
            config = operation.get_config()
            copies[id(operation)] = type(operation).from_config(with_dtype(config, "float32") if is_layer else config)
        output = copies[id(operation)](*inputs, **options)
        if is_layer:
            copies[id(operation)].set_weights(operation.get_weights())
            if isinstance(operation, keras.layers.Normalization):
                copies[id(operation)].finalize_state()  # else it computes with what it was built with
        return output

    return keras.Model(image, call(model, prepare(image) if prepare else image), name=model.name)


def _walked(
    model: keras.Model, image: keras.KerasTensor, tensor: keras.KerasTensor, call: Callable
) -> keras.KerasTensor:
    """The output of a functional model for `tensor`, `call` standing for each of its operations.

    Keras walks from an input layer only: `image` goes in, and `tensor` takes its place wherever it arrives.
    """

    def call_in_place(operation: keras.Operation, *inputs, **options):
        placed = keras.tree.map_structure(lambda x: tensor if x is image else x, inputs)
        return call(operation, *placed, **options)

    # Some applications are models of a list of inputs.
    inputs = [image] if isinstance(model.input, list) else image
    walked = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call_in_place
    )
    return walked.outputs[0]


class FeatureMaps:
    """Gives the outputs of some layers of a network as maps, float32 (images, height, width, channels).

    Vectors are maps of one position, and sequences maps of one column. Tokens of a vision transformer are the map of
    its patches; its class token is "cls". The network is run in float32, whatever precision it was trained with, and
    never compiled with XLA; layers of sub-models are found like all others.

    Args:
        model: Functional; its input is a batch of images, (images, height, width, channels).
        layers: Names of layers.
        image_size: In pixels, where the model takes images of any size.

    Raises:
        UnknownNameError: No such layer.
        SimilarityError: A layer whose output is not an array of 2 to 4 dimensions.
    """

    def __init__(self, model: keras.Model, layers: Sequence[str], *, image_size: int | None = None):
        model = flat_model(model)
        known, before = [layer.name for layer in model.layers], tokens_before_patches(model)
        known += [CLASS_TOKEN] * (before is not None)
        wanted, patches = [], {}
        for name in layers:
            if name not in known:
                raise UnknownNameError("layer", name, known)
        for name in layers:
            if name == CLASS_TOKEN:
                wanted.append(model.get_layer("norm").output[:, 0])
                continue
            output = model.get_layer(name).output
            if grid := patch_grid(model, output):
                patches[name] = (before, grid)
            if not isinstance(output, keras.KerasTensor) or not 2 <= len(output.shape) <= 4:
                raise SimilarityError(
                    f"{name}: expected a layer with one output of 2 to 4 dimensions, received "
                    f"{getattr(output, 'shape', type(output).__name__)}. Leave it out of --layers."
                )
            wanted.append(output)
        self.layers = tuple(layers)
        extractor = keras.Model(model.inputs, wanted)
        height, width, channels = (size or image_size for size in model.inputs[0].shape[1:])

        @tf.function(input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32)])
        def maps(images: tf.Tensor) -> list[tf.Tensor]:
            outputs = extractor(images, training=False)
            return [tf.cast(output, tf.float32) for output in (outputs if isinstance(outputs, list) else [outputs])]

        self._function, self._shapes, self._before = maps, {}, {}
        for name, output in zip(layers, maps.get_concrete_function().structured_outputs, strict=True):
            shape = output.shape[1:]
            if None in shape:
                raise SimilarityError(
                    f"{name}: expected a layer of known size, received {tuple(shape)}. Give --image-size."
                )
            *positions, depth = shape
            before, grid = patches.get(name, (0, (*positions, 1, 1)[:2]))
            self._shapes[name], self._before[name] = (*grid, depth), before

    def grid(self, layer: str) -> tuple[int, int]:
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
            name: tf.reshape(output[:, before:] if before else output, (-1, *self._shapes[name]))
            for (name, before), output in zip(self._before.items(), outputs, strict=True)
        }


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
