"""radtransfer weights."""

import json

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from radtransfer.cli.weights import weights
from radtransfer.errors import WeightsError, WeightsNotFoundError
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.match import load_pretrained
from radtransfer.pretrained.source import find_weights, known_weights


@pytest.fixture(autouse=True)
def _an_empty_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADTRANSFER_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def run(*arguments: str):
    return CliRunner().invoke(weights, arguments)


def printed(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.fixture
def cbr_file(tmp_path):
    build_architecture("cbr_tiny", image_size=32).save_weights(tmp_path / "cbr.weights.h5")
    return str(tmp_path / "cbr.weights.h5")


def test_list_shows_every_card_and_its_terms():
    text = printed("list")
    assert all(name in text for name in known_weights())
    assert "data-use agreement" in text


def test_list_as_json_holds_the_whole_cards(tmp_path):
    (tmp_path / "RadImageNet-IRV2_notop.h5").touch()
    rows = {row["name"]: row for row in json.loads(printed("list", "--json"))}
    assert rows["radimagenet-inception_resnet_v2"]["found"] == "RadImageNet-IRV2_notop.h5"
    assert rows["radimagenet-resnet50"]["found"] is None
    assert rows["radimagenet-resnet50"]["preprocessing"] == "caffe_unit"


def test_where_names_the_folders_and_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "models"))
    assert "none of the known files" in printed("where")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "RadImageNet-ResNet50_notop.h5").touch()
    text = printed("where")
    assert f"searched  {tmp_path / 'models'}" in text
    assert "radimagenet-resnet50" in text


def test_inspect_recognizes_the_network(cbr_file):
    text = printed("inspect", cbr_file)
    assert "cbr_tiny: all 8 layers found by name" in text
    assert "torch (assumed)" in text


def test_inspect_as_json_tells_everything(cbr_file):
    found = json.loads(printed("inspect", "--json", cbr_file))
    assert (found["format"], found["backbone"], found["layers"]) == ("weights_h5", "cbr_tiny", 8)
    assert len(found["sha256"]) == 64
    assert (found["matched"], found["missing"], found["extra"]) == (8, [], [])


def test_inspect_of_an_unknown_network_says_so(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "x.keras")
    assert "none of those in `radtransfer backbones`" in printed("inspect", "x.keras")


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"<!DOCTYPE html>", "is an HTML page")])
def test_inspect_of_a_bad_file_is_a_weights_error_with_exit_code_4(content, message, tmp_path):
    (tmp_path / "bad.h5").write_bytes(content)
    error = run("inspect", "bad.h5").exception
    assert isinstance(error, WeightsError)
    assert error.exit_code == 4
    assert message in str(error)


def test_inspect_of_a_missing_file_is_not_found():
    assert isinstance(run("inspect", "nowhere.h5").exception, WeightsNotFoundError)


@pytest.fixture
def multi_gpu_file(tmp_path):
    """What multi_gpu_model of Keras 2.2 saved: a slice of the batch per GPU, one network inside, all joined again."""
    network = build_architecture("cbr_tiny", image_size=32)
    rng = np.random.default_rng(0)
    slices = [
        {
            "class_name": "Lambda",
            "name": f"lambda_{gpu + 1}",
            "config": {
                "name": f"lambda_{gpu + 1}",
                "function": ["4wIAAAACAAAACQAAAB8AAABz\n", None, None],
                "function_type": "lambda",
                "arguments": {"i": gpu, "parts": 2},
            },
            "inbound_nodes": [[["input_1", 0, 0, {}]]],
        }
        for gpu in range(2)
    ]
    joined = {"class_name": "Concatenate", "name": "dense_1", "config": {"name": "dense_1", "axis": 0}}
    inner = {"class_name": "Model", "name": "model_1", "config": {"name": "model_1", "layers": []}}
    with h5py.File(tmp_path / "gpus.h5", "w") as file:
        layers = {"name": "model_2", "layers": [*slices, inner, joined]}
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": layers})
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = "2.2.4"
        group.attrs["layer_names"] = ["input_1", "lambda_1", "lambda_2", "model_1", "dense_1"]
        for name in ("input_1", "lambda_1", "lambda_2", "dense_1"):
            group.create_group(name).attrs["weight_names"] = np.zeros(0, "S1")
        for layer in network.layers:
            for weight in layer.weights:
                group[f"model_1/{layer.name}/{weight.name}:0"] = rng.uniform(0.1, 1, weight.shape).astype("float32")
        group["model_1"].attrs["weight_names"] = [
            f"{layer.name}/{weight.name}:0"
            for trains in (True, False)
            for layer in network.layers
            for weight in (layer.trainable_weights if trains else layer.non_trainable_weights)
        ]
    return "gpus.h5"


