"""Patients: leak (error) where one stands in two splits, no_patients (warning) where none are known."""

from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding


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
    for row, patient in enumerate(table.patients):
        rows.setdefault(patient, []).append(row)
    for patient, theirs in rows.items():
        if crossed := evidence.crossed(theirs):
            yield Finding("leak", "error", f"patient {patient} in {crossed}", evidence.files(theirs), (patient,))
