"""Breast ultrasound, BUSI: 780 images of 600 women (Al-Dhabyani et al. 2020; CC0 at Kaggle).

Kaggle's `aryashah2k/breast-ultrasound-images-dataset`, or the authors' own archive:

    Dataset_BUSI_with_GT/benign/{benign (1).png, benign (1)_mask.png, benign (100)_mask_1.png, …}
    Dataset_BUSI_with_GT/{malignant,normal}/…

The three folders may also stand in a folder `images/`. Masks are skipped. Patients are not known: images of one woman
may fall in both train and test.

Classes: `normal=benign` (default) counts normal images as benign, as Juodelyte et al. 2023 and RadImageNet's breast
task do (570 benign, 210 malignant); `normal=class` keeps three classes; `normal=leave_out` drops the 133 normal images.

Split: none. The five folds of Juodelyte et al. are tables of their own, read with --data FOLDS --image-root FOLDER.

References:
    Al-Dhabyani, Gomaa, Khaled, Fahmy 2020, Dataset of breast ultrasound images, Data in Brief 28.
"""

import re

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import (
    Option,
    PublicSet,
    Row,
    class_folders,
    ignored_note,
    images_below,
    table_of_rows,
)
from radtransfer.settings import DataSettings

CLASSES = ("benign", "malignant", "normal")

BUSI = PublicSet(
    name="busi",
    tree="""
benign/benign (1).png, benign/benign (1)_mask.png, …
malignant/malignant (1).png, …
normal/normal (1).png, …
""",
    holds=CLASSES,
    inside=("Dataset_BUSI_with_GT", "images"),
    options={"normal": Option(("benign", "class", "leave_out"))},
)

_MASK = re.compile(r".*_mask(_\d+)?\.\w+", re.IGNORECASE)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,normal=benign|class|leave_out]`.

    Raises:
        DataError: Another tree.
        ConfigError: An option it does not have.
    """
    root, options = BUSI.open(settings, location)
    class_folders(BUSI, root, CLASSES)
    merge = options["normal"]
    rows, masks, ignored, normal = [], 0, 0, 0
    for folder in CLASSES:
        images, others = images_below(root / folder)
        ignored += others
        kept = [image for image in images if not _MASK.fullmatch(image)]
        masks += len(images) - len(kept)
        if folder == "normal":
            normal = len(kept)
            if merge == "leave_out":
                continue
        label = "benign" if folder == "normal" and merge == "benign" else folder
        rows += [Row(f"{folder}/{image}", label) for image in kept]
    said = {"benign": [f"{normal} normal images counted as benign"], "leave_out": [f"{normal} normal images left out"]}
    notes = said.get(merge, []) + ([f"masks skipped: {masks}"] if masks else []) + ignored_note(ignored)
    return table_of_rows(rows, root, settings, notes=notes)
