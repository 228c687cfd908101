"""Skin lesions, HAM10000: the images of ISIC 2018 task 3, as Kaggle and the Harvard Dataverse give them (CC BY-NC 4.0).

Kaggle's `kmader/skin-cancer-mnist-ham10000`, whose second copies in lower-case folders are not read:

    HAM10000_metadata.csv (lesion_id,image_id,dx,…)
    HAM10000_images_part_1/ISIC_0024306.jpg …        HAM10000_images_part_2/…

Classes: `dx`, in the capitals of ISIC 2018 (AKIEC, BCC, BKL, DF, MEL, NV, VASC). Patients: the lesion. Split: none.

References:
    Tschandl, Rosendahl, Kittler 2018, The HAM10000 dataset, Scientific Data 5.
"""

from pathlib import Path

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.isic2018 import CLASSES
from radtransfer.datasets.public_set import PublicSet, Row, images_below, read_columns, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

HAM10000 = PublicSet(
    name="ham10000",
    tree="""
HAM10000_metadata.csv                      with the columns lesion_id,image_id,dx
HAM10000_images_part_1/ISIC_0024306.jpg …
HAM10000_images_part_2/ISIC_0029306.jpg …
""",
    holds=("HAM10000_metadata.csv", "HAM10000_images_part_1"),
)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree, or a diagnosis that the set does not have.
    """
    root, _ = HAM10000.open(settings, location)
    places = _places(root)
    rows = []
    for lesion, image, dx in read_columns(root / "HAM10000_metadata.csv", "lesion_id", "image_id", "dx"):
        if dx.upper() not in CLASSES:
            raise DataError(f"ham10000: dx of {image} is {dx!r}; expected one of {', '.join(CLASSES).lower()}.")
        path = places.get(image, f"HAM10000_images_part_1/{image}.jpg")
        rows.append(Row(path, dx.upper(), lesion))
    return table_of_rows(rows, root, settings, notes=[f"patients are lesions ({len({row.patient for row in rows})})"])


def _places(root: Path) -> dict[str, str]:
    """Image names to their paths in the two parts."""
    parts = [
        f"HAM10000_images_part_{number}" for number in (1, 2) if (root / f"HAM10000_images_part_{number}").is_dir()
    ]
    found = [(part, image) for part in parts for image in images_below(root / part)[0]]
    return {Path(image).stem: f"{part}/{image}" for part, image in found}
