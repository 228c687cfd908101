"""The folder that results are written to: fit for it, before anything is computed."""

import os
from collections.abc import Iterable
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


def check_new(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """See that no earlier result stands in a folder, unless it may be replaced.

    Args:
        out: The folder.
        names: Of the files that will be written there.
        overwrite: Whether those that exist are replaced.

    Raises:
        RunError: One exists.
    """
    found = [] if overwrite else [name for name in names if (out / name).exists()]
    if found:
        raise RunError(f"{out / found[0]} exists. Use --overwrite to replace it, or another --out.")


def make_out(out: Path) -> None:
    """Make the folder for results.

    Raises:
        RunError: As `check_out`.
    """
    check_out(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: no folder can be made there ({error.strerror}). Choose another.") from None
