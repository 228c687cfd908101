import numpy as np
import pytest

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.architecture import build_architecture
from radtransfer.classifier import build_classifier
from radtransfer.pretrained import load_pretrained
from radtransfer.seeds import derive_seed
from radtransfer.transfer import draw_random, start


def build(name="cbr_tiny"):
    return build_classifier(
        BACKBONES[name], classes=3, image_size=32, activation="softmax", dropout=0.5, preprocessing="torch"
    ).model


def values(model):
    return {variable.path: np.array(variable) for variable in model.weights}


def test_one_seed_gives_one_network_whatever_was_built_before():
    one = build()
    draw_random(one, seed=3)
    build("cbr_small")
    other = build()
    draw_random(other, seed=3)
    for (_, a), (_, b) in zip(values(one).items(), values(other).items(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_one_shape_draw_different_numbers():
    model = build("efficientnet_v2_b0")
    draw_random(model, seed=0)
    kernels = [value.ravel()[:50].tobytes() for path, value in values(model).items() if value.ndim == 4]
    assert len(set(kernels)) == len(kernels)


@pytest.mark.parametrize("name", ["cbr_tiny", "efficientnet_v2_b0", "convnext_tiny"])
def test_every_kernel_is_drawn_anew(name):
    model = build(name)
    before = values(model)
    draw_random(model, seed=11)
    for path, value in values(model).items():
        if "kernel" in path and np.ptp(before[path]) > 0:
            assert (value != before[path]).mean() > 0.99, path


def test_drawn_kernels_keep_the_scale_of_their_initializer():
    model = build()
    draw_random(model, seed=0)
    kernel = model.get_layer("conv3").get_weights()[0]
    fan_in, fan_out = np.prod(kernel.shape[:3]), np.prod(kernel.shape[:2]) * kernel.shape[3]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (fan_in + fan_out)), rel=0.02)


def test_the_head_does_not_depend_on_what_the_backbone_starts_from(tmp_path):
    source = build()
    draw_random(source, seed=8)
    source.save(tmp_path / "source.keras")
    scratch, transferred = build(), build()
    pretrained = load_pretrained(
        str(tmp_path / "source.keras"), backbone="cbr_tiny", model=build_architecture("cbr_tiny", image_size=32)
    )
    start(scratch, None, seed=1)
    start(transferred, pretrained, seed=1)
    np.testing.assert_array_equal(
        scratch.get_layer("head").get_weights()[0], transferred.get_layer("head").get_weights()[0]
    )
    for name in ("conv1", "conv4"):
        np.testing.assert_array_equal(
            transferred.get_layer(name).get_weights()[0], source.get_layer(name).get_weights()[0]
        )


def test_derived_seeds_are_fixed_for_ever():
    assert derive_seed(0, "conv1", "kernel") == 1867581419
    assert derive_seed(0, "a", "b") != derive_seed(0, "b", "a")
