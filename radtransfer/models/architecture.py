"""Builds a backbone: flat, with names that never change, in plain Keras layers, nothing learned.

On this machine its layers compute by the fastest operations that TensorFlow has for them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal

import keras
import tensorflow as tf

from radtransfer.errors import ConfigError
from radtransfer.models.backbone import BACKBONES, Backbone, stage_widths
from radtransfer.models.layers import stable_names, sub_layers, with_dtype
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

    Its input is a preprocessed float32 image, (batch, image_size, image_size, channels), of any size for an
    `image_size` of None; its output is the last feature map (`pooling` None) or that map's average, (batch, features).
    Layer names are the same however many models the process has built before, and each layer is a public Keras layer,
    so that the saved model loads wherever Keras is installed.

    `widths` maps stages to the fraction of their channels that a slim network has, in (0, 1] (see `backbone.narrowed`);
    `precision` is the Keras dtype policy of every layer; `prepare` becomes the beginning of the graph, whose input is
    then what `prepare` takes.

    Raises:
        UnknownNameError: No backbone of this name, or it has no stage of a name in `widths`.
        ConfigError: The image is too small for it, it cannot be slim, or another argument is out of range.
    """
    spec = BACKBONES[backbone] if isinstance(backbone, str) else backbone
    if image_size is None and spec.patch is not None:
        image_size = 224
    spec.check_image_size(image_size)
    if channels < 1:
        raise ConfigError(f"An image has at least one channel. Received: channels={channels}.")
    if pooling not in ("avg", None):
        raise ConfigError(f"pooling is 'avg' or None. Received: {pooling!r}.")
    image = keras.Input((image_size, image_size, channels), dtype="float32", name="image")
    source_image, fractions = keras.Input(image.shape[1:], dtype="float32"), stage_widths(spec, widths or {})
    if all(fraction == 1 for fraction in fractions.values()):
        source = spec.build(source_image, pooling)
    else:
        source = spec.build_slim(source_image, pooling, fractions)
    features = _rebuilt(source, spec, precision, image, prepare(image) if prepare else image)
    return keras.Model(image, features, name=spec.name)


def _rebuilt(
    source: keras.Model, spec: Backbone, precision: str, image: keras.KerasTensor, prepared: keras.KerasTensor
) -> keras.KerasTensor:
    """The output of `source`, from `prepared`, through new, renamed layers of dtype policy `precision`."""
    operations = []
    for operation in source.operations:
        operations += operation.layers if isinstance(operation, keras.Sequential) else [operation]
    names = dict(zip([operation.name for operation in operations], stable_names(operations), strict=True))

    def call(operation: keras.Operation, *inputs, **options):
        inputs, options = keras.tree.map_structure(lambda x: prepared if x is image else x, (inputs, options))
        options = {name: value for name, value in options.items() if value is not None}  # Keras' mask=None
        if isinstance(operation, keras.Sequential):
            x = inputs[0]
            for layer in operation.layers:
                x = call(layer, x)
            return x
        name, replacement = names[operation.name], spec.replacements.get(type(operation).__name__)
        if replacement:
            return replacement(operation, inputs, name=name, dtype=precision)
        config = operation.get_config() | {"name": name}
        if not isinstance(operation, keras.Layer):
            return type(operation).from_config(config)(*inputs, **options)
        layer = type(operation).from_config(with_dtype(config, precision))
        output = layer(*inputs, **options)
        for part in sub_layers(layer).values():
            if isinstance(part, keras.layers.BatchNormalization):
                part.momentum = spec.batch_norm_momentum
        return output

    # Keras' own walk through the graph, with another call at each node. Every new layer is called once, so that
    # `layer.output` means one thing. Some applications return a model of a list of inputs.
    inputs = [image] if isinstance(source.input, list) else image
    rebuilt = keras.models.clone_model(
        source, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call
    )
    return rebuilt.outputs[0]


def use_fast_operations(model: keras.Model) -> None:
    """Let the layers of `model` that can compute by faster operations of TensorFlow, from its next trace on.

    The layers stay what they are: the same weights, the same saved model, the same results but for rounding.
    """
    fuse_batch_norms(model)
    compute_depthwise(model)


def fuse_batch_norms(model: keras.Model) -> None:
    """Let every batch-norm layer of `model` that can compute by the fused operation.

    Keras composes batch norm of moments, a subtraction, products and a sum, each of which reads and writes the whole
    feature map, and again backwards. Batch norm over another axis than the last of (batch, height, width, channels),
    across replicas or with renormalization stays as it is.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            composed = layer.synchronized or getattr(layer, "renorm", False)
            if len(layer.input.shape) == 4 and layer.axis in (-1, 3) and not composed:
                layer.call = functools.partial(_fused_batch_norm, layer)


def _fused_batch_norm(
    layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool | None = None, mask: None = None
) -> tf.Tensor:
    """As `BatchNormalization.call`: batch statistics if `training` and not frozen, which also move the moving ones."""
    gamma = layer.gamma.value if layer.scale else tf.ones(layer.moving_mean.shape)
    beta = layer.beta.value if layer.center else tf.zeros(layer.moving_mean.shape)
    fused = functools.partial(tf.raw_ops.FusedBatchNormV3, x=inputs, scale=gamma, offset=beta, epsilon=layer.epsilon)
    if not (training and layer.trainable):
        statistics = {"mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
        return fused(**statistics, is_training=False).y
    nothing = tf.zeros([0])
    result = fused(mean=nothing, variance=nothing, is_training=True)
    # The operation gives the unbiased variance of n values; the moving one is of biased ones, as in Keras.
    n = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance = result.batch_variance * ((n - 1.0) / n)
    for moving, value in ((layer.moving_mean, result.batch_mean), (layer.moving_variance, variance)):
        moving.assign(moving.value * layer.momentum + value * (1.0 - layer.momentum))
    return result.y


def compute_depthwise(model: keras.Model) -> None:
    """Let every convolution of `model` with a group for each channel compute as a depthwise one, on a CPU.

    ConvNeXt of Keras has them as `Conv2D` with as many groups as channels, which TensorFlow computes group by group on
    a CPU. By the depthwise operation a training step of ConvNeXt-Tiny takes a quarter of the time or less
    (`python tests/benchmarks --only step --backbones convnext_tiny`). A GPU has kernels of its own for groups.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is not keras.layers.Conv2D:
            continue
        one_each = layer.groups == layer.filters == layer.input.shape[-1] > 1
        even = len(set(layer.strides)) == 1 and (layer.strides == (1, 1) or layer.dilation_rate == (1, 1))
        if one_each and even and layer.data_format == "channels_last" and layer.padding in ("same", "valid"):
            layer.call = functools.partial(_depthwise, layer)


def _depthwise(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """As `Conv2D.call`."""
    # (height, width, 1, channels) to (height, width, channels, 1): the same numbers in the same order.
    kernel = tf.reshape(layer.kernel.value, [*layer.kernel_size, layer.filters, 1])
    outputs = tf.nn.depthwise_conv2d(
        inputs, kernel, [1, *layer.strides, 1], layer.padding.upper(), dilations=layer.dilation_rate
    )
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, layer.bias.value)
    return layer.activation(outputs) if layer.activation is not None else outputs
