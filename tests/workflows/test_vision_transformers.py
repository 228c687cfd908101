"""A vision transformer from a PyTorch file, through every command that looks into a network."""

import json

import keras
import numpy as np
import pytest
from torch_files import drawn, write_torch_file

WIDTH, REGISTERS = 192, 2


def timm_tensors() -> dict[str, np.ndarray]:
    """ViT-Tiny/16 for images of 64 px as timm names it, with two registers."""
    w = WIDTH
    shapes = {"cls_token": (1, 1, w), "reg_token": (1, REGISTERS, w), "pos_embed": (1, 16, w)}
    shapes |= {"patch_embed.proj.weight": (w, 3, 16, 16), "patch_embed.proj.bias": (w,)}
    for block in range(12):
        parts = {"norm1": (w,), "attn.qkv": (3 * w, w), "attn.proj": (w, w), "norm2": (w,)}
        parts |= {"mlp.fc1": (4 * w, w), "mlp.fc2": (w, 4 * w)}
        for part, shape in parts.items():
            shapes |= {f"blocks.{block}.{part}.weight": shape, f"blocks.{block}.{part}.bias": shape[:1]}
    shapes |= {"norm.weight": (w,), "norm.bias": (w,), "head.weight": (1000, w), "head.bias": (1000,)}
    return {name: drawn(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_torch_file(tmp_path_factory.mktemp("weights") / "vit.pth", timm_tensors())


@pytest.fixture(scope="module")
def run(radtransfer, tiny_images, weights, tmp_path_factory):
    """Trained on images of 48 px, so that the positions are resized; frozen up to stage1."""
    out = tmp_path_factory.mktemp("runs") / "vit"
    images = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    network = ("--backbone", "vit_tiny_16", "--weights", weights, "--image-size", 48, "--freeze-to", "stage1")
    training = ("--folds", 2, "--fold", 1, "--epochs", 1, "--batch-size", 8, "--learning-rate", "1e-3")
    outcome = radtransfer("finetune", *images, *network, *training, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "Epsilon 1e-06, as the timm layout has it" in outcome.err
    return out


def test_the_options_of_the_weights_are_recorded_and_the_model_is_plain_keras(run):
    record = json.loads((run / "run.json").read_text())
    assert (record["backbone"], record["options"]) == ("vit_tiny_16", {"registers": REGISTERS})
    model = keras.models.load_model(run / "fold_1" / "model.keras")
    assert model.get_layer("norm").output.shape == (None, 1 + REGISTERS + 9, WIDTH)
    names = [layer.name for layer in model.layers if not layer.trainable and layer.weights]
    assert "block3_mlp2" in names and "block4_mlp2" not in names


def test_a_run_is_the_source_of_another(radtransfer, run):
    outcome = radtransfer("plan", "vit_tiny_16", "--weights", run, "--image-size", 64, "--json")
    assert outcome.code == 0, outcome.err


def test_layers_are_compared_by_patches_and_the_class_token(radtransfer, run, tiny_images):
    outcome = radtransfer("compare-cca", f"{run}@initial", run, "--similarity", "cka", "--json")
    assert outcome.code == 0, outcome.err
    found = {row["layer"]: row for row in json.loads(outcome.out)["layers"]}
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "stage4", "cls"]
    assert found["stage1"]["similarity"] == pytest.approx(1) and found["stage4"]["similarity"] < 1
    assert found["stage4"]["rows"] == 9 * found["cls"]["rows"]


def test_patches_and_the_class_token_are_extracted(radtransfer, run, tiny_images, tmp_path):
    shapes = {}
    for layer in ("stage2", "cls"):
        out = tmp_path / f"{layer}.npz"
        images = tiny_images / "images" / "well"
        outcome = radtransfer("extract", run, images, "--layer", layer, "--pool", "none", "--out", out)
        assert outcome.code == 0, outcome.err
        with np.load(out) as found:
            shapes[layer] = found["features"].shape[1:]
    assert shapes == {"stage2": (3, 3, WIDTH), "cls": (WIDTH,)}


def test_the_patches_are_explained_where_they_still_matter(radtransfer, run, tiny_images, tmp_path):
    images = tiny_images / "images" / "well"
    outcome = radtransfer("explain", run, images, "--limit", 2, "--out", tmp_path / "sheet")
    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "sheet" / "explanations.json").read_text())
    assert record["layer"] == "block12_norm1"


def test_other_weights_and_sizes_are_refused(radtransfer, weights, tmp_path):
    outcome = radtransfer("plan", "vit_tiny_16", "--image-size", 50)
    assert outcome.code == 2 and "a multiple of 16. Received: 50. Use 48 or 64." in outcome.err
    outcome = radtransfer("plan", "vit_small_16", "--weights", weights)
    assert outcome.code == 4 and "holds vit_tiny_16; --backbone is vit_small_16" in outcome.err
    outcome = radtransfer("plan", "vit_tiny_16", "--scheme", "gabor")
    assert outcome.code == 2 and "cuts it into patches of 16 pixels" in outcome.err


def test_converted_weights_keep_what_they_need(radtransfer, weights, tmp_path):
    outcome = radtransfer("weights", "convert", weights, tmp_path / "vit.weights.h5", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["left_out"] == ["head.weight", "head.bias"]
    from radtransfer.pretrained.match import build_backbone

    networks = [
        build_backbone("vit_tiny_16", str(path), image_size=64) for path in (weights, tmp_path / "vit.weights.h5")
    ]
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(networks[0](image), networks[1](image))
