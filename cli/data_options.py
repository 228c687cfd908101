"""What the commands on a data set share: the options that say how it is read, and how its splits are shown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TABLE_OPTIONS = {
    "image_root": "data.image_root",
    "outside_root": "data.outside_root",
    "path_column": "data.path_column",
    "label_column": "data.label_column",
    "patient_column": "data.patient_column",
    "patient_regex": "data.patient_regex",
    "split_column": "data.split_column",
    "fold_column": "data.fold_column",
    "label_separator": "data.label_separator",
    "missing_values": "data.missing_values",
    "missing_patients": "data.missing_patients",
    "allow_alike_patients": "data.allow_alike_patients",
    "task": "data.task",
    "positive_class": "data.positive_class",
    "uncertain": "data.uncertain",
    "unmentioned": "data.unmentioned",
    "frames": "data.frames",
}

IMAGE_OPTIONS = {
    name: TABLE_OPTIONS[name]
    for name in (
        *("image_root", "outside_root", "path_column", "patient_column", "patient_regex"),
        *("missing_patients", "allow_alike_patients", "frames"),
    )
}
"""Those that say how a data set is read which needs no labels."""

FOLDS_SHOWN = 10

_SPLITS = ("train", "val", "test")


def split_lines(folds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of images, patients and classes in each split of each fold, as `split_counts` gives them."""
    if not folds:
        return
    classes = list(folds[0]["train"]["classes"])
    widths = [max(len(name), 6) + 2 for name in classes]
    heads = "".join(f"{name:>{width}}" for name, width in zip(classes, widths, strict=True))
    yield f"{'fold':<6}{'split':<7}{'images':>8}{'patients':>10}{heads}"
    for fold in folds[:FOLDS_SHOWN]:
        for name in _SPLITS:
            counts = fold[name]
            patients = "–" if counts["patients"] is None else counts["patients"]
            numbers = zip(counts["classes"].values(), widths, strict=True)
            cells = "".join(f"{number:>{width}}" for number, width in numbers)
            number = fold["fold"] if name == "train" else ""
            yield f"{number:<6}{name:<7}{counts['images']:>8}{patients:>10}{cells}"
    if len(folds) > FOLDS_SHOWN:
        yield f"and {len(folds) - FOLDS_SHOWN} more folds, alike"


def positive_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the figures of a table of runs are of, where these tell two classes apart; of which arms, if not of all."""
    named: dict[str | None, list[str]] = {}
    for row in rows:
        named.setdefault(row["positive_class"], []).append(row.get("arm", ""))
    for name, arms in named.items():
        if name is not None:
            yield f"positive class {name}" + (f": {', '.join(dict.fromkeys(arms))}" if len(named) > 1 else "")


def images_text(
    images: int, patients: int | None, classes: Mapping[str, Mapping[str, int | None]], positive: str | None
) -> str:
    """How many images, patients and classes there are, and which of two classes is positive, in one line."""
    known = "patients not known" if patients is None else f"{patients} patients"
    names = [f"{name} {counts['images']}" for name, counts in list(classes.items())[:12]]
    names += ["…"] if len(classes) > 12 else []
    of_two = "" if positive is None else f"; positive class {positive}"
    return f"{images} images, {known}, {len(classes)} classes ({', '.join(names)}){of_two}"
