import os

import numpy as np
import pytest

from radtransfer.config.load import load_config
from radtransfer.data.table import ImageTable
from radtransfer.training.address import address, run_identity, table_fingerprint


def table(**changes):
    values = {
        "paths": ("a.png", "b.png"),
        "files": (None, None),
        "targets": np.eye(2, dtype=np.float32),
        "classes": ("sick", "well"),
        "task": "multiclass",
        "patients": ("p1", "p2"),
    }
    return ImageTable(**values | changes)


def of(*sets, source=None, rows="t"):
    return address(run_identity(load_config(sets=sets), table=rows, source=source))


def test_equal_settings_have_one_address_however_they_are_written(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("training: {learning_rate: 1e-4, epochs: 3}\nmodel.backbone: cbr_tiny\n")
    written = address(run_identity(load_config(str(path)), table="t"))
    assert written == of("model.backbone=cbr_tiny", "training.epochs=3", "training.learning_rate=0.0001")


@pytest.mark.parametrize("free", ["out=x", "track=mlflow", "system.workers=1", "system.cache=ram"])
def test_what_changes_no_number_changes_no_address(free):
    assert of(free) == of()


def test_the_name_of_a_recipe_is_not_part_of_it_but_what_it_sets_is():
    from radtransfer.config.recipes import RECIPES

    assert of("recipe=juodelyte") != of()
    written = [f"{name}={value}" for name, value in RECIPES["juodelyte"].items()]
    assert of("recipe=juodelyte") == of(*written)


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "training.learning_rate=1.00001e-4",
        "splits.train_size=100",
        "transfer.freeze_to=stem",
        "data.source=x",
    ],
)
def test_one_changed_value_changes_the_address(change):
    assert of(change) != of()


def test_the_table_and_the_source_run_are_part_of_it():
    assert of(rows="other") != of()
    assert len({of(), of(source="a"), of(source="b")}) == 3
    weights = [of(f"model.weights={name}", source="a") for name in ("runs/x", "runs/y")]
    assert weights[0] == weights[1]  # the run counts, not where it lies


def test_weights_count_by_content_and_not_by_name(tmp_path):
    for name, content in (("one.h5", b"weights"), ("two.h5", b"weights"), ("three.h5", b"weight5")):
        (tmp_path / name).write_bytes(content)
    one, two, three = (of(f"model.weights={tmp_path / name}.h5") for name in ("one", "two", "three"))
    assert one == two != three
    (tmp_path / "one.h5").write_bytes(b"weight6")
    os.utime(tmp_path / "one.h5", ns=(1, 1))
    assert of(f"model.weights={tmp_path / 'one'}.h5") != two


def test_keras_own_weights_count_by_name_downloaded_or_not(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    before = of("model.weights=imagenet")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"weights")
    assert of("model.weights=imagenet") == before


def test_a_table_is_known_by_paths_labels_patients_and_splits():
    same = table_fingerprint(table())
    assert table_fingerprint(table(notes=("something",))) == same
    for changed in (
        table(paths=("a.png", "c.png")),
        table(targets=np.eye(2, dtype=np.float32)[::-1]),
        table(patients=("p1", "p1")),
        table(classes=("ill", "well")),
        table(splits=np.array([["train", "test"]])),
    ):
        assert table_fingerprint(changed) != same


def test_settings_that_earlier_versions_lacked_leave_their_addresses_as_they_were():
    added = "split_column fold_column label_separator missing_values missing_patients allow_alike_patients"
    known = run_identity(load_config(), table="t")
    assert not {f"data.{name}" for name in ("positive_class", *added.split())} & set(known)
    assert run_identity(load_config(sets=("data.positive_class=1",)), table="t")["data.positive_class"] == "1"
