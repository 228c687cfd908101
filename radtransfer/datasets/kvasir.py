"""Endoscopy, Kvasir: 8 classes of 500 (v1) or 1,000 images (v2) (Pogorelov et al. 2017; for research and education).

`kvasir-dataset.zip` or `kvasir-dataset-v2.zip` of Simula:

    kvasir-dataset[-v2]/{dyed-lifted-polyps,dyed-resection-margins,esophagitis,normal-cecum,
                         normal-pylorus,normal-z-line,polyps,ulcerative-colitis}/<uuid>.jpg

Classes: the eight folders. Patients are not known, and frames of one examination may fall in both train and test.
Split: none.

References:
    Pogorelov et al. 2017, Kvasir: a multi-class image dataset for computer aided gastrointestinal disease detection.
"""

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import PublicSet, Row, class_folders, ignored_note, images_below, table_of_rows
from radtransfer.settings import DataSettings

CLASSES = (
    *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum"),
    *("normal-pylorus", "normal-z-line", "polyps", "ulcerative-colitis"),
)

KVASIR = PublicSet(
    name="kvasir",
    tree="\n".join(f"{name}/….jpg" for name in CLASSES),
    holds=CLASSES,
    inside=("kvasir-dataset", "kvasir-dataset-v2"),
)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree.
    """
    root, _ = KVASIR.open(settings, location)
    class_folders(KVASIR, root, CLASSES)
    rows, ignored = [], 0
    for label in CLASSES:
        images, others = images_below(root / label)
        rows += [Row(f"{label}/{image}", label) for image in images]
        ignored += others
    return table_of_rows(rows, root, settings, notes=ignored_note(ignored))
