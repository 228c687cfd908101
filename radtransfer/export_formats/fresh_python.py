"""Python in a process of its own, where nothing of this one is left: for proofs, and for converters that are noisy."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from radtransfer.environment import clean_variables
from radtransfer.errors import ExportError
from radtransfer.system_errors import disk_number


def run_python(code: str, arguments: Sequence[str | Path], *, failure: str) -> None:
    """Run `code` with `arguments` in `sys.argv`; what it prints is heard only if it fails.

    Args:
        code: Python.
        arguments: As text.
        failure: How the message begins.

    Raises:
        ExportError: It failed; gives the last line it wrote.
        OSError: The disk is full, or fails.
    """
    # -P keeps the current folder off the path, so that only installed packages are found.
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean_variables())
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or [f"it ended with code {process.returncode}"]
        number = disk_number(last[0])
        if number is not None:
            raise OSError(number, os.strerror(number))
        raise ExportError(f"{failure}: {last[0].rstrip('.')}. Nothing was written.")
