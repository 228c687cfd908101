"""What `--weights` means, and what is said when it means nothing."""

import json
from pathlib import Path

import pytest

from radtransfer.errors import WeightsError, WeightsMismatchError, WeightsNotFoundError
from radtransfer.pretrained.source import find_weights, found_files


@pytest.fixture(autouse=True)
def _an_empty_machine(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("RADTRANSFER_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def make_run(folder: Path, *, folds: tuple[int, ...] = (1,), **record) -> Path:
    folder.mkdir(parents=True)
    record = {"status": "finished", "backbone": "cbr_tiny", "preprocessing": "unit"} | record
    (folder / "run.json").write_text(json.dumps(record))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir()
        for name in ("metrics.json", "model.keras", "initial.weights.h5"):
            (folder / f"fold_{fold}" / name).touch()
    return folder


def refusal(weights, error=WeightsError, **options) -> str:
    with pytest.raises(error) as caught:
        find_weights(str(weights), **options)
    return str(caught.value)


def test_a_file_is_itself_and_its_preprocessing_is_the_backbones(tmp_path):
    (tmp_path / "mine.h5").touch()
    source = find_weights(str(tmp_path / "mine.h5"))
    assert source.file == tmp_path / "mine.h5"
    assert source.preprocessing_for("resnet50") == ("caffe", "assumed")


def test_a_known_file_has_the_preprocessing_of_its_card(tmp_path):
    (tmp_path / "RadImageNet-ResNet50_notop.h5").touch()
    source = find_weights(str(tmp_path / "RadImageNet-ResNet50_notop.h5"))
    assert source.preprocessing_for("resnet50") == ("caffe_unit", "card")


def test_a_known_name_on_another_network_loses_its_card(tmp_path):
    (tmp_path / "RadImageNet-ResNet50_notop.h5").touch()
    source = find_weights(str(tmp_path / "RadImageNet-ResNet50_notop.h5"))
    assert source.preprocessing_for("densenet121") == ("torch", "assumed")
    assert find_weights(source.given, backbone="densenet121").file == source.file


@pytest.mark.parametrize("inner", ["", "RadImageNet_models"])
@pytest.mark.parametrize("spelling", ["_", "-"])
def test_a_known_name_is_found_in_the_folder_of_the_environment_variable(inner, spelling, tmp_path, monkeypatch):
    folder = tmp_path / "models" / inner
    folder.mkdir(parents=True)
    (folder / f"RadImageNet-DenseNet121{spelling}notop.h5").touch()
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "models"))
    assert find_weights("radimagenet-densenet121").file.parent == folder
    assert find_weights("radimagenet", backbone="densenet121").file.parent == folder
    assert list(found_files()) == ["radimagenet-densenet121"]


def test_a_bare_file_name_is_looked_up_in_the_folder_of_the_environment_variable(tmp_path, monkeypatch):
    (tmp_path / "mine.h5").touch()
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    assert find_weights("mine.h5").file == tmp_path / "mine.h5"


def test_missing_radimagenet_weights_say_where_to_get_them():
    text = refusal("radimagenet-resnet50", WeightsNotFoundError)
    assert "not bundled" in text
    assert "https://github.com/BMEII-AI/RadImageNet" in text
    assert "RADTRANSFER_WEIGHTS" in text


def test_missing_weights_name_the_folder_that_was_searched_in_full(tmp_path):
    assert f"_notop.h5 in {tmp_path / 'here'}. They are not bundled" in refusal(
        "radimagenet-resnet50", WeightsNotFoundError
    )


def test_a_missing_radimagenet_file_says_where_to_get_it():
    assert "not bundled" in refusal("models/RadImageNet-IRV2_notop.h5", WeightsNotFoundError)


@pytest.mark.parametrize("wrong", ["ResNet50-notop.h5", "resnet50_Notop.h5", "ResNet5_notop.h5"])
def test_a_missing_file_suggests_its_sibling(wrong, tmp_path):
    (tmp_path / "RadImageNet-ResNet50_notop.h5").touch()
    wrong = f"RadImageNet-{wrong}"
    assert "Found RadImageNet-ResNet50_notop.h5 in the same folder; did you mean that?" in refusal(tmp_path / wrong)


def test_a_missing_bare_name_suggests_a_file_of_the_search_folder(tmp_path, monkeypatch):
    (tmp_path / "RadImageNet-ResNet50_notop.h5").touch()
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    assert f"Found {tmp_path}/RadImageNet-ResNet50_notop.h5" in refusal("RadImageNet-ResNet50-notop.h5")


def test_a_missing_folder_is_named():
    assert "The folder nowhere does not exist" in refusal("nowhere/x.h5", WeightsNotFoundError)


def test_an_unknown_name_gives_the_closest():
    assert "Did you mean 'radimagenet-resnet50'" in refusal("radimagnet-resnet50", WeightsNotFoundError)


def test_a_known_name_for_another_backbone_says_which(tmp_path):
    with pytest.raises(WeightsMismatchError, match="is for resnet50; --backbone is cbr_tiny. Use --backbone resnet50"):
        find_weights("imagenet-resnet50", backbone="cbr_tiny")


def test_keras_own_weights_stand_in_its_cache(tmp_path):
    assert find_weights("imagenet", backbone="resnet50").file.parent == tmp_path / "keras" / "models"


@pytest.mark.parametrize("part", ["", "fold_1"])
def test_a_run_gives_its_model_and_its_preprocessing(part, tmp_path):
    run = make_run(tmp_path / "run")
    source = find_weights(str(run / part))
    assert source.file == run / "fold_1" / "model.keras"
    assert source.preprocessing_for("cbr_tiny") == ("unit", "run")


@pytest.mark.parametrize("name", ["initial.weights.h5", "model.keras"])
def test_a_file_of_a_run_has_the_runs_preprocessing(name, tmp_path):
    run = make_run(tmp_path / "run", status="running")
    assert find_weights(str(run / "fold_1" / name)).preprocessing_for("cbr_tiny") == ("unit", "run")


def test_a_run_of_another_backbone_says_which(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(WeightsMismatchError, match="is for cbr_tiny; --backbone is resnet50"):
        find_weights(str(run), backbone="resnet50")


def test_a_run_of_several_folds_lists_them(tmp_path):
    run = make_run(tmp_path / "run", folds=(1, 2))
    assert f"has 2 finished folds. Pass one of: {run}/fold_1, {run}/fold_2" in refusal(run)
    assert find_weights(str(run / "fold_2")).file == run / "fold_2" / "model.keras"


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_refused(status, tmp_path):
    assert f"is not finished (status: {status})" in refusal(make_run(tmp_path / "run", status=status))


def test_a_finished_fold_of_an_unfinished_run_can_be_named(tmp_path):
    run = make_run(tmp_path / "run", status="failed")
    assert find_weights(str(run / "fold_1")).file == run / "fold_1" / "model.keras"


def test_a_fold_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    run = make_run(tmp_path / "run", folds=(1, 2))
    assert f"no finished fold {run}/fold_7" in refusal(run / "fold_7")


def test_a_folder_of_weight_files_says_which_it_holds(tmp_path):
    (tmp_path / "a.h5").touch()
    assert "is a folder, not a run. It holds a.h5" in refusal(tmp_path)


def test_a_folder_without_weights_is_no_run(tmp_path):
    assert "expected a run.json in it" in refusal(tmp_path / "here")


def test_a_savedmodel_folder_is_to_be_converted(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    assert "radtransfer weights convert" in refusal(tmp_path)
