"""Skin lesions, ISIC 2018 task 3: 10,015 dermoscopic images of 7 diagnoses (HAM10000; CC BY-NC 4.0).

The archives of challenge.isic-archive.com, unpacked into one folder; each table stands in a folder of its name or
beside it:

    ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
    ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv   (image,MEL,NV,BCC,AKIEC,BKL,DF,VASC)
    ISIC2018_Task3_Training_LesionGroupings.csv                                   (image,lesion_id,…; may be missing)
    ISIC2018_Task3_{Validation,Test}_{Input,GroundTruth}/…                        (only for split=official)

Classes: the seven columns, of which one is 1. Patients: the lesion, where its table is there; several images of one
lesion are common (10,015 of 7,470). Without it, as in the folds of Juodelyte et al. 2023, they leak.

Split: `split=drawn` (default) has the training images alone, as Juodelyte et al.; `split=official` validates on 193 and
tests on 1,512 more.

References:
    Tschandl, Rosendahl, Kittler 2018, The HAM10000 dataset, Scientific Data 5.
    Codella et al. 2019, arXiv 1902.03368.
"""

from pathlib import Path

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import plain
from radtransfer.datasets.public_set import SPLIT, PublicSet, Row, read_columns, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

ISIC2018 = PublicSet(
    name="isic2018",
    tree="""
ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
ISIC2018_Task3_Training_LesionGroupings.csv                  (may be missing)
ISIC2018_Task3_Validation_Input/… and _GroundTruth/…         (only for split=official)
ISIC2018_Task3_Test_Input/… and _GroundTruth/…               (only for split=official)
""",
    holds=("ISIC2018_Task3_Training_Input",),
    options={"split": SPLIT},
)

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")

_PARTS = {"Training": "train", "Validation": "val", "Test": "test"}


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or an image that has no diagnosis or several.
        ConfigError: An option it does not have.
    """
    root, options = ISIC2018.open(settings, location)
    official = options["split"] == "official"
    lesions, notes = _lesions(root)
    rows, without = [], 0
    for part, split in _PARTS.items() if official else [("Training", "")]:
        truth = _find_table(root, f"ISIC2018_Task3_{part}_GroundTruth")
        if truth is None:
            raise ISIC2018.error(root, f"has no ISIC2018_Task3_{part}_GroundTruth.csv")
        for image, *cells in read_columns(truth, "image", *CLASSES):
            lesion = None if lesions is None else lesions.get(image, image)
            without += lesions is not None and part == "Training" and image not in lesions
            rows.append(Row(f"ISIC2018_Task3_{part}_Input/{image}.jpg", diagnosis(image, cells), lesion, split))
    if without:
        notes.append(f"{without} training images have no lesion in the table and count as lesions of their own")
    return table_of_rows(rows, root, settings, notes=notes)


def diagnosis(image: str, cells: list[str]) -> str:
    """The class whose cell is 1.

    Raises:
        DataError: None is, or several are.
    """
    found = [name for name, cell in zip(CLASSES, cells, strict=True) if plain(cell) == "1"]
    if len(found) != 1:
        raise DataError(f"isic2018: {image} has {len(found)} diagnoses ({', '.join(cells)}); expected one 1.0.")
    return found[0]


def _find_table(root: Path, name: str) -> Path | None:
    places = (root / f"{name}.csv", root / name / f"{name}.csv")
    return next((file for file in places if file.is_file()), None)


def _lesions(root: Path) -> tuple[dict[str, str] | None, list[str]]:
    file = _find_table(root, "ISIC2018_Task3_Training_LesionGroupings")
    if file is None:
        return None, ["no ISIC2018_Task3_Training_LesionGroupings.csv, so images of one lesion are not kept together"]
    lesions = dict(read_columns(file, "image", "lesion_id"))
    return lesions, [f"patients are lesions ({len(set(lesions.values()))})"]
