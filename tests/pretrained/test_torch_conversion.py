"""PyTorch's layers become ours, or the reason why not."""

from pathlib import Path

import numpy as np
import pytest

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.match import weighted_layers
from radtransfer.pretrained.torch_weights import TORCH_BACKBONES, convert_torch, torch_backbone, torch_layers

LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def targets(backbone: str):
    return weighted_layers(build_architecture(backbone, image_size=None, pooling=None))


def torch_tensors(backbone: str) -> dict[str, np.ndarray]:
    """A state dict of torchvision's shapes, each tensor filled with its own number."""
    shapes = {target.name: target.shapes for target in targets(backbone)}
    tensors = {}
    for number, pair in enumerate(torch_layers(backbone), start=1):
        for leaf, shape in shapes[pair.layer].items():
            if pair.kind == "conv" and leaf == "kernel":
                height, width, inputs, outputs = shape
                tensors[f"{pair.module}.weight"] = np.full((outputs, inputs, height, width), number, np.float32)
            else:
                tensors[f"{pair.module}.{LEAVES.get(leaf, 'bias')}"] = np.full(shape, number, np.float32)
        if pair.kind == "norm":
            tensors[f"{pair.module}.num_batches_tracked"] = np.array(9)
    return tensors | {"fc.weight": np.zeros((5, 8), np.float32), "fc.bias": np.zeros(5, np.float32)}


def recognized(tensors: dict[str, np.ndarray], asked: str | None = None) -> str:
    return torch_backbone(Path("x.pt"), tensors, asked)


def converted(tensors: dict[str, np.ndarray], backbone: str, *, epsilon: float = 1e-5):
    return convert_torch(Path("x.pt"), tensors, backbone, targets(backbone), epsilon)


@pytest.fixture(scope="module")
def dense() -> dict[str, np.ndarray]:
    return torch_tensors("densenet121")


@pytest.mark.parametrize("backbone", TORCH_BACKBONES)
def test_every_weighted_layer_has_one_module(backbone):
    assert sorted(pair.layer for pair in torch_layers(backbone)) == sorted(item.name for item in targets(backbone))


@pytest.mark.parametrize("backbone", ["resnet50_v1_5", "inception_v3_torch"])
def test_a_network_is_recognized_and_every_layer_gets_its_own_module(backbone):
    tensors = torch_tensors(backbone)
    assert recognized(tensors) == backbone
    layers, _, left_out = converted(tensors, backbone)
    for number, pair in enumerate(torch_layers(backbone), start=1):
        assert all((array == number).all() for array in layers[pair.layer])
    assert left_out == ("fc",)


def test_kernels_are_turned_and_variances_keep_the_sum_with_epsilon(dense):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 3, 7, 7)).astype(np.float32)
    layers, notes, _ = converted(dense | {"features.conv0.weight": kernel}, "densenet121", epsilon=1.001e-5)
    np.testing.assert_array_equal(layers["conv1_conv"][0], kernel.transpose(2, 3, 1, 0))
    assert layers["conv1_bn"][3] == pytest.approx(2 + 1e-5 - 1.001e-5)


@pytest.mark.parametrize("prefix", ["module.", "backbone.net."])
def test_names_may_stand_behind_a_prefix(prefix, dense):
    assert recognized({prefix + name: array for name, array in dense.items()}) == "densenet121"


def test_numbered_modules_are_found_by_their_order(dense):
    modules = {}
    renamed = {
        f"backbone.{modules.setdefault(name.rpartition('.')[0], len(modules))}.{name.rpartition('.')[2]}": array
        for name, array in dense.items()
    }
    assert recognized(renamed) == "densenet121"
    layers, _, _ = converted(renamed, "densenet121")
    assert (layers["bn"][0] == len(torch_layers("densenet121"))).all()


def test_old_names_of_densenet_are_known(dense):
    old = {name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): array for name, array in dense.items()}
    assert recognized(old) == "densenet121"


def test_keras_resnet_is_refused_for_pytorchs_with_the_place_of_the_stride():
    with pytest.raises(
        WeightsMismatchError, match="PyTorch has the strides in the 3×3 .* Use --backbone resnet50_v1_5"
    ):
        recognized(torch_tensors("resnet50_v1_5"), "resnet50")


def test_a_resnet_with_biases_is_keras_own():
    assert recognized(torch_tensors("resnet50")) == "resnet50"


def test_a_deeper_network_is_refused(dense):
    more = dense | {"features.denseblock4.denselayer17.conv1.weight": np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(WeightsMismatchError, match="1 more convolutions"):
        converted(more, "densenet121")


def test_another_width_is_refused_by_its_shape(dense):
    wide = dense | {"features.denseblock1.denselayer1.conv1.weight": np.zeros((96, 64, 1, 1), np.float32)}
    with pytest.raises(WeightsMismatchError, match=r"has a kernel of shape \(1, 1, 64, 96\)"):
        converted(wide, "densenet121")


@pytest.mark.parametrize(
    ("array", "reason"),
    [(np.full(64, np.nan, np.float32), "NaN or infinite"), (np.zeros(64, np.int8), "quantized")],
)
def test_numbers_that_are_no_weights_are_refused(array, reason, dense):
    with pytest.raises(WeightsError, match=reason):
        converted(dense | {"features.norm0.weight": array}, "densenet121")


def test_another_network_is_none_of_these():
    with pytest.raises(WeightsMismatchError, match="Only these can be converted"):
        recognized({"layer.weight": np.zeros((3, 3), np.float32)})


def test_resnet50_v1_5_strides_in_the_middle_convolution():
    model = build_architecture("resnet50_v1_5", image_size=None, pooling=None)
    assert model.get_layer("conv3_block1_1_conv").strides == (1, 1)
    assert model.get_layer("conv3_block1_2_conv").strides == (2, 2)
