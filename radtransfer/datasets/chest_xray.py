"""Paediatric chest X-rays, normal or with pneumonia: 5,856 images (Kermany et al. 2018; CC BY 4.0).

Kaggle's `paultimothymooney/chest-xray-pneumonia`, or `chest_xray` of the original at Mendeley Data, which has no
`val` and other file names:

    chest_xray/{train,val,test}/NORMAL/{IM-0115-0001,NORMAL2-IM-1427-0001,NORMAL-28501-0001}.jpeg
    chest_xray/{train,val,test}/PNEUMONIA/{person1_bacteria_1,person1_virus_6,VIRUS-1980593-0001}.jpeg

Kaggle's archive holds everything a second time in `chest_xray/chest_xray`; that copy is not read.

Classes: NORMAL, PNEUMONIA (bacteria and virus together, as Juodelyte et al. 2023).

Patients: in the file names. Juodelyte et al. take `person1` and `0115` whatever stands beside them; so does
`split=drawn`. These are too few: `person1_bacteria` and `person1_virus`, `IM-0115` and `NORMAL2-IM-0115` are
numbered apart (taken together, 264 of the 2,790 would stand in both train and test of the official split, taken
apart none of 4,097), but merging two patients leaks nothing. `split=official` takes them apart.

Split: `split=drawn` (default) pools all three folders, as Juodelyte et al. do; `split=official` keeps them (`val` has
16 images). Do not flip these images.

References:
    Kermany, Zhang, Goldbaum 2018, Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images,
    doi:10.17632/rscbjbr9sj.
"""

import re

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import (
    SPLIT,
    PublicSet,
    Row,
    class_folders,
    ignored_note,
    images_below,
    table_of_rows,
)
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

CHEST_XRAY = PublicSet(
    name="chest_xray",
    tree="""
train/NORMAL/IM-0115-0001.jpeg …        train/PNEUMONIA/person1_bacteria_1.jpeg …
val/NORMAL/…                            val/PNEUMONIA/…                           (may be missing)
test/NORMAL/…                           test/PNEUMONIA/…
""",
    holds=("train", "test"),
    inside=("chest_xray",),
    options={"split": SPLIT},
)

CLASSES = ("NORMAL", "PNEUMONIA")

_NAME = re.compile(
    r"(?P<person>person\d+)_(?P<kind>bacteria|virus)_.+"
    r"|(?P<series>NORMAL2-)?IM-(?P<number>\d+)-.+"
    r"|(?P<original>(?:NORMAL|BACTERIA|VIRUS)-\d+)-.+"
)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or file names that do not tell the patient.
        ConfigError: An option it does not have.
    """
    root, options = CHEST_XRAY.open(settings, location)
    official = options["split"] == "official"
    named = settings.patient_regex is None
    rows, ignored = [], 0
    for split in filter(lambda name: (root / name).is_dir(), ("train", "val", "test")):
        class_folders(CHEST_XRAY, root / split, CLASSES)
        for label in CLASSES:
            images, others = images_below(root / split / label)
            ignored += others
            paths = [f"{split}/{label}/{image}" for image in images]
            rows += [_row(path, label, split if official else "", apart=official, named=named) for path in paths]
    notes = [f"{len({row.patient for row in rows})} patients by the file names"] if named else []
    return table_of_rows(rows, root, settings, notes=notes + ignored_note(ignored))


def patient_of(name: str, *, apart: bool) -> str | None:
    """The patient that a file name tells, None if it tells none.

    Args:
        name: Of the file.
        apart: Take series and kinds that number their patients apart as such.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    if match["person"]:
        return f"{match['person']}_{match['kind']}" if apart else match["person"]
    if match["number"]:
        return f"{match['series'] or ''}IM-{match['number']}" if apart else match["number"]
    return match["original"]


def _row(path: str, label: str, split: str, *, apart: bool, named: bool) -> Row:
    patient = patient_of(path.rpartition("/")[2], apart=apart)
    if patient is None and named:
        raise DataError(
            f"chest_xray: {path!r} does not tell its patient; expected a name such as "
            "person1_bacteria_1.jpeg or NORMAL2-IM-1427-0001.jpeg. Remove it, or give --patient-regex."
        )
    return Row(path, label, patient, split)
