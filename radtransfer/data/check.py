"""Everything that is wrong with a data set, before anything is trained on it.

Reads the table leniently, decodes every image once, lays out the folds that training would have, and runs every check
of `checks/` over what was found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from radtransfer.checks import CHECKS
from radtransfer.checks.evidence import SEVERITIES, Evidence, Finding
from radtransfer.data.summary import class_counts, mode_counts, size_figures, split_counts
from radtransfer.datasets.image_table import ImageTable, note_kind
from radtransfer.datasets.labels import positive_class
from radtransfer.datasets.lenient import read_leniently
from radtransfer.datasets.patients import NO_PATIENTS
from radtransfer.device import usable_cores
from radtransfer.errors import DataError
from radtransfer.examination.image_survey import survey_images
from radtransfer.image_place import ImagePlace
from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.splits.folds import Fold, assign_folds


@dataclass(frozen=True)
class DataReport:
    """What is known of a data set and what is wrong with it.

    Attributes:
        data: As it was named.
        images: How many.
        patients: How many; None where they are not known.
        classes: Class to `images` and `patients`.
        positive_class: Of two classes.
        splits: `given` (with the data, or else drawn) and `folds`, a list of what `split_counts` says.
        sizes: What `size_figures` says.
        modes: Mode to images.
        class_modes: Class to mode to images.
        findings: The worst first, then by kind.
        evidence: What the checks looked at; None where no table could be read.
        left_out: Images whose rows in the table are mistaken: path and place.
    """

    data: str
    images: int = 0
    patients: int | None = None
    classes: dict[str, dict[str, int | None]] = field(default_factory=dict)
    positive_class: str | None = None
    splits: dict[str, Any] = field(default_factory=lambda: {"given": False, "folds": []})
    sizes: dict[str, Any] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    class_modes: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    evidence: Evidence | None = None
    left_out: Mapping[str, ImagePlace | None] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether nothing makes results invalid."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def kinds(self) -> dict[tuple[str, str], list[Finding]]:
        """Severity and kind to the findings, in their order."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.kind), []).append(finding)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it; new keys may be added, none is renamed or removed.

            {"data": str, "valid": bool, "images": int, "patients": int | null,
             "classes": {NAME: {"images": int, "patients": int | null}},
             "splits": {"given": bool, "folds": [{"fold": int, "train": COUNTS, "val": COUNTS, "test": COUNTS}]},
             "sizes": {"height": RANGE, "width": RANGE, "distinct": int},      empty where no image can be read
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
    """Check the images, labels, patients and splits that `config.data` names.

    Args:
        config: Of which `data`, `splits`, `images`, `model.image_size`, `system.workers` and the seed count.
        progress: Hears the count.

    Raises:
        ConfigError: Settings that contradict each other.
    """
    table, mistakes = read_leniently(config.data, progress=progress)
    findings = [Finding(mistake.kind, "error", mistake.message, mistake.paths) for mistake in mistakes]
    if table is None:
        return DataReport(str(config.data.source), findings=tuple(findings))
    findings += [Finding(*note_kind(note), note) for note in table.notes if note != NO_PATIENTS]
    workers = usable_cores() if config.system.workers == "auto" else config.system.workers
    records = survey_images(table, workers=workers, window=config.images.window, progress=progress or Progress())
    folds, refused = _folds(config, table)
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
    for name in CHECKS:
        findings += CHECKS[name](evidence)
    return DataReport(
        data=str(config.data.source),
        images=len(set(table.paths)),
        patients=None if table.patients is None else len(set(table.patient_keys)),
        classes=class_counts(table),
        positive_class=positive_class(table, config.data),
        splits={"given": table.splits is not None, "folds": split_counts(table, folds)},
        sizes=size_figures(records),
        modes=mode_counts(records),
        class_modes=evidence.class_modes,
        findings=_in_order(findings),
        evidence=evidence,
        left_out=dict(pair for mistake in mistakes for pair in zip(mistake.paths, mistake.places, strict=True)),
    )


def _folds(config: Config, table: ImageTable) -> tuple[Sequence[Fold], list[Finding]]:
    """The folds that training would have; or none, and why."""
    try:
        return assign_folds(table, config.splits, seed=config.seed, allow_leakage=True), []
    except DataError as error:
        return (), [Finding("few_patients" if table.splits is None else "splits", "error", str(error))]


def _in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first; within a severity findings of one kind together, as the checks gave them."""
    first: dict[tuple[str, str], int] = {}
    for number, finding in enumerate(findings):
        first.setdefault((finding.severity, finding.kind), number)
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), first[f.severity, f.kind])))
