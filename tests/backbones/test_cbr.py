"""The counts that Table 1 and the text of Transfusion print, by the rule found in them."""

import keras
import numpy as np
import pytest

from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES

TABLE_1 = {
    "cbr_large_t": 8_532_480,
    "cbr_large_w": 8_432_128,
    "cbr_small": 2_108_672,
    "cbr_tiny": 1_076_480,
}
TRAINABLE_WITH_HEAD = {
    "cbr_large_t": 8_539_173,
    "cbr_large_w": 8_443_461,
    "cbr_small": 2_114_341,
    "cbr_tiny": 1_079_845,
}


@pytest.mark.parametrize(("name", "printed"), TABLE_1.items())
def test_kernels_after_the_first_and_a_head_of_five_are_the_printed_count(name, printed):
    model = build_architecture(name, image_size=32)
    kernels = [int(np.prod(layer.kernel.shape)) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sum(kernels[1:]) + 5 * model.output_shape[-1] == printed
    assert BACKBONES[name].paper_parameters == printed


@pytest.mark.parametrize(("name", "trainable"), TRAINABLE_WITH_HEAD.items())
def test_trainable_parameters_with_a_head_of_five_classes(name, trainable):
    model = build_architecture(name, image_size=32)
    headed = keras.Model(model.input, keras.layers.Dense(5)(model.output))
    assert sum(int(np.prod(weight.shape)) for weight in headed.trainable_weights) == trainable


def test_the_appendix_counts_tiny_four_times_larger_than_the_table():
    assert BACKBONES["cbr_tiny_wide"].paper_parameters == 4_303_360


def test_a_block_is_convolution_batch_norm_relu_pool():
    model = build_architecture("cbr_small", image_size=32, pooling=None)
    assert [layer.name for layer in model.layers[1:5]] == ["conv1", "bn1", "relu1", "pool1"]
    assert model.get_layer("conv1").kernel.shape == (7, 7, 3, 32)
    assert model.get_layer("conv1").bias is None
    assert model.output_shape == (None, 2, 2, 256)


def test_large_t_does_not_pool_after_its_last_block():
    model = build_architecture("cbr_large_t", image_size=32, pooling=None)
    assert model.layers[-1].name == "relu5"
    assert model.output_shape == (None, 2, 2, 512)
