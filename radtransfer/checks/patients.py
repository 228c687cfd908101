"""Patients: leak (error) where one stands in two splits, no_patients (warning) where none are known."""

from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding, shortened


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each patient in two splits of a fold, or one for the whole."""
    table = evidence.table
    if table.patients is None:
        yield Finding(
            "no_patients",
            "warning",
            "patients are not known, so images of one may fall in both train and test; give --patient-column or "
            r"--patient-regex '^(\d+)_'",
        )
        return
    if table.splits is None:
        return  # folds are drawn by patient
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(table.patient_keys):
        rows.setdefault(key, []).append(row)
    for theirs in rows.values():
        if crossed := evidence.crossed(theirs):
            names = tuple(dict.fromkeys(table.patients[row] for row in theirs))
            message = f"patient {shortened(names)} in {crossed}"
            yield Finding("leak", "error", message, evidence.files(theirs), names)
