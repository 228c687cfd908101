import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.config.schema import TrainingSettings
from radtransfer.training.step import make_optimizer, weight_averages

PLAIN = {
    "adam": lambda rate, momentum, decay: keras.optimizers.Adam(rate, weight_decay=decay or None),
    "adamw": lambda rate, momentum, decay: keras.optimizers.AdamW(rate, weight_decay=decay),
    "sgd": lambda rate, momentum, decay: keras.optimizers.SGD(rate, momentum=momentum, weight_decay=decay or None),
    "rmsprop": lambda rate, momentum, decay: keras.optimizers.RMSprop(
        rate, momentum=momentum, weight_decay=decay or None
    ),
}


def trained(optimizer, steps=5):
    """Variables of two shapes after some steps, the second of another learning rate."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 3, 4, 5), (5,))]
    optimizer.build(variables)

    @tf.function
    def step(gradients):
        optimizer.apply(gradients, variables)

    for number in range(steps):
        optimizer.learning_rate = 0.1 / (number + 1)
        step([tf.constant(rng.normal(size=variable.shape), tf.float32) for variable in variables])
    return [np.array(variable) for variable in [*variables, *optimizer.variables]]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", PLAIN)
def test_an_update_is_that_of_keras(name, momentum, decay):
    settings = TrainingSettings(optimizer=name, learning_rate=0.1, momentum=momentum, weight_decay=decay)
    ours, theirs = make_optimizer(settings, mixed_float16=False), PLAIN[name](0.1, momentum, decay)
    for mine, its in zip(trained(ours), trained(theirs), strict=True):
        # Keras takes 1 - 0.999 in float64 in one place and in float32 in another, the operation in float32 in both.
        np.testing.assert_allclose(mine, its, rtol=6e-5, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_averages_follow_the_weights_after_each_step(name):
    momentum = 0.75
    settings = TrainingSettings(optimizer=name, learning_rate=0.1, ema_momentum=momentum)
    optimizer, variable = make_optimizer(settings, mixed_float16=False), keras.Variable(np.ones(3, np.float32))
    optimizer.build([variable])

    @tf.function
    def step():
        optimizer.apply([2 * variable.value], [variable])

    expected = None
    for _ in range(4):
        step()
        weights = np.array(variable)
        expected = weights if expected is None else momentum * expected + (1 - momentum) * weights
        (average,) = weight_averages(optimizer)
        np.testing.assert_allclose(average, expected, rtol=1e-6)


def test_averages_pass_over_a_step_whose_gradients_overflow():
    optimizer = make_optimizer(TrainingSettings(learning_rate=0.1, ema_momentum=0.5), mixed_float16=True)
    variable = keras.Variable(np.ones(3, np.float32))
    optimizer.build([variable])
    optimizer.apply([tf.constant([1.0, np.inf, 1.0])], [variable])
    (average,) = weight_averages(optimizer)
    np.testing.assert_array_equal(average, np.zeros(3))
    optimizer.apply([tf.constant([1.0, 1.0, 1.0])], [variable])
    np.testing.assert_array_equal(average, variable)


def test_nothing_is_averaged_unless_asked_for():
    optimizer = make_optimizer(TrainingSettings(), mixed_float16=True)
    optimizer.build([keras.Variable(np.ones(3, np.float32))])
    assert weight_averages(optimizer) == []


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved():
    optimizer = make_optimizer(TrainingSettings(learning_rate=0.1), mixed_float16=True)
    variable = keras.Variable(np.ones(3, np.float32))
    optimizer.build([variable])
    scale = float(optimizer.dynamic_scale)
    optimizer.apply([tf.constant([1.0, np.inf, 1.0])], [variable])
    np.testing.assert_array_equal(variable, np.ones(3))
    assert float(optimizer.dynamic_scale) == scale / 2
    optimizer.apply([tf.constant([1.0, 1.0, 1.0])], [variable])
    assert (np.array(variable) < 1).all()
