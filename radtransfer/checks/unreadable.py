"""Images that cannot be read: missing, empty_file, not_an_image, truncated, corrupt, too_large, unreadable.

Errors, since training stops at them; warnings where it is to go on without them (`--on-bad-image skip`).
"""

from collections.abc import Iterator

from radtransfer.checks.evidence import Evidence, Finding


def check(evidence: Evidence) -> Iterator[Finding]:
    """A finding for each image."""
    severity = "warning" if evidence.skip_bad else "error"
    for path, record in zip(evidence.table.paths, evidence.records, strict=True):
        if record.problem:
            yield Finding(record.problem, severity, record.reason, (path,))
