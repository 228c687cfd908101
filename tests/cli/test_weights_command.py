"""radtransfer weights."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from radtransfer.backbones.architecture import build_architecture
from radtransfer.cli.weights import weights
from radtransfer.errors import WeightsError, WeightsNotFoundError
from radtransfer.pretrained.manifest import weights_cards


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
    assert all(name in text for name in weights_cards())
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
    import keras

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
    assert str(error).startswith("random weights are in no file. Expected")
