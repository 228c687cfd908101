"""Builds a backbone: flat, with names that never change, in plain Keras layers, nothing learned."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import keras

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.backbone import Backbone
from radtransfer.backbones.widths import stage_widths
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError
from radtransfer.layers import sub_layers, with_dtype


@keras_defaults()
def build_architecture(
    backbone: str | Backbone,
    *,
    image_size: int | None = 224,
    pooling: Literal["avg"] | None = "avg",
    channels: int = 3,
    widths: Mapping[str, float] | None = None,
    precision: str = "float32",
    prepare: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None,
) -> keras.Model:
    """A flat functional model with random weights and without head.

    Its input is a preprocessed float32 image, (batch, image_size, image_size, channels); its output
    is the last feature map (`pooling` None) or that map's average, (batch, features). Layer names
    are the same however many models the process has built before, and each layer is a public Keras
    layer, so that the saved model loads wherever Keras is installed.

    Args:
        backbone: A name in `BACKBONES`, or a card.
        image_size: In pixels; None for images of any size.
        pooling: "avg" or None.
        channels: Of the input.
        widths: Stage to the fraction of its channels that a slim network has, in (0, 1]; stages that
            are not named have all. Fractions of a channel are rounded (see `widths.narrowed`).
        precision: Keras dtype policy of every layer ("mixed_bfloat16"); the global one is not touched.
        prepare: Becomes the beginning of the graph; the model's input is then what `prepare` takes.

    Raises:
        UnknownNameError: No backbone of this name, or it has no stage of a name in `widths`.
        ConfigError: The image is too small for it, it cannot be slim, or another argument is out of range.
    """
    card = BACKBONES[backbone] if isinstance(backbone, str) else backbone
    check_input(card, image_size=image_size, channels=channels)
    if pooling not in ("avg", None):
        raise ConfigError(f"pooling is 'avg' or None. Received: {pooling!r}.")
    image = keras.Input((image_size, image_size, channels), dtype="float32", name="image")
    source = _source(card, keras.Input(image.shape[1:], dtype="float32"), pooling, stage_widths(card, widths or {}))
    features = _rebuilt(source, card, precision, image, prepare(image) if prepare else image)
    return keras.Model(image, features, name=card.name)


def check_input(card: Backbone, *, image_size: int | None, channels: int) -> None:
    """Raises ConfigError if `card`'s network cannot take such images."""
    if image_size is not None:
        card.check_image_size(image_size)
    if channels < 1:
        raise ConfigError(f"An image has at least one channel. Received: channels={channels}.")


def _source(card: Backbone, image: keras.KerasTensor, pooling: str | None, widths: Mapping[str, float]) -> keras.Model:
    """The network as its card builds it."""
    if all(fraction == 1 for fraction in widths.values()):
        return card.build(image, pooling)
    return card.build_slim(image, pooling, widths)


def _rebuilt(
    source: keras.Model, card: Backbone, precision: str, image: keras.KerasTensor, prepared: keras.KerasTensor
) -> keras.KerasTensor:
    """The output of `source`, from `prepared`, through new, renamed layers of dtype policy `precision`."""
    names = _stable_names(source)

    def call(operation: keras.Operation, *inputs, **options):
        inputs, options = keras.tree.map_structure(lambda x: prepared if x is image else x, (inputs, options))
        options = {name: value for name, value in options.items() if value is not None}  # Keras' mask=None
        if isinstance(operation, keras.Sequential):
            x = inputs[0]
            for layer in operation.layers:
                x = call(layer, x)
            return x
        name, replacement = names[operation.name], card.replacements.get(type(operation).__name__)
        if replacement:
            return replacement(operation, inputs, name=name, dtype=precision)
        layer = type(operation).from_config(with_dtype(operation.get_config() | {"name": name}, precision))
        output = layer(*inputs, **options)
        for part in sub_layers(layer).values():
            if isinstance(part, keras.layers.BatchNormalization):
                part.momentum = card.batch_norm_momentum
        return output

    # Keras' own walk through the graph, with another call at each node. Every new layer is called once, so that
    # `layer.output` means one thing. Some applications return a model of a list of inputs.
    inputs = [image] if isinstance(source.input, list) else image
    rebuilt = keras.models.clone_model(
        source, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call
    )
    return rebuilt.outputs[0]


def _stable_names(model: keras.Model) -> dict[str, str]:
    """Each operation's name to one that does not depend on what the process built before.

    Keras numbers unnamed layers by a global count (`conv2d_94`); the stable name counts within the
    model (`conv2d`), in the order of creation, which gives the names of a fresh process.
    """
    names, numbered = {}, defaultdict(list)
    for operation in _flat_operations(model):
        prefix, number = re.fullmatch(r"(.*?)(?:_(\d+))?", operation.name).groups()
        if prefix.replace("_", "") == type(operation).__name__.lower():
            numbered[prefix].append((int(number or 0), operation.name))
        else:
            names[operation.name] = operation.name
    for prefix, members in numbered.items():
        for rank, (_, name) in enumerate(sorted(members)):
            names[name] = f"{prefix}_{rank}" if rank else prefix
    return names


def _flat_operations(model: keras.Model) -> Iterator[keras.Operation]:
    for operation in model.operations:
        if isinstance(operation, keras.Sequential):
            yield from operation.layers
        else:
            yield operation
