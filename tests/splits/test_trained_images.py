import shutil

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import training_overlap


@pytest.fixture
def source(tmp_path):
    """Six images of six patients, a table of them, and a run of one fold: two test, the others train or validate."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    root.mkdir()
    lines, folds = ["path,label,patient"], ["path,label,patient,fold,split"]
    for number, split in enumerate(("train", "train", "train", "val", "test", "test")):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(root / f"{number}.png")
        label = ("well", "sick")[number % 2]
        lines.append(f"{number}.png,{label},p{number}")
        folds.append(f"{number}.png,{label},p{number},1,{split}")
    (root / "images.csv").write_text("\n".join(lines))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "folds.csv").write_text("\n".join(folds))
    return tmp_path


def look(source, table, data=None):
    data = data or DataSettings(source=str(source / "images" / "images.csv"))
    return training_overlap(read_table(DataSettings(source=str(table))), source / "run", [1], data)


def test_images_that_trained_or_validated_are_found_and_test_images_are_not(source):
    found = look(source, source / "images" / "images.csv")
    assert found.images == (0, 1, 2, 3)
    assert found.roles == ("trained", "trained", "trained", "validated")
    assert list(found.patients) == ["p0", "p1", "p2", "p3"]
    assert found.compared


def test_a_copy_by_another_name_is_found_by_its_bytes(source):
    other = source / "other"
    (other / "well").mkdir(parents=True)
    (other / "sick").mkdir()
    shutil.copy(source / "images" / "1.png", other / "well" / "renamed.png")
    shutil.copy(source / "images" / "5.png", other / "sick" / "tested.png")
    found = look(source, other)
    assert [read_table(DataSettings(source=str(other))).paths[row] for row in found.images] == ["well/renamed.png"]
    assert (found.roles, found.patients) == (("trained",), {})


def test_other_folds_do_not_count(source):
    table = read_table(DataSettings(source=str(source / "images" / "images.csv")))
    data = DataSettings(source=str(source / "images" / "images.csv"))
    assert training_overlap(table, source / "run", [2], data).images == ()


def test_an_image_that_folds_used_differently_says_both(source):
    with (source / "run" / "folds.csv").open("a") as handle:
        handle.write("\n0.png,well,p0,2,val\n4.png,well,p4,2,val")
    table = read_table(DataSettings(source=str(source / "images" / "images.csv")))
    found = training_overlap(table, source / "run", [1, 2], DataSettings(source=str(source / "images" / "images.csv")))
    assert found.images == (0, 1, 2, 3, 4)
    assert found.roles == ("trained;validated", "trained", "trained", "validated", "validated")


def test_where_the_runs_images_are_gone_paths_are_compared(source):
    shutil.copytree(source / "images", source / "moved")
    found = look(source, source / "moved" / "images.csv", DataSettings(source=str(source / "nowhere.csv")))
    assert found.images == (0, 1, 2, 3)
    assert found.roles[3] == "validated"
    assert not found.compared


def test_missing_patients_are_never_the_same_person_in_two_data_sets(source):
    other = source / "other"
    other.mkdir()
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(other / name)
    (other / "images.csv").write_text("path,label,patient\na.png,well,NA\nb.png,sick,unknown\nc.png,sick,p9\n")
    whose = read_table(DataSettings(source=str(other / "images.csv"))).patients
    with (source / "run" / "folds.csv").open("a") as handle:
        handle.writelines(f"\nelsewhere/{name},well,{who},1,train" for name, who in zip("abc", whose, strict=True))
    assert look(source, other / "images.csv").patients == {"p9": "p9"}


def test_a_patient_who_is_spelt_otherwise_is_found_and_named_as_there(source):
    other = source / "other.csv"
    other.write_text("path,label,patient\nimages/4.png,well, P00\nimages/5.png,sick,P05\n")
    found = look(source, other)
    assert (found.images, dict(found.patients)) == ((), {"P00": "p0"})
    allowed = read_table(DataSettings(source=str(other), allow_alike_patients=True))
    data = DataSettings(source=str(source / "images" / "images.csv"))
    assert dict(training_overlap(allowed, source / "run", [1], data).patients) == {}
