"""Convolutions of one channel each are computed as depthwise ones, and give what Keras gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.models.architecture import build_architecture, compute_depthwise, use_fast_operations

CHANNELS = 4


def convolving(filters=CHANNELS, groups=CHANNELS, dtype="float32", **options):
    image = keras.Input((9, 8, CHANNELS))
    layer = keras.layers.Conv2D(filters, 3, groups=groups, name="conv", dtype=dtype, **options)
    model = keras.Model(image, layer(image))
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    return model


def batch():
    return tf.constant(np.random.default_rng(0).normal(size=(2, 9, 8, CHANNELS)), tf.float32)


def passed(model, images):
    """Output, and gradients of a sum of cubes for images and weights."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = tf.cast(model(images, training=True), tf.float32)
        total = tf.reduce_sum(output * output * output)
    return [output, *tape.gradient(total, [images, *(variable.value for variable in model.trainable_variables)])]


def operations(model):
    graph = tf.function(lambda images: model(images)).get_concrete_function(batch()).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": "same", "strides": 2},
        {"padding": "same", "dilation_rate": 2},
        {"padding": "same", "dilation_rate": (1, 2)},
        {"padding": "same", "use_bias": False},
        {"padding": "same", "activation": "relu"},
    ],
)
def test_outputs_and_gradients_are_those_of_keras(options):
    fast, plain = convolving(**options), convolving(**options)
    compute_depthwise(fast)
    assert "DepthwiseConv2dNative" in operations(fast) and "DepthwiseConv2dNative" not in operations(plain)
    for mine, its in zip(passed(fast, batch()), passed(plain, batch()), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-4)


def test_half_precision_stays_half():
    fast, plain = convolving(dtype="mixed_bfloat16"), convolving(dtype="mixed_bfloat16")
    compute_depthwise(fast)
    outputs = [model(batch()) for model in (fast, plain)]
    assert outputs[0].dtype == outputs[1].dtype == tf.bfloat16
    np.testing.assert_allclose(*(tf.cast(output, tf.float32) for output in outputs), atol=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"groups": 1},
        {"filters": 2 * CHANNELS},
        {"strides": (1, 2)},
    ],
)
def test_what_the_operation_cannot_do_is_left_to_keras(options):
    other = convolving(**options)
    compute_depthwise(other)
    assert "DepthwiseConv2dNative" not in operations(other)


def test_a_gpu_keeps_its_own(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    other = convolving(padding="same")
    compute_depthwise(other)
    assert "DepthwiseConv2dNative" not in operations(other)


def test_convnext_is_computed_so_and_saved_as_it_was(tmp_path):
    model = build_architecture("convnext_tiny", image_size=32)
    images = tf.constant(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), tf.float32)
    before = model(images)
    use_fast_operations(model)
    np.testing.assert_allclose(model(images), before, rtol=1e-3, atol=1e-4)
    graph = tf.function(lambda images: model(images)).get_concrete_function(images).graph
    sevens = [
        operation
        for operation in graph.get_operations()
        if operation.type == "DepthwiseConv2dNative" and operation.inputs[1].shape[0] == 7
    ]
    assert len(sevens) == 18
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("convnext_tiny_stage_0_block_0_depthwise_conv")) is keras.layers.Conv2D
    np.testing.assert_allclose(loaded(images), before, rtol=1e-3, atol=1e-4)
