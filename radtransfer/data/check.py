"""The check of a data set before training, and its folds.

A check reads the table leniently, decodes every image once, draws the folds of training, and runs all `checks.CHECKS`.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.config.schema import Config
from radtransfer.data.checks import CHECKS, SEVERITIES, Evidence, Finding, survey_images
from radtransfer.data.image_list import read_leniently
from radtransfer.data.labels import positive_class
from radtransfer.data.readers import read_table
from radtransfer.data.splits import FOLD_COLUMNS, Fold, assign_folds, fold_notes, fold_rows
from radtransfer.data.table import NO_PATIENTS, ImageTable, note_kind, show_notes
from radtransfer.errors import ConfigError, DataError
from radtransfer.files import writing
from radtransfer.images.refs import FilePart, ImageRef, file_of
from radtransfer.process import Progress, workers_of
from radtransfer.runs.folder import write_rows

SPLITS = ("train", "val", "test")


def class_counts(table: ImageTable) -> dict[str, dict[str, int | None]]:
    """Class or label to its numbers of `images` and `patients` (None: unknown)."""
    return {
        name: {key: value for key, value in _counts(table, np.flatnonzero(column == 1)).items() if key != "classes"}
        for name, column in zip(table.classes, table.targets.T, strict=True)
    }


def split_counts(table: ImageTable, folds: Sequence[Fold]) -> list[dict[str, Any]]:
    """For each fold its number, and for each split `images`, `patients` (None: unknown) and `classes` (images)."""
    return [
        {"fold": fold.number} | {name: _counts(table, np.flatnonzero(fold.split == name)) for name in SPLITS}
        for fold in folds
    ]


def _counts(table: ImageTable, rows: np.ndarray) -> dict[str, Any]:
    patients = None if table.patients is None else len({table.patient_keys[row] for row in rows})
    classes = (table.targets[rows] == 1).sum(axis=0).tolist()
    return {"images": len(rows), "patients": patients, "classes": dict(zip(table.classes, classes, strict=True))}


@dataclass(frozen=True)
class DataReport:
    """The result of a data check."""

    data: str  # source, as given
    images: int = 0
    patients: int | None = None  # None: unknown
    classes: dict[str, dict[str, int | None]] = field(default_factory=dict)  # class to `images` and `patients`
    positive_class: str | None = None  # of two classes
    # `given` (with the data) and `folds`, see `split_counts`
    splits: dict[str, Any] = field(default_factory=lambda: {"given": False, "folds": []})
    sizes: dict[str, Any] = field(default_factory=dict)  # min, median, max of `height` and `width` in pixels
    modes: dict[str, int] = field(default_factory=dict)  # mode to images
    class_modes: dict[str, dict[str, int]] = field(default_factory=dict)  # class to mode to images
    findings: tuple[Finding, ...] = ()  # by severity, then by kind
    evidence: Evidence | None = None  # None: the table could not be read
    left_out: Mapping[str, ImageRef | None] = field(default_factory=dict)  # path and file of invalid rows

    @property
    def valid(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def kinds(self) -> dict[tuple[str, str], list[Finding]]:
        """Findings by severity and kind."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.kind), []).append(finding)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON; keys may be added, but are not renamed or removed.

            {"data": str, "valid": bool, "images": int, "patients": int | null,
             "classes": {NAME: {"images": int, "patients": int | null}},
             "splits": {"given": bool, "folds": [{"fold": int, "train": COUNTS, "val": COUNTS, "test": COUNTS}]},
             "sizes": {"height": RANGE, "width": RANGE, "distinct": int},      empty if no image can be read
             "modes": {MODE: int}, "class_modes": {NAME: {MODE: int}},
             "findings": [{"kind": str, "severity": "error" | "warning" | "note", "files": [PATH],
                           "patients": [str], "message": str}]}

        COUNTS is {"images": int, "patients": int | null, "classes": {NAME: int}}, RANGE is {"min": int, "median":
        float, "max": int}, PATH as the table writes it.
        """
        findings = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(finding).items()}
            for finding in self.findings
        ]
        names = ("images", "patients", "classes", "splits", "sizes", "modes", "class_modes")
        values = {name: getattr(self, name) for name in names}
        return {"data": self.data, "valid": self.valid} | values | {"findings": findings}


def check_data(config: Config, *, progress: Progress | None = None) -> DataReport:
    """Check the images, labels, patients and splits of `config.data`; ConfigError for contradictory settings.

    It uses `data`, `splits`, `images`, `model.image_size`, `system.workers` and `seed` of `config`.
    """
    table, mistakes = read_leniently(config.data, progress=progress)
    findings = [Finding(mistake.kind, "error", mistake.message, mistake.paths) for mistake in mistakes]
    if table is None:
        return DataReport(str(config.data.source), findings=tuple(findings))
    findings += [Finding(*note_kind(note), note) for note in table.notes if note != NO_PATIENTS]
    workers = workers_of(config.system)
    records = survey_images(table, workers=workers, window=config.images.window, progress=progress or Progress())
    folds, refused = (), []
    try:
        folds = assign_folds(table, config.splits, seed=config.seed, allow_leakage=True)
    except DataError as error:
        refused.append(Finding("few_patients" if table.splits is None else "splits", "error", str(error)))
    evidence = Evidence(
        table,
        records,
        folds,
        image_size=config.model.image_size,
        skip_bad=config.data.on_bad_image == "skip",
        window=config.images.window,
        positive_from=table.positive_from if config.data.positive_from is None else config.data.positive_from,
    )
    findings += refused
    sizes = {}  # after EXIF rotation, pixels
    if facts := [record.facts for record in records if record.facts is not None]:
        sides = np.array([(f.width, f.height) if f.orientation > 4 else (f.height, f.width) for f in facts])
        for name, values in zip(("height", "width"), sides.T, strict=True):
            sizes[name] = {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}
        sizes["distinct"] = len(np.unique(sides, axis=0))
    for check in CHECKS:
        findings += check(evidence)
    # By severity, then by kind in the order of first occurrence.
    first: dict[tuple[str, str], int] = {}
    for number, finding in enumerate(findings):
        first.setdefault((finding.severity, finding.kind), number)
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), first[f.severity, f.kind]))
    return DataReport(
        data=str(config.data.source),
        images=len(set(table.paths)),
        patients=None if table.patients is None else len(set(table.patient_keys)),
        classes=class_counts(table),
        positive_class=positive_class(table, config.data),
        splits={"given": table.splits is not None, "folds": split_counts(table, folds)},
        sizes=sizes,
        modes=dict(Counter(record.mode for record in records if not record.problem).most_common()),
        class_modes=evidence.class_modes,
        findings=tuple(findings),
        evidence=evidence,
        left_out=dict(pair for mistake in mistakes for pair in zip(mistake.paths, mistake.refs, strict=True)),
    )


@dataclass(frozen=True)
class DataSplit:
    """The folds of a data set."""

    table: ImageTable
    folds: tuple[Fold, ...]  # as in training
    positive_class: str | None = None  # of two classes

    @property
    def image_root(self) -> Path | None:
        """The folder to which all paths are relative; None if there is none."""
        roots = set()
        for path, ref in zip(self.table.paths, self.table.files, strict=True):
            if ref is None:
                return None
            if isinstance(ref, FilePart) and ref.length is None:
                path = path.rpartition("#")[0] or path  # without the number of a frame
            file, end = str(file_of(ref)), os.path.normpath(path)
            if os.path.isabs(path) or not file.endswith(os.sep + end):  # noqa: PTH117
                return None
            roots.add(Path(file[: -len(end) - 1]))
        return roots.pop() if len(roots) == 1 else None

    @property
    def in_records(self) -> bool:
        """Whether images are parts of larger files, which a CSV cannot name."""
        return any(isinstance(ref, FilePart) and ref.length is not None for ref in self.table.files)

    def to_dict(self) -> dict[str, Any]:
        """`images`, `patients`, `classes`, `positive_class` and `folds`, as in the report of a data check."""
        patients = None if self.table.patients is None else len(set(self.table.patients))
        return {
            "images": len(set(self.table.paths)),
            "patients": patients,
            "classes": class_counts(self.table),
            "positive_class": self.positive_class,
            "folds": split_counts(self.table, self.folds),
        }


def split_data(config: Config, *, progress: Progress | None = None) -> DataSplit:
    """The folds of `finetune` with the same `data`, `splits` and `seed`; images are not decoded.

    Raises ConfigError for contradictory settings, and DataError if the table or its splits cannot be used.
    """
    progress = progress or Progress()
    table = read_table(config.data, progress=progress)
    show_notes(table.notes, progress)
    folds = assign_folds(table, config.splits, seed=config.seed, allow_leakage=config.data.allow_leakage)
    notes = fold_notes(table, config.splits, folds, folds_given="splits.folds" in config.given)
    show_notes(notes, progress)
    return DataSplit(table, folds, positive_class(table, config.data))


def write_split(split: DataSplit, path: Path) -> None:
    """Write the folds as a CSV that training reads back exactly, with the columns of `folds.csv`.

    For several labels it has a column of 1, 0 and -1 (unknown) per label instead of `label`. Folds of all repeats are
    numbered consecutively. Raises ConfigError if a label has the name of another column.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        table = split.table
        if table.task != "multilabel":
            write_rows(path, FOLD_COLUMNS, fold_rows(table, split.folds))
            return
        if taken := [name for name in table.classes if name in FOLD_COLUMNS]:
            raise ConfigError(f"The label {taken[0]!r} has the name of a column of folds.csv. Rename it in the table.")
        labels = np.where(np.isnan(table.targets), -1, table.targets).astype(int).tolist()
        of_path = dict(zip(table.paths, labels, strict=True))
        rows = fold_rows(table, split.folds)
        header = ("path", *table.classes, "patient", "fold", "split")
        write_rows(path, header, ((name, *of_path[name], *others) for name, _, *others in rows))
