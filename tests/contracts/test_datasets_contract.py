"""Every reader of a public set says what it expects, and refuses what it would have to ignore."""

import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.public import PublicSet
from radtransfer.data.readers import DATASETS, read_table
from radtransfer.errors import DataError, UnknownNameError

SETS = {name: DATASETS[name] for name in DATASETS if isinstance(DATASETS[name], PublicSet)}


def read(name, location, **settings):
    return read_table(DataSettings(source=f"{name}:{location}", **settings))


def test_there_are_public_sets():
    assert {"busi", "chexpert", "pcam"} <= set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_the_name_is_that_of_the_table(name):
    assert SETS[name].name == name


@pytest.mark.parametrize("name", SETS)
def test_it_says_classes_patients_and_split(name):
    text = SETS[name].about
    assert all(word in text for word in ("Patients", "Split:")), text
    assert "Classes:" in text or "Labels:" in text
    assert all(f"`{option}=" in text for option in SETS[name].options)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_folder_gets_the_expected_tree_and_what_was_found(name, tmp_path):
    with pytest.raises(DataError) as caught:
        read(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: {tmp_path} has ")
    assert message.endswith("\nFound: nothing.")
    assert all(line in message for line in SETS[name].tree.strip().splitlines())


@pytest.mark.parametrize("name", SETS)
def test_a_folder_that_is_not_there_is_an_error(name, tmp_path):
    with pytest.raises(DataError, match=f"{name}: .*nowhere is not a folder. Expected:"):
        read(name, tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{name}: no folder given"):
        read_table(DataSettings(source=name))


@pytest.mark.parametrize("name", SETS)
def test_an_unknown_option_is_an_error(name, tmp_path):
    with pytest.raises(UnknownNameError, match=f"option of {name}"):
        read(name, f"{tmp_path},colour=red")


@pytest.mark.parametrize("name", SETS)
def test_columns_that_make_no_sense_are_refused(name, tmp_path):
    for setting in {"path_column", "label_column", "patient_column", "image_root"} - set(SETS[name].columns):
        value = ("x",) if setting == "label_column" else "x"
        with pytest.raises(DataError, match=f"--{setting.replace('_', '-')} does not apply to {name}"):
            read(name, tmp_path, **{setting: value})
