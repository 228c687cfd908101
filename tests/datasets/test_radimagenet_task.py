"""The folds of RadImageNet's authors, in their many columns."""

import pytest

from radtransfer.config.schema import SplitSettings
from radtransfer.data.splits import assign_folds
from radtransfer.errors import DataError


def tables(header, lines, *, prefix="", folds=(1, 2)):
    """The tables of a task: line i of a fold is in train, val or test by turns."""
    text = {}
    for fold in folds:
        for k, split in enumerate(("train", "val", "test")):
            rows = [line for i, line in enumerate(lines) if (i // 2 + fold) % 3 == k]
            name = f"{prefix}{split}_fold{fold}.csv" if fold else f"{prefix}{split}.csv"
            text[f"dataframe/{name}"] = "\n".join([header, *rows, ""])
    return text


ACL = [f"images/{i // 2:04d}_sagittal_{i}.000000.png,{'yes' if i // 2 % 2 else 'no'}" for i in range(24)]


def test_acl_has_folds_and_the_examination_is_the_patient(tree, read):
    root = tree(*(line.split(",")[0] for line in ACL), text=tables("filename,acl_label", ACL))
    table = read(f"radimagenet_task:{root}")
    assert table.splits.shape == (2, 24) and table.classes == ("no", "yes")
    assert table.files[0] == root / table.paths[0]
    assert dict(zip(table.paths, table.patients, strict=True))["images/0003_sagittal_7.000000.png"] == "0003"
    assert "12 patients by the file names" in table.notes
    assert len(assign_folds(table, SplitSettings(), seed=0, allow_leakage=False)) == 2
    assert read(f"radimagenet_task:{root / 'dataframe'}").files == table.files


@pytest.mark.parametrize(
    ("prefix", "header", "path", "labels", "patient"),
    [
        ("meniscus_", "img_dir,label", "images/{:04d}_sagittal_9.000000.png", "np", "0007"),
        ("thyroid_", "img_dir,label", "images/{}_1.jpg", ("benign", "malignant"), "7"),
        ("breast_", "filename,label", "images/normal ({}).png", ("benign", "malignant"), None),
        ("covid19_", "filename,label", "images/WCH_N{}-05_IM-0007-0127-0001.png", ("negative", "positive"), "WCH_N7"),
        ("", "filename,label", "images/0100515c-5204-4f31-98e0-{:012d}.png", ("no", "yes"), None),
    ],
)
def test_other_tasks_are_read_by_their_columns(tree, read, prefix, header, path, labels, patient):
    lines = [f"{path.format(i)},{labels[i % 2]}" for i in range(12)]
    table = read(f"radimagenet_task:{tree(text=tables(header, lines, prefix=prefix))}")
    assert table.classes == tuple(labels) and len(table) == 12
    if patient is None:
        assert len(set(table.groups)) == 12
    else:
        assert dict(zip(table.paths, table.patients, strict=True))[path.format(7)] == patient


def test_two_paths_two_labels_and_an_index_are_told_apart(tree, read):
    lines = [f"{i},CP/{i}/0.png,CP_{i},{('CP', 'NCP')[i % 2]},images/CP/{i}/0.png" for i in range(12)]
    images = [f"images/CP/{i}/0.png" for i in range(12)]
    root = tree(*images, text=tables(",imgpath,pid,label,filename", lines, prefix="sarscovid2_", folds=(0,)))
    table = read(f"radimagenet_task:{root}")
    assert set(table.paths) == set(images) and None not in table.files
    assert "CP_7" in table.patients and table.splits.shape == (1, 12)
    lines = [f"{i},images/0100515c-5204-4f31-98e0-{i:012d}.png,{i % 2},{('no', 'yes')[i % 2]}" for i in range(12)]
    root = tree(text=tables(",filename,Target,label", lines, folds=(0,)), folder="pneumonia")
    assert read(f"radimagenet_task:{root}").classes == ("no", "yes")


def test_hemorrhage_has_no_test_table(tree, read):
    lines = [f"ID_{i // 2},{('no', 'yes')[i // 2 % 2]},images/ID_{i}.png" for i in range(24)]
    text = tables("pid,label,dir", lines, prefix="hemorrhage_", folds=(0,))
    text.pop("dataframe/hemorrhage_test.csv")
    table = read(f"radimagenet_task:{tree(text=text)}")
    assert set(table.splits[0].tolist()) == {"train", "test"} and table.patients[0].startswith("ID_")
    assert "no test table: the validation images are the test set" in table.notes


def test_images_are_found_below_the_image_root(tree, read):
    elsewhere = tree("benign/benign (1).png", folder="busi")
    lines = [f"images/benign ({i}).png,{('benign', 'malignant')[i % 2]}" for i in range(12)]
    root = tree(text=tables("filename,label", lines, prefix="breast_"))
    table = read(f"radimagenet_task:{root}", image_root=str(elsewhere))
    assert [file for file in table.files if file] == [elsewhere / "benign" / "benign (1).png"]


def test_patient_regex_goes_before_the_file_names(tree, read):
    root = tree(text=tables("filename,acl_label", ACL))
    assert read(f"radimagenet_task:{root}", patient_regex=r"images/(\d\d\d)").patients[0] in ("000", "001")


@pytest.mark.parametrize("place", ["", "dataframe/"])
def test_bone_age_is_a_regression(tree, read, place):
    text = {
        f"{place}boneage_{split}.csv": "id,boneage,male,img_dir\n1,138,True,x/1.png\n" for split in ("train", "val")
    }
    with pytest.raises(DataError, match=r"boneage_train\.csv has bone age in months, a regression"):
        read(f"radimagenet_task:{tree(text=text)}")


def test_another_folder_is_an_error(tree, read):
    root = tree(text={"acl/dataframe/train_fold1.csv": "filename,acl_label\n", "README.md": ""})
    with pytest.raises(DataError, match=r"has no table train_fold1\.csv.*(?s:.)*Found: README\.md, acl/\."):
        read(f"radimagenet_task:{root}")
    root = tree(text=tables("file,acl_label", ["a.png,no"], folds=(0,)), folder="other")
    (root / "dataframe" / "train.csv").write_text("file,acl_label\na.png,no\n")
    with pytest.raises(DataError, match="expected a column filename, img_dir or dir, and acl_label or label"):
        read(f"radimagenet_task:{root}")
