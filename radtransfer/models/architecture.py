"""Builds a backbone: flat, with names that never change, in plain Keras layers, nothing learned.

Bottleneck residual blocks of any width.

Layer names, order and configuration are those of `keras.applications`, which builds only the full
width: weights of its networks fit layer by layer wherever the widths agree.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385), Figure 5.

Densely connected blocks of any growth rate.

Layer names, order and configuration are those of `keras.applications`, which builds only the full
width: weights of its networks fit layer by layer wherever the widths agree.

References:
    Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Networks (arXiv 1608.06993), section 3.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import keras
from keras import layers

from radtransfer.errors import ConfigError
from radtransfer.models.backbone import BACKBONES, Backbone, stage_widths
from radtransfer.models.layers import sub_layers, with_dtype
from radtransfer.process import keras_defaults


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


EPSILON = 1.001e-5
"""Of batch norm, as in `keras.applications`."""

EXPANSION = 4
"""Channels out of a bottleneck over the channels inside it, whatever the width."""


def residual_stage(x: keras.KerasTensor, *, blocks: int, width: int, stride: int, name: str) -> keras.KerasTensor:
    """`blocks` bottlenecks in a row; the first one strides, and projects its shortcut to the new width.

    Returns:
        (batch, height / stride, width / stride, 4 · `width`).
    """
    x = bottleneck(x, width=width, stride=stride, project=True, name=f"{name}_block1")
    for block in range(2, blocks + 1):
        x = bottleneck(x, width=width, stride=1, project=False, name=f"{name}_block{block}")
    return x


def bottleneck(x: keras.KerasTensor, *, width: int, stride: int, project: bool, name: str) -> keras.KerasTensor:
    """1×1, 3×3, 1×1 convolutions beside a shortcut: `x` itself, or its projection by a 1×1 convolution."""
    out = EXPANSION * width
    shortcut = _convolution(x, out, 1, stride=stride, name=f"{name}_0") if project else x
    x = _convolution(x, width, 1, stride=stride, name=f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _convolution(x, width, 3, padding="same", name=f"{name}_2")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _convolution(x, out, 1, name=f"{name}_3")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(
    x: keras.KerasTensor, channels: int, kernel: int, *, name: str, stride: int = 1, padding: str = "valid"
) -> keras.KerasTensor:
    """A convolution, with bias as in `keras.applications`, and its batch norm."""
    x = layers.Conv2D(channels, kernel, strides=stride, padding=padding, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


EPSILON_DENSE_BLOCKS = 1.001e-5
"""Of batch norm, as in `keras.applications`."""

BOTTLENECK = 4
"""Channels of a layer's 1×1 convolution over the growth rate, whatever the growth rate."""


def dense_stage(x: keras.KerasTensor, *, blocks: int, growth: int, name: str) -> keras.KerasTensor:
    """`blocks` pairs of convolutions, each adding `growth` channels to all that came before."""
    for block in range(1, blocks + 1):
        x = _grown(x, growth, f"{name}_block{block}")
    return x


def transition(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Half the channels, whatever their number, and half the height and width."""
    x = norm_relu(x, name=name)
    x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.AveragePooling2D(2, strides=2, name=f"{name}_pool")(x)


def norm_relu(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Batch norm and ReLU, which stand before a convolution here."""
    x = layers.BatchNormalization(epsilon=EPSILON_DENSE_BLOCKS, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _grown(x: keras.KerasTensor, growth: int, name: str) -> keras.KerasTensor:
    new = norm_relu(x, name=f"{name}_0")
    new = layers.Conv2D(BOTTLENECK * growth, 1, use_bias=False, name=f"{name}_1_conv")(new)
    new = norm_relu(new, name=f"{name}_1")
    new = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_2_conv")(new)
    return layers.Concatenate(name=f"{name}_concat")([x, new])
