"""The tasks of RadImageNet's authors, with their folds: knee, thyroid, breast, lung and head (Mei et al. 2022; MIT).

A folder of github.com/BMEII-AI/RadImageNet, whose tables stand in `dataframe/`; the images of most tasks have to be
brought from their public sets, under the names in the tables:

    acl/dataframe/{train,val,test}_fold1.csv …              filename,acl_label     images/0001_sagittal_11.000000.png
    meniscus/dataframe/meniscus_{train,val,test}_fold1.csv …  img_dir,label        the same
    thyroid/dataframe/thyroid_{train,val,test}_fold1.csv …    img_dir,label        images/22_1.jpg
    breast/dataframe/breast_{train,val,test}_fold1.csv …      filename,label       images/normal (99).png
    pneumonia/dataframe/{train,val,test}.csv                  filename,Target,label
    hemorrhage/dataframe/hemorrhage_{train,val}.csv           pid,label,dir
    covid19, sarscovid2/dataframe/…_{train,val,test}.csv      filename,label       images/Bozhou_P20-00_0131.png

Classes: as written (yes and no, n and p, benign and malignant, positive and negative; CP, NCP, Normal). Patients: the
column `pid`, else the beginning of the file name; breast has none. Split: theirs; hemorrhage has no test table, so its
validation images are the test set. Bone age is a regression and cannot be read.
"""

import re
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from radtransfer.datasets import fold_directory
from radtransfer.datasets.fold_directory import find_split_tables
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import PublicSet
from radtransfer.datasets.sheet import read_sheet
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

RADIMAGENET_TASK = PublicSet(
    name="radimagenet_task",
    tree="""
dataframe/train_fold1.csv, val_fold1.csv, test_fold1.csv …    (acl; or with a prefix: meniscus_, thyroid_, breast_)
dataframe/train.csv, val.csv, test.csv                        (pneumonia; or with a prefix: covid19_, hemorrhage_ …)
images/…
""",
    columns=("image_root",),
)

_PATHS, _LABELS = ("filename", "img_dir", "dir"), ("acl_label", "label")

PATIENTS = (
    r"(\d{4})_(?:sagittal|coronal|axial)_[\d.]+",  # MRNet: examination_plane_slice
    r"(\d+)_\d+",  # DDTI: examination_image
    r"([A-Za-z]+_[NP]\d+)-\d+_.+",  # COVID-19: hospital_patient-slice
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",  # RSNA pneumonia: an image per patient
)
"""Of file names without suffix; the first that fits all of them tells the patients."""


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of a task, in the folder `location`, or below `image_root`.

    Raises:
        DataError: Another tree, bone age, or tables that contradict themselves.
    """
    root, _ = RADIMAGENET_TASK.open(settings, location)
    folder = root / "dataframe" if (root / "dataframe").is_dir() else root
    tables = [table for table in find_split_tables(folder) if table.split == "train"]
    if not tables:
        raise RADIMAGENET_TASK.error(root, "has no table train_fold1.csv or train.csv, with or without a prefix")
    columns = read_sheet(tables[0].file).columns
    if "boneage" in columns:
        raise DataError(
            f"{tables[0].file} gives bone age in months, a regression; radtransfer classifies. "
            "Make a table of classes of it, and read that as a CSV."
        )
    path = next((name for name in _PATHS if name in columns), None)
    label = next((name for name in _LABELS if name in columns), None)
    if path is None or label is None:
        raise DataError(
            f"{tables[0].file}: expected a column {', '.join(_PATHS[:-1])} or {_PATHS[-1]}, and acl_label or label. "
            f"Columns: {', '.join(columns)}."
        )
    own = replace(
        settings,
        path_column=path,
        label_column=(label,),
        patient_column="pid" if "pid" in columns and settings.patient_regex is None else None,
        image_root=settings.image_root or str(folder.parent if folder.name == "dataframe" else folder),
    )
    table = fold_directory.read(own, str(folder))
    return _with_test(_with_patients(table, settings))


def _with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    if table.patients is not None or settings.patient_regex is not None:
        return table
    names = [PurePosixPath(path).name.rpartition(".")[0] for path in table.paths]
    for pattern in PATIENTS:
        matches = [re.fullmatch(pattern, name) for name in names]
        if all(matches):
            patients = tuple(match[1] for match in matches)
            note = f"{len(set(patients))} patients by the file names"
            return replace(table, patients=patients, notes=(*table.notes, note))
    return table


def _with_test(table: ImageTable) -> ImageTable:
    """Validation images become test images where there are none; validation is then drawn from train."""
    if (table.splits == "test").any():
        return table
    splits = np.where(table.splits == "val", "test", table.splits)
    return replace(table, splits=splits, notes=(*table.notes, "no test table: the validation images are the test set"))
