"""Chest X-rays, CheXpert: 223,648 images of 64,740 patients (Irvin et al. 2019; Stanford's research use agreement).

`CheXpert-v1.0-small`, or the full `CheXpert-v1.0`:

    train.csv, valid.csv       (Path,Sex,Age,Frontal/Lateral,AP/PA and 14 observations)
    train/patient00001/study1/view1_frontal.jpg …        valid/patient64541/study1/view1_frontal.jpg …

Labels: the five of the competition, as in Transfusion (Raghu et al. 2019); --label-column names others of the 14. 1 is
present, 0 absent, -1 uncertain (--uncertain), empty not mentioned (--unmentioned).

Patients: in the path. Split: `split=official` (default) tests on `valid.csv`, whose 234 images three radiologists
labelled, and draws the validation images from train by patient; its AUCs have wide intervals. `split=drawn` pools
both for drawn folds. Images: `view=all` (default), `frontal` or `lateral`. Do not flip them.

References:
    Irvin et al. 2019, CheXpert, arXiv 1901.07031.
"""

import re
from pathlib import Path

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import Option, PublicSet, Row, read_columns, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""Of the competition."""

CHEXPERT = PublicSet(
    name="chexpert",
    tree="""
train.csv, valid.csv       with the columns Path, Frontal/Lateral and the 14 observations
train/patient00001/study1/view1_frontal.jpg …
valid/patient64541/study1/view1_frontal.jpg …
""",
    holds=("train.csv", "valid.csv"),
    inside=("CheXpert-v1.0-small", "CheXpert-v1.0"),
    options={"split": Option(("official", "drawn")), "view": Option(("all", "frontal", "lateral"))},
    columns=("label_column",),
)

_PATH = re.compile(r"(?:.*/)?(?P<path>(?:train|valid)/(?P<patient>patient\d+)/.+)")


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=official|drawn][,view=all|frontal|lateral]`.

    Raises:
        DataError: Another tree, or a table that holds something else.
        ConfigError: An option it does not have.
    """
    root, options = CHEXPERT.open(settings, location)
    labels = settings.label_column or LABELS
    official, view = options["split"] == "official", options["view"]
    rows, left = [], 0
    for name, split in (("train.csv", "train"), ("valid.csv", "test")):
        file = root / name
        for path, side, *cells in read_columns(file, "Path", "Frontal/Lateral", labels=labels):
            if view in ("all", side.lower()):
                rows.append(_row(file, path, tuple(cells), split if official else ""))
            else:
                left += 1
    notes = [f"{len({row.patient for row in rows})} patients by the paths", f"labels: {', '.join(labels)}"]
    if left:
        notes.append(f"{left} images that are not {view} left out")
    if official:
        notes.append("valid.csv is the test set")
    return table_of_rows(rows, root, settings, labels=labels, notes=notes)


def _row(file: Path, path: str, cells: tuple[str, ...], split: str) -> Row:
    match = _PATH.fullmatch(path)
    if match is None:
        raise DataError(f"{file}: expected a Path such as train/patient00001/study1/view1_frontal.jpg, got {path!r}.")
    return Row(match["path"], cells, match["patient"], split)
