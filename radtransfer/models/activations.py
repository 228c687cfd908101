"""Any functional Keras model as a flat float32 network of RGB images, and the outputs of its layers."""

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
    """A network that takes RGB images 0–255 and preprocesses them inside the model.

    `spec` is its backbone, if known; `preprocessing` is the mode, None if the file has its own preprocessing.
    """

    model: keras.Model
    spec: Backbone | None
    preprocessing: str | None


def network_of(model: keras.Model, *, given: str, path: Path, scaled: bool, notify: Callable[[str], None]) -> Network:
    """The flat network of `model`, which was read from a `.keras` file.

    A model that scales its input, or is known to (`scaled`, as exported by radtransfer), is not changed; another gets
    the preprocessing of its backbone, if known, with a note to `notify`. Raises WeightsError unless it is a functional
    model with one image as input, ValueError if layers share a name.
    """
    if not isinstance(model, keras.Model) or len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise WeightsError(
            f"{path}: expected a functional model with one image as input. Received: {type(model).__name__}."
        )
    model = flat_model(model)
    spec = known_backbone(model)
    if scaled or any(type(layer).__name__ in _SCALING for layer in model.layers):
        return Network(model, spec, None)
    scale = f"preprocessing {spec.preprocessing}, that of {spec.name}" if spec else "RGB images, 0 to 255"
    notify(f"{given} contains no preprocessing; it gets {scale}")
    if spec is None:
        return Network(model, None, None)
    prepared = flat_model(model, prepare=partial(preprocess, mode=spec.preprocessing))
    return Network(prepared, spec, spec.preprocessing)


def known_backbone(model: keras.Model) -> Backbone | None:
    """The backbone whose stages the model has, recognized by the names of their last layers."""
    names = {layer.name for layer in model.layers}
    specs = [spec for spec in BACKBONES.values() if {*spec.stages.values()} <= names]
    named = [spec for spec in specs if spec.name == model.name]
    return named[0] if named else specs[0] if len(specs) == 1 else None


def check_input(given: str, shape: Sequence[int | None]) -> None:
    """Raise WeightsError unless a network takes square RGB images; `shape` is (height, width, channels)."""
    height, width, channels = shape
    if channels != 3 or height != width:
        raise WeightsError(
            f"{given}: expected a network for square images of 3 channels. Received: an input of {height} x {width} "
            f"x {channels}. Collect its activations with radtransfer.similarity.layer_scores and compare the arrays in "
            "Python."
        )


def flat_model(
    model: keras.Model, *, prepare: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None
) -> keras.Model:
    """A flat functional copy in float32 with the same weights and layer names; `model` itself if it is flat.

    `model` is functional or Sequential with one input; `prepare` is applied to the input before the first layer. Raises
    ValueError if layers of different sub-models share a name.
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
            return _apply(operation, image, inputs[0], call)
        is_layer = isinstance(operation, keras.Layer)
        if id(operation) not in copies:
            config = operation.get_config()
            copies[id(operation)] = type(operation).from_config(with_dtype(config, "float32") if is_layer else config)
        output = copies[id(operation)](*inputs, **options)
        if is_layer:
            copies[id(operation)].set_weights(operation.get_weights())
            if isinstance(operation, keras.layers.Normalization):
                copies[id(operation)].finalize_state()  # otherwise it uses its initial state
        return output

    return keras.Model(image, call(model, prepare(image) if prepare else image), name=model.name)


def _apply(
    model: keras.Model, image: keras.KerasTensor, tensor: keras.KerasTensor, call: Callable
) -> keras.KerasTensor:
    """The output of a functional model for `tensor`, computed with `call` for each operation.

    Keras traverses a graph from an input layer only, so `image` is passed and replaced by `tensor` at each call.
    """

    def call_replaced(operation: keras.Operation, *inputs, **options):
        replaced = keras.tree.map_structure(lambda x: tensor if x is image else x, inputs)
        return call(operation, *replaced, **options)

    # Some applications are models with a list of inputs.
    inputs = [image] if isinstance(model.input, list) else image
    clone = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call_replaced
    )
    return clone.outputs[0]


class FeatureMaps:
    """Computes the outputs of layers as feature maps, float32 (images, height, width, channels).

    Vectors become maps of one position, sequences maps of one column. Tokens of a vision transformer become the map of
    its patches; "cls" is its class token. The network, a functional model, runs in float32, whatever precision it was
    trained with, and without XLA; `layers` may be in sub-models. Raises UnknownNameError for an unknown layer,
    SimilarityError unless its output has 2 to 4 dimensions.
    """

    def __init__(self, model: keras.Model, layers: Sequence[str], *, image_size: int | None = None):
        model = flat_model(model)
        known, before = [layer.name for layer in model.layers], tokens_before_patches(model)
        known += [CLASS_TOKEN] * (before is not None)
        wanted, tokens = [], {}
        for name in layers:
            if name not in known:
                raise UnknownNameError("layer", name, known)
        for name in layers:
            output = model.get_layer("norm" if name == CLASS_TOKEN else name).output
            if name == CLASS_TOKEN:
                tokens[name] = (slice(0, 1), (1, 1))
            elif grid := patch_grid(model, output):
                tokens[name] = (slice(before, None), grid)
            if not isinstance(output, keras.KerasTensor) or not 2 <= len(output.shape) <= 4:
                raise SimilarityError(
                    f"{name}: expected a layer with one output of 2 to 4 dimensions. Received: "
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

        self._function, self._shapes, self._tokens = maps, {}, {}
        for name, output in zip(layers, maps.get_concrete_function().structured_outputs, strict=True):
            shape = output.shape[1:]
            if None in shape:
                raise SimilarityError(
                    f"{name}: expected an output of known size. Received: {tuple(shape)}. Give --image-size."
                )
            *positions, depth = shape
            self._tokens[name], grid = tokens.get(name, (slice(None), (*positions, 1, 1)[:2]))
            self._shapes[name] = (*grid, depth)

    def grid(self, layer: str) -> tuple[int, int]:
        """Height and width of a layer's map."""
        return self._shapes[layer][:2]

    def width(self, layer: str) -> int:
        """Number of channels of a layer."""
        return self._shapes[layer][2]

    @property
    def batch_size(self) -> int:
        """The number of images whose maps fit into a quarter of a gigabyte; results do not depend on it."""
        size = 4 * sum(int(np.prod(shape)) for shape in self._shapes.values())
        return int(np.clip(_MAP_BYTES // size, 1, _LARGEST_BATCH))

    def of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps of a batch of images, by layer."""
        with _exact_float32():
            outputs = self._function(images)
        return {
            name: tf.reshape(output[:, tokens], (-1, *self._shapes[name]))
            for (name, tokens), output in zip(self._tokens.items(), outputs, strict=True)
        }


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Disable TensorFloat-32, which rounds the factors of products to three digits on a GPU."""
    switch = tf.config.experimental
    before = switch.tensor_float_32_execution_enabled()
    switch.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        switch.enable_tensor_float_32_execution(before)
