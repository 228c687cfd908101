"""Diabetic retinopathy, APTOS 2019: 3,662 graded fundus photographs (Aravind Eye Hospital; Kaggle competition rules).

Kaggle's `aptos2019-blindness-detection`, unpacked; its test images have no public labels and are not read:

    train.csv (id_code,diagnosis)        train_images/000c1434d8d7.png

Classes: the grades 0 to 4. Referable is 2 or worse (moderate), so the reported AUC is of that (`--positive-from`
changes it); for the AUC of each grade, read the table as a CSV.

Patients are not known. Split: none.
"""

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import PublicSet, Row, read_columns, table_of_rows
from radtransfer.datasets.retinopathy import REFERABLE, check_grade, referable_note
from radtransfer.settings import DataSettings

APTOS2019 = PublicSet(
    name="aptos2019",
    tree="""
train.csv                      with the columns id_code,diagnosis
train_images/000c1434d8d7.png, …
""",
    holds=("train.csv", "train_images"),
)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree, or a table that holds something else.
    """
    root, _ = APTOS2019.open(settings, location)
    graded = read_columns(root / "train.csv", "id_code", "diagnosis")
    rows = [Row(f"train_images/{image}.png", check_grade(grade, image)) for image, grade in graded]
    return table_of_rows(rows, root, settings, positive_from=REFERABLE, notes=referable_note(settings))
