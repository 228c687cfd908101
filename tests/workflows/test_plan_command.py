import json

import keras
import numpy as np
import pytest
from PIL import Image


def test_the_table_says_what_each_stage_starts_from(radtransfer):
    outcome = radtransfer("plan", "cbr_tiny", "--freeze-to", "stage1", "--image-size", 32)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "random_features through stage1, batch norm identity"
    assert lines[1].split() == ["stage", "layers", "parameters", "starts", "from", "trains", "width"]
    assert lines[3].split() == ["stage1", "4", "51,456", "random", "no", "1"]
    assert lines[-1] == "1,024,768 of 1,079,520 backbone parameters train"


def test_batch_norm_is_named_only_where_a_stage_uses_it(radtransfer, finished_run):
    options = ("plan", "cbr_tiny", "--image-size", 24, "--weights", finished_run.path / "fold_1")
    whole = radtransfer(*options)
    assert whole.out.splitlines()[0] == "transfer"
    assert (
        radtransfer(*options, "--scheme", "transfusion", "--through", "stage1").out.splitlines()[0]
        == "transfusion through stage1, batch norm identity"
    )
    outcome = radtransfer(*options, "--bn-init", "mean_var")
    assert outcome.out.splitlines()[0] == "transfer"
    assert "--bn-init mean_var has no effect: every stage is pretrained" in outcome.err


def test_json_holds_the_plan_and_nothing_else_is_printed(radtransfer, finished_run):
    source = finished_run.path / "fold_1"
    options = ("--weights", source, "--scheme", "transfusion", "--through", "stage1", "--image-size", 24, "--json")
    outcome = radtransfer("plan", "cbr_tiny", *options)
    plan = json.loads(outcome.out)
    assert (plan["backbone"], plan["scheme"], plan["through"]) == ("cbr_tiny", "transfusion", "stage1")
    assert [part["starts_from"] for part in plan["stages"]] == ["pretrained", "pretrained", "random", "random"]
    assert plan["stages"][0]["layers"] == ["conv1", "bn1", "relu1", "pool1"]
    assert plan["total_parameters"] == 1_079_520


def test_without_a_network_the_schemes_are_listed(radtransfer):
    outcome = radtransfer("plan")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    where = lines[0].index("where")
    assert all(line[where - 2 : where] == "  " and line[where] != " " for line in lines)
    schemes = json.loads(radtransfer("plan", "--json").out)
    assert [scheme["scheme"] for scheme in schemes] == [line.split()[0] for line in lines[1:]]


def test_the_model_that_is_written_starts_as_finetune_starts(radtransfer, tmp_path):
    out = tmp_path / "start.keras"
    outcome = radtransfer("plan", "cbr_tiny", "--scheme", "gabor", "--image-size", 32, "--classes", 3, "--out", out)
    assert outcome.code == 0, outcome.err
    model = keras.models.load_model(out, safe_mode=True)
    filters = np.array(model.get_layer("conv1").kernel)
    np.testing.assert_array_equal(filters[:, :, 0], filters[:, :, 1])
    probabilities = model.predict(np.zeros((1, 32, 32, 3), np.float32), verbose=0)
    assert probabilities.sum() == pytest.approx(1)


def test_filters_are_drawn(radtransfer, tmp_path):
    outcome = radtransfer("plan", "cbr_tiny", "--image-size", 32, "--filters", tmp_path / "filters.png")
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "filters.png") as picture:
        assert picture.width == 1400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("resnet5",), "Did you mean 'resnet50'"),
        (("--scheme", "gabor", "--out", "start.keras"), "name one first"),
        (("cbr_tiny", "--out", "model.h5"), "ends in .keras. Received: model.h5"),
        (("cbr_tiny", "--filters", "filters.jpg"), "ends in .png, .svg, .pdf"),
        (("cbr_tiny", "--scheme", "transfusion"), "needs --through"),
    ],
)
def test_wrong_options_are_answered(radtransfer, options, message):
    outcome = radtransfer("plan", *options)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(("option", "name"), [("--out", "start.keras"), ("--filters", "filters.png")])
def test_a_place_that_cannot_be_written_is_named(radtransfer, tmp_path, option, name):
    (tmp_path / "file").touch()
    outcome = radtransfer("plan", "cbr_tiny", "--image-size", 32, option, tmp_path / "file" / name)
    assert outcome.code == 2
    assert f"Cannot write {tmp_path / 'file' / name}" in outcome.err


def test_a_plan_that_trains_almost_nothing_warns(radtransfer, shared_data):
    weights = shared_data / "weights" / "inception_v3_imagenet_8bit_notop.h5"
    options = ("--weights", weights, "--scheme", "unfreezetop10", "--image-size", 75)
    outcome = radtransfer("plan", "inception_v3", *options)
    assert "trains only 192 of 21,802,784 backbone parameters" in outcome.err
