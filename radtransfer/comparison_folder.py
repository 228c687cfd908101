"""The folder that a comparison writes its tables and figures to."""

import os
from pathlib import Path

from radtransfer.errors import RunError


def check_out(out: Path) -> None:
    """See that results can be written to a folder, before anything is computed.

    Raises:
        RunError: It is a run or a file, or no folder can be made there.
    """
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"--out {out}: no folder can be made in {existing}. Choose another.")
