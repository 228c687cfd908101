import numpy as np
import pytest
import tensorflow as tf

from radtransfer.errors import TrainingError
from radtransfer.evaluation.predictions import Forward


def network(sizes, *, most):
    """A network that doubles its images, remembers how many it was given, and has room for `most` of them."""

    def member(images):
        if len(images) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        sizes.append(len(images))
        return 2 * images

    return member


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing():
    sizes, notes = [], []
    forward = Forward([network(sizes, most=3)], batch_size=16, notify=notes.append)
    images = tf.reshape(tf.range(20, dtype=tf.float32), (10, 2))
    assert forward(images).tolist() == [(2 * images).numpy().tolist()]
    assert sizes == [2] * 5
    assert forward.batch_size == 2
    assert notes == [
        "out of memory with 10 images at a time; continuing with 5",
        "out of memory with 5 images at a time; continuing with 2",
    ]


def test_every_network_sees_every_image():
    sizes = []
    forward = Forward([network(sizes, most=9), lambda images: images], batch_size=4)
    found = forward(tf.ones((6, 3)))
    assert found.shape == (2, 6, 3)
    assert (found[0].mean(), found[1].mean()) == (2, 1)
    assert sizes == [4, 2]


def test_no_room_for_a_single_image_is_an_error():
    forward = Forward([network([], most=0)], batch_size=8)
    with pytest.raises(TrainingError, match="a single image"):
        forward(tf.ones((2, 3)))


def test_outputs_that_are_no_numbers_are_an_error():
    with pytest.raises(TrainingError, match="not finite"):
        Forward([lambda images: images * np.nan], batch_size=2)(tf.ones((2, 3)))
