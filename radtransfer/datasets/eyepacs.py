"""Diabetic retinopathy, EyePACS: 35,126 graded fundus photographs, two eyes each (Kaggle 2015; its competition rules).

Kaggle's `diabetic-retinopathy-detection`, unpacked; the test labels were published later, in a post of its forum:

    trainLabels.csv (image,level)                       train/{10_left,10_right}.jpeg
    retinopathy_solution.csv (image,level,Usage)        test/{1_left,1_right}.jpeg       (only for split=official)

Classes: the grades 0 to 4. Referable is 2 or worse (moderate), so the reported AUC is of that (`--positive-from`
changes it); for the AUC of each grade, read the table as a CSV.

Patients: the number before `_left` and `_right`. Split: `split=drawn` (default) has the images of `train/` alone;
`split=official` validates on the public and tests on the private part of `test/`, 88,702 images in all. Transfusion
(Raghu et al. 2019) used RETINA, a larger set of the same kind that is not public.
"""

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import SPLIT, PublicSet, Row, read_columns, table_of_rows
from radtransfer.datasets.retinopathy import REFERABLE, check_grade, referable_note
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

EYEPACS = PublicSet(
    name="eyepacs",
    tree="""
trainLabels.csv                with the columns image,level
train/10_left.jpeg, train/10_right.jpeg, …
retinopathy_solution.csv       with the columns image,level,Usage   (only for split=official)
test/1_left.jpeg, …                                                 (only for split=official)
""",
    holds=("trainLabels.csv", "train"),
    options={"split": SPLIT},
)

_USAGE = {"Public": "val", "Private": "test"}


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or a table that holds something else.
        ConfigError: An option it does not have.
    """
    root, options = EYEPACS.open(settings, location)
    official = options["split"] == "official"
    graded = read_columns(root / "trainLabels.csv", "image", "level")
    rows = [_row("train", image, level, "train" if official else "") for image, level in graded]
    if official:
        solution = root / "retinopathy_solution.csv"
        if not solution.is_file():
            raise EYEPACS.error(root, "has no retinopathy_solution.csv, which split=official needs")
        for image, level, usage in read_columns(solution, "image", "level", "Usage"):
            if usage not in _USAGE:
                raise DataError(f"{solution}: Usage of {image} is {usage!r}; expected Public or Private.")
            rows.append(_row("test", image, level, _USAGE[usage]))
    notes = [f"{len({row.patient for row in rows})} patients by the image names", *referable_note(settings)]
    return table_of_rows(rows, root, settings, positive_from=REFERABLE, notes=notes)


def _row(folder: str, image: str, level: str, split: str) -> Row:
    patient, _, eye = image.rpartition("_")
    if not patient or eye not in ("left", "right"):
        raise DataError(f"eyepacs: expected an image such as 10_left, received {image!r}.")
    return Row(f"{folder}/{image}.jpeg", check_grade(level, image), patient, split)
