import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.models.architecture import fuse_batch_norms


def normalizing(**options):
    image = keras.Input((6, 5, 3))
    model = keras.Model(image, keras.layers.BatchNormalization(momentum=0.9, name="norm", **options)(image))
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    return model


def batch(images=4):
    return tf.constant(np.random.default_rng(0).normal(3, 2, (images, 6, 5, 3)), tf.float32)


def passed(model, images, *, training):
    """Output, gradients of a sum of squares for images and trained weights, and weights afterwards."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = model(images, training=training)
        total = tf.reduce_sum(output * output * output)
    wanted = [images, *(variable.value for variable in model.trainable_variables)]
    return [output, *tape.gradient(total, wanted), *model.get_weights()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-2}])
def test_outputs_gradients_and_statistics_are_those_of_keras(options, trainable, training):
    fused, plain = normalizing(**options), normalizing(**options)
    fuse_batch_norms(fused)
    for model in (fused, plain):
        model.get_layer("norm").trainable = trainable
    for mine, its in zip(*(passed(model, batch(), training=training) for model in (fused, plain)), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_statistics_in_float32(dtype):
    fused, plain = normalizing(dtype=dtype), normalizing(dtype=dtype)
    fuse_batch_norms(fused)
    outputs = [model(batch(), training=True) for model in (fused, plain)]
    assert outputs[0].dtype == outputs[1].dtype != tf.float32
    np.testing.assert_allclose(*(tf.cast(output, tf.float32) for output in outputs), atol=0.05)
    for mine, its in zip(fused.get_weights(), plain.get_weights(), strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, its, atol=0.02)


def test_the_operation_is_used():
    fused = normalizing()
    fuse_batch_norms(fused)
    graph = tf.function(lambda images: fused(images, training=True)).get_concrete_function(batch()).graph
    assert "FusedBatchNormV3" in {operation.type for operation in graph.get_operations()}


def test_a_saved_model_is_plain_keras(tmp_path):
    fused = normalizing()
    fuse_batch_norms(fused)
    fused.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("norm")) is keras.layers.BatchNormalization
    np.testing.assert_allclose(loaded(batch()), fused(batch()), atol=1e-5)


def test_what_the_operation_cannot_do_is_left_to_keras():
    other = normalizing(axis=1)
    fuse_batch_norms(other)
    np.testing.assert_array_equal(other(batch(), training=True), normalizing(axis=1)(batch(), training=True))
