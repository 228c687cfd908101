"""The folder that results are written to: fit for it, before anything is computed."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from radtransfer.errors import RunError


def check_out(out: Path) -> None:
    """See that results can be written to a folder, before anything is computed.

    Raises:
        RunError: It is a run or a file, or no folder can be made there.
    """
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
    check_place(out)


def check_place(out: Path) -> None:
    """Raises RunError if the folder `out` does not stand and cannot be made."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"--out {out}: no folder can be made in {existing}. Choose another.")


def check_new(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """`check_out`, and that no earlier result stands in the folder, unless it may be replaced.

    Args:
        out: The folder.
        names: Of the files that will be written there; `*` stands for any letters.
        overwrite: Whether those that exist are replaced.

    Raises:
        RunError: One exists, or as `check_out`.
    """
    check_out(out)
    found = [] if overwrite else _existing(out, names)
    if found:
        raise RunError(f"{found[0]} exists. Use --overwrite to replace it, or another --out.")


def delete_others(out: Path, names: Iterable[str], written: Collection[Path]) -> None:
    """Delete what an earlier result left that was not written anew, so that all files are of one result.

    Args:
        out: The folder.
        names: As of `check_new`.
        written: The files of the new result.
    """
    for path in _existing(out, names):
        if path not in written:
            path.unlink(missing_ok=True)


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


def _existing(out: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names for path in sorted(out.glob(name))]
