import keras
import numpy as np
import pytest
import tensorflow as tf

from radtransfer.errors import ConfigError
from radtransfer.training.losses import class_weights, make_loss

LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, 0.1, 4.0]], np.float32)
ONE_HOT = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
ONES = np.ones(3, np.float32)


def value(name, activation, targets=ONE_HOT, logits=LOGITS, weights=ONES):
    return make_loss(name, activation=activation)(
        tf.constant(targets), tf.constant(logits), tf.constant(weights)
    ).numpy()


def test_categorical_equals_keras():
    expected = keras.losses.categorical_crossentropy(ONE_HOT, LOGITS, from_logits=True)
    np.testing.assert_allclose(value("auto", "softmax"), expected, rtol=1e-6)


def test_binary_equals_keras_on_sigmoids_and_on_softmax():
    expected = keras.losses.binary_crossentropy(ONE_HOT, LOGITS, from_logits=True)
    np.testing.assert_allclose(value("auto", "sigmoid"), expected, rtol=1e-5)
    expected = keras.losses.binary_crossentropy(ONE_HOT, tf.nn.softmax(LOGITS))
    np.testing.assert_allclose(value("binary_crossentropy", "softmax"), expected, rtol=1e-4)


def test_an_unknown_label_takes_no_part():
    masked = np.array([[1, np.nan, 0], [np.nan, np.nan, np.nan]], np.float32)
    pair = make_loss("auto", activation="sigmoid")(
        tf.constant([[1.0, 0.0]]), tf.constant([[2.0, 0.5]]), tf.ones(2)
    ).numpy()
    np.testing.assert_allclose(value("auto", "sigmoid", targets=masked), [pair[0], 0.0], rtol=1e-6)


def test_an_unknown_label_gives_no_gradient_and_no_nan():
    logits = tf.Variable(LOGITS)
    masked = tf.constant([[1, np.nan, 0], [np.nan] * 3], tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(make_loss("auto", activation="sigmoid")(masked, logits, tf.ones(3)))
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[np.isnan(masked)] == 0).all()
    assert (gradient[~np.isnan(masked)] != 0).all()


@pytest.mark.parametrize(
    ("name", "activation"), [("auto", "softmax"), ("auto", "sigmoid"), ("binary_crossentropy", "softmax")]
)
def test_huge_logits_stay_finite(name, activation):
    huge = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], np.float32)
    assert np.isfinite(value(name, activation, logits=huge)).all()
    assert np.isfinite(value(name, activation, logits=-huge)).all()


def test_a_class_weight_multiplies_the_images_of_its_class():
    plain, weighted = (
        value("auto", "softmax"),
        value("auto", "softmax", weights=np.array([1, 3, 1], np.float32)),
    )
    np.testing.assert_allclose(weighted, plain * [1, 3], rtol=1e-6)


def test_balanced_weights_give_every_class_the_same_total():
    targets = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    weights = class_weights("balanced", targets, classes=("a", "b"), task="multiclass")
    np.testing.assert_allclose(targets.sum(axis=0) * weights, [2, 2])


def test_balanced_positives_are_negatives_over_positives_of_known_labels():
    targets = np.array([[1, 0], [0, np.nan], [0, 1]], np.float32)
    np.testing.assert_allclose(class_weights("balanced", targets, classes=("a", "b"), task="multilabel"), [2, 1])


def test_weights_must_name_every_class():
    with pytest.raises(ConfigError, match="a factor for each of a, b"):
        class_weights({"a": 1.0}, np.eye(2, dtype=np.float32), classes=("a", "b"), task="multiclass")


def test_categorical_entropy_of_sigmoids_is_refused():
    with pytest.raises(ConfigError, match="needs model.head softmax"):
        make_loss("categorical_crossentropy", activation="sigmoid")
