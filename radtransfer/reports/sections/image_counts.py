"""What the runs of a report were made on: how many images, patients and of each class, as their `folds.csv` says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from radtransfer.reports.arms.one_question import MOST_CLASSES
from radtransfer.reports.arms.run_arms import Arm, ArmRun
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Table
from radtransfer.run_reading import reading
from radtransfer.runs import read_folds


@dataclass(frozen=True)
class ImageCounts:
    """Different images of a run, of all splits.

    Attributes:
        images: How many.
        patients: How many; None where they are not known.
        classes: How many images have each class or label.
    """

    images: int
    patients: int | None
    classes: Mapping[str, int]

    @property
    def classes_text(self) -> str:
        """As in: benign 437, malignant 210; of many classes, the first."""
        shown = [f"{name} {count:,}" for name, count in list(self.classes.items())[:MOST_CLASSES]]
        more = len(self.classes) - len(shown)
        return ", ".join([*shown, *([f"and {more:,} more"] if more else [])])

    @property
    def patients_text(self) -> str:
        return "not known" if self.patients is None else f"{self.patients:,}"


def count_images(arms: Sequence[Arm]) -> dict[str, ImageCounts]:
    """Of the first run of each arm; those whose `folds.csv` is gone are left out.

    Raises:
        RunError: The file is not as it was written.
    """
    counts = {arm.name: _counts(arm.runs[0]) for arm in arms}
    return {name: found for name, found in counts.items() if found is not None}


def count_facts(counts: Mapping[str, ImageCounts]) -> list[tuple[str, str]]:
    """Classes, images and patients, each where it is the same of all arms, or from how many to how many."""
    if not counts:
        return []
    found = list(counts.values())
    classes = list(dict.fromkeys(each.classes_text for each in found))
    images, patients = (
        sorted({each.images for each in found}),
        list(dict.fromkeys(each.patients_text for each in found)),
    )
    facts = [("classes", classes[0] if len(classes) == 1 else listed(list(found[0].classes)[:MOST_CLASSES]))]
    facts.append(("images", f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"))
    return [*facts, ("patients", patients[0])] if len(patients) == 1 else facts


def count_table(counts: Mapping[str, ImageCounts], arms: Sequence[Arm]) -> list[Table]:
    """What each arm was made on."""
    shown = [
        (arm.name, str(arm.runs[0].settings.get("data.source")), counts[arm.name]) for arm in arms if arm.name in counts
    ]
    if not shown:
        return []
    cells = [[name, source, c.classes_text, f"{c.images:,}", c.patients_text] for name, source, c in shown]
    records: list[dict[str, Any]] = [
        {"arm": name, "data": source, "classes": dict(c.classes), "images": c.images, "patients": c.patients}
        for name, source, c in shown
    ]
    caption = (
        "What the networks were trained, validated and tested on: the images that take part in a fold of the arm's "
        "first run, each counted once, of each class and in all, and their patients."
    )
    header = ["arm", "data", "classes", "images", "patients"]
    return [Table("data", caption, header, cells, records, text_columns=3)]


def _counts(run: ArmRun) -> ImageCounts | None:
    if not (run.path / "folds.csv").is_file():
        return None
    with reading(run.path):
        rows = {row["path"]: (row["label"], row["patient"]) for row in read_folds(run.path)}
    labels: Counter[str] = Counter()
    for label, _ in rows.values():
        labels.update(label.split(";") if run.scoring.task == "multilabel" else [label])
    patients = {patient for _, patient in rows.values() if patient}
    return ImageCounts(len(rows), len(patients) or None, {name: labels[name] for name in run.scoring.in_order})
