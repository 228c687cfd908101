"""Which saved layer goes to which layer of a network."""

from pathlib import Path

import numpy as np
import pytest

from radtransfer.pretrained.match import Target, match_layers, with_any_channels
from radtransfer.pretrained.read import SavedLayer, WeightFile

BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def conv(name: str, inputs: int, filters: int) -> Target:
    return Target(name, "conv2d", {"kernel": (3, 3, inputs, filters), "bias": (filters,)})


def batch_norm(name: str, filters: int) -> Target:
    return Target(name, "batch_normalization", dict.fromkeys(BATCH_NORM, (filters,)))


NAMED = (conv("conv1_conv", 3, 4), batch_norm("conv1_bn", 4), conv("conv2_conv", 4, 4), batch_norm("conv2_bn", 4))
# Every convolution but the first has the same shape, so that a shift by one is not caught by shapes alone.
NUMBERED = (conv("conv2d", 3, 4), *(conv(f"conv2d_{rank}", 4, 4) for rank in range(1, 12)))


def saved(target: Target, name: str, *, value: float = 0.0, part: str = "", kind: str | None = None) -> SavedLayer:
    arrays = {leaf: np.full(shape, value, "float32") for leaf, shape in target.shapes.items()}
    return SavedLayer(name, arrays, part=part, kind=kind)


def file_of(*layers: SavedLayer) -> WeightFile:
    return WeightFile(Path("file.h5"), "legacy_h5", layers)


def values(match) -> list[float]:
    return [float(arrays[0].flat[0]) for arrays in match.arrays.values()]


def test_slashes_and_underscores_in_names_are_the_same():
    names = ("conv1/conv", "conv1/bn", "conv2/conv", "conv2/bn")
    match = match_layers(file_of(*map(saved, NAMED, names)), NAMED)
    assert (match.missing, match.by) == ((), "name")


def test_scopes_in_front_of_names_are_ignored():
    names = (f"model/encoder/{target.name}" for target in NAMED)
    match = match_layers(file_of(*map(saved, NAMED, names)), NAMED)
    assert (match.missing, match.by) == ((), "name")


@pytest.mark.parametrize("offset", [0, 1, 7, 94])
def test_numbered_layers_are_paired_by_rank_whatever_the_offset(offset):
    layers = [saved(t, f"conv2d_{rank + offset}", value=rank) for rank, t in enumerate(NUMBERED)]
    # In the order of text, as HDF5 lists groups: conv2d_10 before conv2d_2.
    match = match_layers(file_of(*sorted(layers, key=lambda layer: layer.name)), NUMBERED)
    assert (match.by, values(match)) == ("name", list(range(12)))


def test_a_head_with_layers_of_the_same_class_is_extra():
    layers = [saved(t, f"conv2d_{rank}", value=rank) for rank, t in enumerate(NUMBERED)]
    head = saved(conv("", 4, 4), "conv2d_12", value=99)
    match = match_layers(file_of(*layers, head), NUMBERED)
    assert values(match) == list(range(12))
    assert match.extra == ("conv2d_12",)


def test_an_adapter_in_front_is_extra():
    layers = [saved(t, f"conv2d_{rank + 1}", value=rank) for rank, t in enumerate(NUMBERED)]
    match = match_layers(file_of(saved(conv("", 1, 3), "conv2d", value=99), *layers), NUMBERED)
    assert values(match) == list(range(12))
    assert match.extra == ("conv2d",)


def test_numbers_of_the_sub_model_are_not_mixed_with_those_of_the_head():
    layers = [saved(t, f"conv2d_{rank + 2}", value=rank, part="inception_v3") for rank, t in enumerate(NUMBERED)]
    around = [saved(conv("", 4, 4), name, value=99) for name in ("conv2d", "conv2d_1")]
    match = match_layers(file_of(*around, *layers), NUMBERED)
    assert values(match) == list(range(12))
    assert match.extra == ("conv2d", "conv2d_1")


def test_a_layer_around_the_sub_model_cannot_take_a_place_in_it():
    layers = [saved(t, t.name, value=rank, part="inception_v3") for rank, t in enumerate(NUMBERED)]
    around = saved(conv("", 4, 4), "conv2d_5", value=99)
    assert values(match_layers(file_of(around, *layers), NUMBERED)) == list(range(12))


def test_frozen_layers_saved_last_still_find_their_place():
    layers = [saved(t, t.name, value=rank) for rank, t in enumerate(NUMBERED)]
    match = match_layers(file_of(*layers[6:], *layers[:6]), NUMBERED)
    assert values(match) == list(range(12))


def test_numbers_that_tensorflow_1_doubled_keep_their_order():
    layers = [saved(t, f"conv2d_{rank}_1", value=rank) for rank, t in enumerate(NUMBERED)]
    match = match_layers(file_of(*layers), NUMBERED)
    assert values(match) == list(range(12))


def test_renamed_layers_are_matched_by_the_order_of_all_shapes():
    layers = [saved(t, f"block{rank}", value=rank) for rank, t in enumerate(NAMED)]
    head = SavedLayer("predictions", {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)})
    match = match_layers(file_of(*layers, head), NAMED)
    assert (match.by, values(match), match.extra) == ("order", [0, 1, 2, 3], ("predictions",))


