"""TFDS data sets whose features say more than their types do; to add one, add an entry to `KNOWN_SETS`."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class KnownSet:
    """What cannot be told from the features of a set.

    Attributes:
        name: The feature that names an image.
        patient: Regular expression whose first group in that name is the patient; None where it is not known.
        findings: What each place of a sequence of labels stands for.
        usual: Those that are read where none are named.
        meanings: What each class of such a label means, in the words of a multi-label table: 1, 0, -1 or nothing.
        tree: What is to be put into TFDS's manual folder, a line per entry.
        advice: What else preparing it needs, a sentence.
    """

    name: str
    patient: str | None = None
    findings: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    tree: tuple[str, ...] = ()
    advice: str = ""


KNOWN_SETS = {
    "diabetic_retinopathy_detection": KnownSet(
        name="name",
        patient=r"^(\d+)_(?:left|right)",
        tree=(
            "train/10_left.jpeg, train/10_right.jpeg, …  (from train.zip)",
            "test/1_left.jpeg, test/1_right.jpeg, …  (from test.zip)",
            "sample/10_left.jpeg, …  (from sample.zip)",
            "trainLabels.csv",
        ),
        advice="TFDS itself fetches the labels of the test images, and all but the original images need "
        "`pip install opencv-python`.",
    ),
    "chexpert": KnownSet(
        name="name",
        patient=r"(patient\d+)",
        findings=(
            *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
            *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
            *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
        ),
        # The five of the CheXpert competition and of Transfusion.
        usual=("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
        meanings={"positive": "1", "negative": "0", "uncertain": "-1", "unmentioned": ""},
        tree=(
            "CheXpert-v1.0-small/train.csv",
            "CheXpert-v1.0-small/valid.csv",
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, …",
            "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg, …",
        ),
    ),
    "patch_camelyon": KnownSet(name="id"),
}

PATH_NAMES = ("name", "filename", "file_name", "image/filename", "path", "image_id", "id")
"""Features that name an image in other sets, the preferred first."""