@pytest.mark.parametrize("command", ["inspect", "verify", "convert"])
def test_weights_beside_lambda_layers_are_read_only_when_told_to(command, multi_gpu_file):
    arguments = [multi_gpu_file, *(["out.weights.h5"] if command == "convert" else [])]
    error = run(command, *arguments).exception
    assert isinstance(error, WeightsError)
    assert "carries code, a Lambda layer ('lambda_1')" in str(error) and "--ignore-lambda" in str(error)
    assert run(command, *arguments, "--ignore-lambda").exit_code == 0


def test_what_ignored_lambda_layers_did_is_said_to_be_unknown(multi_gpu_file):
    text = printed("inspect", multi_gpu_file, "--ignore-lambda")
    assert "lambda_1, lambda_2: ignored; their effect on the images is unknown" in text
    assert "cbr_tiny: all 8 layers found by name" in text
    found = json.loads(printed("inspect", multi_gpu_file, "--ignore-lambda", "--json"))
    assert found["lambdas"] == ["lambda_1", "lambda_2"]
    text = printed("convert", multi_gpu_file, "out.weights.h5", "--ignore-lambda")
    assert "2 Lambda layers (lambda_1, lambda_2), ignored: their effect on the images is unknown" in text
    assert "all finite" in printed("inspect", "out.weights.h5")


def test_a_start_from_a_file_with_lambda_layers_says_so(multi_gpu_file):
    heard = []
    model = build_architecture("cbr_tiny", image_size=32)
    with pytest.raises(WeightsError, match="--ignore-lambda"):
        load_pretrained(find_weights(multi_gpu_file), backbone="cbr_tiny", model=model)
    load_pretrained(
        find_weights(multi_gpu_file), backbone="cbr_tiny", model=model, notify=heard.append, ignore_lambda=True
    )
    assert heard == [
        "gpus.h5 holds 2 Lambda layers (lambda_1, lambda_2), ignored: their effect on the images is unknown"
    ]


def spoilt(suffix):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    kernel, bias = model.get_weights()
    kernel[0, 0, 0, :3], kernel[1, 1, 1, 1], bias[2] = np.nan, np.inf, -np.inf
    model.set_weights([kernel, bias])
    (model.save_weights if suffix == "weights.h5" else model.save)(f"bad.{suffix}")
    return f"bad.{suffix}"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", ["keras", "h5", "weights.h5"])
def test_inspect_counts_values_that_are_not_finite_by_variable(suffix):
    path = spoilt(suffix)
    found = json.loads(printed("inspect", path, "--json"))["not_finite"]
    found = {item["variable"].rpartition("/")[2]: (item["nan"], item["infinite"]) for item in found}
    assert found == {"kernel": (3, 1), "bias": (0, 1)}
    assert "3 NaN and 2 infinite in 2 variables: conv/kernel (3 NaN, 1 infinite)" in printed("inspect", path)


def test_inspect_and_convert_of_other_forms_tell_values_that_are_not_finite(cbr_file):
    with h5py.File(cbr_file, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, :2] = np.nan
    error = run("convert", cbr_file, "out.weights.h5").exception
    assert isinstance(error, WeightsError) and "NaN or infinite values in 1 layers" in str(error)
    assert "2 NaN and 0 infinite" in printed("inspect", cbr_file)


@pytest.mark.parametrize("source", ["flat", "table.csv"])
def test_check_looks_at_images_without_labels(source, cbr_file, tmp_path):
    (tmp_path / "flat").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "flat" / f"{number}.png")
    (tmp_path / "table.csv").write_text("path\n" + "".join(f"flat/{number}.png\n" for number in range(8)))
    outcome = run("check", str(cbr_file), "--data", str(tmp_path / source), "--image-size", "32", "--json")
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["check"]["images"] == 8


def test_random_weights_are_in_no_file():
    error = run("inspect", "random").exception
    assert isinstance(error, WeightsError)
    assert str(error).startswith("random weights are not stored in a file. Expected")
