"""What the machine's own errors mean to the user: a full disk, a folder that may not be written, no memory left."""

import errno
import os
import re
from pathlib import Path

from radtransfer.errors import DiskError, RadtransferError, RunError, TrainingError

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The system's numbers for a disk that is full, or that fails."""


def write_error(path: Path, error: Exception) -> RadtransferError | None:
    """What `error`, raised while `path` was written, means; None where it is not the system's.

    HDF5 has the system's number in its message only, and ZIP and HDF5 files that cannot be closed raise what they will.
    """
    number = _number(error)
    if number is None:
        return None
    if number in _DISK:
        return DiskError(f"Cannot write {path}: {os.strerror(number)}. Free some space; what was finished is kept.")
    return RunError(f"Cannot write {path}: {os.strerror(number)}. Choose another place with --out.")


def system_error(error: Exception) -> RadtransferError | None:
    """What an error that nobody expected means where the machine caused it; None where it is a bug."""
    first = next(iter(str(error).splitlines()), "")
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        if "No space left" in first:
            return DiskError(f"{first}. Free some space; what was finished is kept.")
        return TrainingError(
            f"Out of memory{f' ({first[:200]})' if first else ''}. Close other programs, or use a smaller --image-size "
            "or --batch-size, fewer --workers or --jobs."
        )
    number = _number(error) if isinstance(error, OSError) else None
    if number is None or (error.filename is None and number not in _DISK):
        return None
    place = "the disk" if error.filename is None else error.filename
    kind = DiskError if number in _DISK else RunError
    return kind(f"Cannot read or write {place}: {os.strerror(number)}.")


def _number(error: Exception) -> int | None:
    number = getattr(error, "errno", None)
    told = re.search(r"errno = (\d+)", str(error))
    return number if isinstance(number, int) else int(told[1]) if told else None
