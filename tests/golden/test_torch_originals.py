"""Vision transformers of PyTorch give the same features in Keras; `torch_originals.json` holds what PyTorch gave."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_files import drawn
from torch_originals import FILE, SIZE, image

from radtransfer.errors import WeightsMismatchError
from radtransfer.models.architecture import build_architecture
from radtransfer.models.vit import POSITIONS, resized_positions, vit_spec
from radtransfer.pretrained.vit_weights import find_vit, vit_arrays

ORIGINALS = json.loads(FILE.read_text(encoding="utf-8"))["families"]
SPECS = {
    "vit_nano_16": vit_spec("nano", 16, 64, 4),
    "vit_nano_14": vit_spec("nano", 14, 64, 4, layer_scale=True),
}
BEFORE_TRANSFORMERS_5 = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def tensors_of(family: str) -> dict[str, np.ndarray]:
    return {name: drawn(name, shape) for name, shape in ORIGINALS[family]["tensors"].items()}


def renamed(tensors: dict[str, np.ndarray], names: dict[str, str]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = array
    return found


def features(tensors: dict[str, np.ndarray], patch: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(tokens, channels) of the image that the originals saw, and what was left out of the file."""
    found = find_vit(Path("weights.safetensors"), tensors, SPECS)
    model = build_architecture(found.spec, image_size=SIZE[patch], pooling=None)
    for name, arrays in vit_arrays(Path("weights.safetensors"), found).items():
        layer, arrays = model.get_layer(name), tuple(arrays.values())
        if name == POSITIONS:
            before = model.get_layer("tokens").padding[0]
            arrays = (resized_positions(arrays[0], rows=layer.input_dim, before=before),)
        layer.set_weights(arrays)
    return np.asarray(model(image(patch)))[0], found.left_out


def check_equal(family: str, tensors: dict[str, np.ndarray]) -> tuple[str, ...]:
    entry = ORIGINALS[family]
    expected = np.array(entry["features"], np.float32)
    found, left_out = features(tensors, entry["patch"])
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-4 * np.abs(expected).max())
    return left_out


@pytest.mark.parametrize("family", ORIGINALS)
def test_the_features_are_those_of_pytorch(family):
    check_equal(family, tensors_of(family))


def test_names_of_transformers_before_5():
    check_equal("huggingface_vit", renamed(tensors_of("huggingface_vit"), BEFORE_TRANSFORMERS_5))


def test_what_is_not_the_network_is_left_out_by_name():
    more = {"decoder_embed.weight": np.zeros((32, 64), np.float32), "mask_token": np.zeros((1, 1, 64), np.float32)}
    assert set(check_equal("timm", tensors_of("timm") | more)) == {*more, "head.weight", "head.bias"}


def test_the_network_that_its_authors_evaluate_is_taken():
    teacher = {f"teacher.backbone.{name}": array for name, array in tensors_of("timm").items()}
    student = {f"student.backbone.{name}": array + 1 for name, array in tensors_of("timm").items()}
    check_equal("timm", student | teacher)


def test_other_parts_and_sizes_are_refused():
    tensors = tensors_of("timm")
    gated = tensors | {"blocks.0.mlp.w3.weight": np.zeros((64, 64), np.float32)}
    with pytest.raises(WeightsMismatchError, match=r"parts that vit_nano_16 does not have: block1\.mlp\."):
        features(gated, 16)
    with pytest.raises(WeightsMismatchError, match="4 blocks and 64 channels .* none of vit_tiny_16, "):
        find_vit(Path("weights.safetensors"), tensors)
    del tensors["blocks.2.norm1.bias"]
    with pytest.raises(WeightsMismatchError, match=r"expected block3.norm1.bias of shape \(64,\) .* found nothing"):
        features(tensors, 16)


def test_the_configuration_of_the_file_wins(tmp_path):
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1e-3, "hidden_act": "quick_gelu"}')
    found = find_vit(tmp_path / "model.safetensors", tensors_of("huggingface_vit"), SPECS)
    assert found.options == {"epsilon": 1e-3, "activation": "quick_gelu"}
    assert found.notes == ("Epsilon 0.001 as config.json says.",)


def test_the_saved_model_opens_in_plain_keras(tmp_path):
    model = build_architecture(SPECS["vit_nano_14"].with_options(registers=2), image_size=42)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(image(14)), model(image(14)))
