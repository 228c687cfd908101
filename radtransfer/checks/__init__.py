"""What can be wrong with a data set, one check per file; `radtransfer data check` runs them all.

A check is a function

    def check(evidence: Evidence) -> Iterator[Finding]

of what one pass over the images and their table found (`evidence.py`); it reads no file. To add one, write
`checks/<name>.py` and one line here. The kinds of its findings are listed in its first docstring, with the severity.
"""

from radtransfer.registry import Table

CHECKS = Table(
    "check",
    {
        "unreadable": "radtransfer.checks.unreadable:check",
        "duplicates": "radtransfer.checks.duplicates:check",
        "patients": "radtransfer.checks.patients:check",
        "classes": "radtransfer.checks.classes:check",
        "constant": "radtransfer.checks.constant:check",
        "near_duplicates": "radtransfer.checks.near_duplicates:check",
        "value_range": "radtransfer.checks.value_range:check",
        "sizes": "radtransfer.checks.sizes:check",
        "modes": "radtransfer.checks.modes:check",
    },
)
