"""Builds a backbone as a flat model of plain Keras layers with stable names, and speeds up some of its layers."""

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

    Its input is a preprocessed float32 image, (batch, image_size, image_size, channels), of any size if `image_size` is
    None; its output is the last feature map (`pooling` None) or the average of that map, (batch, features). Layer names
    do not depend on models built before, and each layer is a public Keras layer, so that the saved model loads wherever
    Keras is installed.

    `widths` maps stages to fractions of their channels, in (0, 1] (see `backbone.narrowed`); `precision` is the Keras
    dtype policy of every layer; `prepare` is applied to the input before the first layer. Raises UnknownNameError for
    an unknown backbone or stage, ConfigError if another argument is out of range.
    """
    spec = BACKBONES[backbone] if isinstance(backbone, str) else backbone
    if image_size is None and spec.patch is not None:
        image_size = 224
    spec.check_image_size(image_size)
    if channels < 1:
        raise ConfigError(f"channels: expected at least 1. Received: {channels}.")
    if pooling not in ("avg", None):
        raise ConfigError(f"pooling: expected 'avg' or None. Received: {pooling!r}.")
    image = keras.Input((image_size, image_size, channels), dtype="float32", name="image")
    source_image, fractions = keras.Input(image.shape[1:], dtype="float32"), stage_widths(spec, widths or {})
    if all(fraction == 1 for fraction in fractions.values()):
        source = spec.build(source_image, pooling)
    else:
        source = spec.build_slim(source_image, pooling, fractions)
    features = _rebuild(source, spec, precision, image, prepare(image) if prepare else image)
    return keras.Model(image, features, name=spec.name)


def _rebuild(
    source: keras.Model, spec: Backbone, precision: str, image: keras.KerasTensor, prepared: keras.KerasTensor
) -> keras.KerasTensor:
    """The output of `source` for `prepared`, computed by new, renamed layers with dtype policy `precision`."""
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

    # `clone_model` traverses the graph and calls `call` at each node, so that every new layer is called once and
    # `layer.output` is unique. Some applications return a model with a list of inputs.
    inputs = [image] if isinstance(source.input, list) else image
    rebuilt = keras.models.clone_model(
        source, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call
    )
    return rebuilt.outputs[0]


def use_fast_operations(model: keras.Model) -> None:
    """Use faster operations of TensorFlow in layers of `model`, from its next trace on.

    Weights, saved model and results are the same, except for rounding.
    """
    fuse_batch_norms(model)
    compute_depthwise(model)


def fuse_batch_norms(model: keras.Model) -> None:
    """Use TensorFlow's fused operation in the batch-norm layers of `model`, where possible.

    Keras computes moments, a difference, products and a sum, each of which reads and writes the whole feature map.
    Layers that normalize over another axis than the last of (batch, height, width, channels), synchronize replicas or
    renormalize are not changed.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            composed = layer.synchronized or getattr(layer, "renorm", False)
            if len(layer.input.shape) == 4 and layer.axis in (-1, 3) and not composed:
                layer.call = functools.partial(_fused_batch_norm, layer)


def _fused_batch_norm(
    layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool | None = None, mask: None = None
) -> tf.Tensor:
    """As `BatchNormalization.call`: batch statistics if `training` and not frozen, which update the moving ones."""
    gamma = layer.gamma.value if layer.scale else tf.ones(layer.moving_mean.shape)
    beta = layer.beta.value if layer.center else tf.zeros(layer.moving_mean.shape)
    fused = functools.partial(tf.raw_ops.FusedBatchNormV3, x=inputs, scale=gamma, offset=beta, epsilon=layer.epsilon)
    if not (training and layer.trainable):
        statistics = {"mean": layer.moving_mean.value, "variance": layer.moving_variance.value}
        return fused(**statistics, is_training=False).y
    empty = tf.zeros([0])
    result = fused(mean=empty, variance=empty, is_training=True)
    # The operation returns the unbiased variance of n values; Keras uses the biased one.
    n = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance = result.batch_variance * ((n - 1.0) / n)
    for moving, value in ((layer.moving_mean, result.batch_mean), (layer.moving_variance, variance)):
        moving.assign(moving.value * layer.momentum + value * (1.0 - layer.momentum))
    return result.y


def compute_depthwise(model: keras.Model) -> None:
    """On a CPU, compute every `Conv2D` of `model` with one group per channel by the depthwise operation.

    Keras' ConvNeXt has such layers, which TensorFlow computes group by group on a CPU. With the depthwise operation a
    training step of ConvNeXt-Tiny takes at most a quarter of the time (`python tests/benchmarks --only step --backbones
    convnext_tiny`). GPUs have their own kernels for groups.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model.layers:
        if type(layer) is not keras.layers.Conv2D:
            continue
        is_depthwise = layer.groups == layer.filters == layer.input.shape[-1] > 1
        supported = len(set(layer.strides)) == 1 and (layer.strides == (1, 1) or layer.dilation_rate == (1, 1))
        supported = supported and layer.data_format == "channels_last" and layer.padding in ("same", "valid")
        if is_depthwise and supported:
            layer.call = functools.partial(_depthwise, layer)


def _depthwise(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """As `Conv2D.call`."""
    # (height, width, 1, channels) to (height, width, channels, 1), with the same order of values.
    kernel = tf.reshape(layer.kernel.value, [*layer.kernel_size, layer.filters, 1])
    outputs = tf.nn.depthwise_conv2d(
        inputs, kernel, [1, *layer.strides, 1], layer.padding.upper(), dilations=layer.dilation_rate
    )
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, layer.bias.value)
    return layer.activation(outputs) if layer.activation is not None else outputs
