"""Augmentations: pure, in range, and geometrically what their source says."""

import functools
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import warm_process

from radtransfer.errors import UnknownNameError
from radtransfer.images.augment import AUGMENTATIONS, Preset, StatelessDraws, affine, window

IMAGES = 8


@functools.cache
def made(name: str) -> Callable:
    """Built, and traced, once for all tests."""
    return AUGMENTATIONS[name].build()


@pytest.fixture
def images() -> np.ndarray:
    steps = np.random.default_rng(0).normal(0, 8, (IMAGES, 32, 32, 3))
    return np.clip(128 + steps.cumsum(axis=1).cumsum(axis=2) / 4, 0, 255).astype("float32")


def seeds_for(images: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-(2**31), 2**31, (images, 2)).astype("int32")


def augmented(augment, images: np.ndarray, *, workers: int = 1, backwards: bool = False) -> np.ndarray:
    step = -1 if backwards else 1
    pairs = (images[::step], seeds_for(len(images))[::step])
    dataset = tf.data.Dataset.from_tensor_slices(pairs).map(augment, num_parallel_calls=workers)
    options = tf.data.Options()
    options.autotune.enabled = False
    return np.stack(list(dataset.with_options(options).as_numpy_iterator()))[::step]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_varied_image_follows_from_itself_and_its_seed_alone(images, name):
    first = augmented(made(name), images)
    np.testing.assert_array_equal(augmented(AUGMENTATIONS[name].build(), images, workers=2, backwards=True), first)
    assert first.dtype == np.float32 and first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 255
    assert np.array_equal(first, images) == (name == "none")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_graph_holds_a_random_generator_with_state(name):
    specs = (tf.TensorSpec((32, 32, 3)), tf.TensorSpec((2,), tf.int32))
    graph = tf.function(AUGMENTATIONS[name].build()).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    operations = {node.op for node in nodes}
    stateful = {op for op in operations if "Rng" in op or ("Random" in op and not op.startswith("Stateless"))}
    assert not stateful


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_other_seeds_vary_the_same_image_otherwise(images, name):
    same = np.repeat(images[:1], 12, axis=0)
    varied = augmented(made(name), same)
    assert len(np.unique(varied.reshape(12, -1), axis=0)) >= (2 if name == "random_flip" else 9)


def test_randaugment_and_augmix_draw_anew_at_every_step_of_a_loop(images):
    """With draws counted only while tracing, all operations of an AugMix chain would be the same one."""
    draws = StatelessDraws()

    @tf.function
    def drawn():
        draws.restart(tf.constant([1, 2]))
        values = tf.TensorArray(tf.float32, 5)

        def body(step, values):
            with draws.inside_loop(step):
                return step + 1, values.write(step, draws.uniform([]))

        return tf.while_loop(lambda step, _: step < 5, body, [0, values])[1].stack()

    assert len(np.unique(drawn())) == 5


@pytest.mark.parametrize("name", ["fundus", "chest", "light", "juodelyte"])
def test_a_grey_image_stays_grey(images, name):
    grey = np.repeat(images[..., :1], 3, axis=-1)
    varied = augmented(AUGMENTATIONS[name].build(), grey)
    np.testing.assert_allclose(varied[..., 0], varied[..., 1], atol=1e-3)
    np.testing.assert_allclose(varied[..., 0], varied[..., 2], atol=1e-3)


@pytest.mark.parametrize("name", ["chest", "juodelyte_no_flip", "light"])
def test_presets_without_flip_never_swap_left_and_right(name):
    ramp = np.broadcast_to(np.linspace(0, 255, 32, dtype="float32")[:, None], (60, 32, 32, 3))
    varied = augmented(AUGMENTATIONS[name].build(), ramp)
    assert (varied[:, :, :8].mean((1, 2, 3)) < varied[:, :, -8:].mean((1, 2, 3))).all()


@pytest.mark.parametrize(("preset", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_a_flip_is_exact_and_happens_in_half_of_the_cases(images, preset, axis):
    varied = augmented(Preset("", **{preset: True}).build(), np.repeat(images[:1], 100, axis=0))
    kept = [np.allclose(image, images[0], atol=1e-3) for image in varied]
    flipped = [np.allclose(image, np.flip(images[0], axis), atol=1e-3) for image in varied]
    assert np.array_equal(kept, np.logical_not(flipped))
    assert 30 <= sum(kept) <= 70


def test_a_crop_shows_a_window_that_lies_inside_the_image():
    places = np.zeros((40, 64, 64, 3), "float32") + np.arange(64, dtype="float32")[:, None]
    varied = augmented(Preset("", crop=0.2).build(), places)
    left, right = varied[:, 32, 0, 0], varied[:, 32, -1, 0]
    assert (left >= 0).all() and (right <= 63).all()
    assert (right - left).min() < 63 * 0.84 and (right - left).max() > 63 * 0.96
    assert (right - left).min() >= 63 * 0.8 - 1e-3
    assert np.std(left + right) > 1  # the window is not always in the middle


@pytest.mark.parametrize("name", ["fundus", "chest"])
def test_the_quick_way_of_moving_pixels_is_the_affine_map(name):
    preset = AUGMENTATIONS[name]
    assert preset.stays_inside and not AUGMENTATIONS["light"].stays_inside
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32))
    for seed in range(20):
        draws = tf.random.stateless_uniform([11], [seed, 1], -1.0, 1.0)
        matrix = preset._source_matrix(draws, tf.shape(image))
        np.testing.assert_allclose(window(image, matrix), affine(image, matrix), atol=0.02)


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
def test_the_affine_map_is_that_of_keras_image_data_generator(images):
    reference = pytest.importorskip("tf_keras").preprocessing.image.apply_affine_transform
    preset = Preset("", rotation=10.0, shift=0.1, shear=5.0, zoom=0.1)
    draws = np.float32([0.5, -0.8, 0.3, -0.6, 0.9, -0.4, 0, 0, 0, 0, 0])
    ours = affine(tf.constant(images[0]), preset._source_matrix(tf.constant(draws), tf.constant([32, 32, 3])))
    theirs = reference(
        images[0], theta=5.0, shear=-4.0, tx=0.3 * 0.1 * 32, ty=-0.6 * 0.1 * 32, zx=1.09, zy=0.96,
        row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest", order=1,
    )  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_juodelyte_has_the_values_of_the_published_scripts():
    preset = AUGMENTATIONS["juodelyte"]
    assert (preset.rotation, preset.shift, preset.shear, preset.zoom) == (10, 0.1, 0.1, 0.1)
    assert preset.flip_horizontal and not preset.flip_vertical


def test_keras_cv_computes_in_float32_under_mixed_precision(images):
    images = images[:2]
    expected = augmented(made("randaugment"), images)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        varied = augmented(AUGMENTATIONS["randaugment"].build(), images)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(varied, expected)


def test_an_unknown_augmentation_names_the_closest():
    with pytest.raises(UnknownNameError, match="'juodelyte'"):
        AUGMENTATIONS["juodelite"]


def test_presets_do_not_import_keras_cv():
    code = (
        "import sys; from radtransfer.images.augment import AUGMENTATIONS\n"
        "AUGMENTATIONS['light']; AUGMENTATIONS['randaugment']\n"
        "assert not {'tensorflow', 'keras_cv'} & {*sys.modules}\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code += "AUGMENTATIONS['light'].build()\nsys.exit('keras_cv' in sys.modules)"
    assert warm_process.run(program=code.replace("'tensorflow', ", "")).returncode == 0