def test_layers_without_names_are_matched_within_their_class():
    positional = [
        SavedLayer(
            f"{target.kind}_{rank // 2}",
            {str(i): np.full(shape, rank, "float32") for i, shape in enumerate(target.shapes.values())},
            kind=target.kind,
        )
        for rank, target in enumerate(NAMED)
    ]
    match = match_layers(file_of(*sorted(positional, key=lambda layer: layer.name)), NAMED)
    assert (match.by, values(match)) == ("order", [0, 1, 2, 3])


def test_the_same_name_with_another_shape_is_missing():
    layers = [saved(t, t.name) for t in NAMED[:-1]]
    match = match_layers(file_of(*layers, saved(batch_norm("", 5), "conv2_bn")), NAMED)
    assert match.missing == ("conv2_bn",)
    assert match.extra == ("conv2_bn",)


def test_the_same_name_with_other_leaves_is_missing():
    scaleless = Target("", "batch_normalization", dict.fromkeys(BATCH_NORM[1:], (4,)))
    layers = [saved(t, t.name) for t in NAMED[:-1]]
    match = match_layers(file_of(*layers, saved(scaleless, "conv2_bn")), NAMED)
    assert match.missing == ("conv2_bn",)


def test_half_a_network_is_not_complete():
    match = match_layers(file_of(*(saved(t, t.name) for t in NUMBERED[:6])), NUMBERED)
    assert match.missing


def test_a_shorter_network_is_not_cut_out_of_a_longer_one_by_name_alone():
    longer = (*NAMED, conv("conv3_conv", 4, 8))
    wanted = (*NAMED, conv("conv3_conv", 4, 16))
    assert match_layers(file_of(*(saved(t, t.name) for t in longer)), wanted).missing == ("conv3_conv",)


def test_positional_leaves_of_another_shape_do_not_fit():
    layer = SavedLayer("conv1_conv", {"0": np.zeros((3, 3, 3, 4)), "1": np.zeros(5)}, kind="conv2d")
    assert match_layers(file_of(layer), NAMED[:1]).missing == ("conv1_conv",)


def test_a_channel_scale_becomes_the_kernel_of_a_convolution():
    target = Target("scale", "depthwise_conv2d", {"kernel": (1, 1, 6, 1)})
    layer = SavedLayer("scale", {"Variable": np.arange(6, dtype="float32")})
    (kernel,) = match_layers(file_of(layer), [target]).arrays["scale"]
    assert kernel.shape == (1, 1, 6, 1)
    assert list(kernel.flat) == list(range(6))


def test_any_number_of_input_channels_fits_on_request():
    grey = (conv("conv1_conv", 1, 4), *NAMED[1:])
    file = file_of(*(saved(t, t.name) for t in grey))
    assert match_layers(file, NAMED).missing
    assert not match_layers(file, with_any_channels(NAMED)).missing


def attention(name: str) -> Target:
    parts = {part: (f"{part}/kernel", f"{part}/bias") for part in ("query", "key", "value")}
    shapes = {path: (4, 4) if path.endswith("kernel") else (4,) for paths in parts.values() for path in paths}
    return Target(name, "multi_head_attention", shapes, parts)


def saved_parts(name: str, parts: dict[str, float], *, group: str = "") -> list[SavedLayer]:
    """As `.weights.h5` keeps them: by groups, in the order of text, each with its name."""
    return [
        SavedLayer(
            part,
            {"0": np.full((4, 4), value, "float32"), "1": np.full(4, value, "float32")},
            part=group or name,
            outer=(name,),
            within=True,
        )
        for part, value in sorted(parts.items())
    ]


VALUES = {"query": 1.0, "key": 2.0, "value": 3.0}


def test_layers_within_a_layer_are_matched_by_their_path_and_not_by_their_order():
    targets = (*NAMED, attention("attention"))
    file = file_of(*(saved(t, t.name) for t in NAMED), *saved_parts("attention", VALUES, group="multi_head_attention"))
    match = match_layers(file, targets)
    assert (match.missing, match.by, match.extra) == ((), "name", ())
    assert [float(array.flat[0]) for array in match.arrays["attention"]] == [1, 1, 2, 2, 3, 3]


def test_a_layer_whose_inner_layers_have_other_names_is_missing():
    file = file_of(*saved_parts("attention", {"query": 1.0, "keys": 2.0, "value": 3.0}))
    assert match_layers(file, [attention("attention")]).missing == ("attention",)


def test_inner_layers_of_one_name_are_never_taken_for_one_another():
    twice = [*saved_parts("attention", VALUES), *saved_parts("attention", {"query": 9.0})]
    assert match_layers(file_of(*twice), [attention("attention")]).missing == ("attention",)


def test_numbered_layers_of_layers_are_paired_by_rank():
    targets = [attention("multi_head_attention"), attention("multi_head_attention_1")]
    layers = [
        layer
        for number in (7, 12)
        for layer in saved_parts(f"multi_head_attention_{number}", dict.fromkeys(VALUES, float(number)))
    ]
    assert values(match_layers(file_of(*reversed(layers)), targets)) == [7, 12]


def test_a_layer_within_another_one_is_not_taken_for_one_of_the_network():
    dense = Target("dense", "dense", {"kernel": (4, 4), "bias": (4,)})
    inner = saved_parts("time_distributed", {"dense": 9.0})
    own = SavedLayer("dense_1", {"0": np.ones((4, 4), "float32"), "1": np.ones(4, "float32")}, kind="dense")
    match = match_layers(file_of(*inner, own), [dense])
    assert values(match) == [1]
    assert match.extra == ("time_distributed/dense",)
