"""What the machine's own errors mean to the user: a full disk, a folder that may not be written, no memory left."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from radtransfer.errors import DiskError, RadtransferError, RunError, TrainingError
from radtransfer.parts import true_path

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The system's numbers for a disk that is full, or that fails."""


def write_error(path: Path, error: Exception, *, needed: int = 0, written: int = 0) -> RadtransferError | None:
    """What `error`, raised while `path` was written, means; None where it is not the system's.

    HDF5 and TensorFlow have the system's number, or its text, in their message only, and ZIP and HDF5 files that cannot
    be closed raise what they will.

    Args:
        path: The file or folder, or the temporary path of it.
        error: Whatever was raised.
        needed: Bytes that were to be written, where they are known.
        written: Bytes that were written before, and are deleted again.
    """
    number = _number(error)
    if number is None:
        return None
    first = f"Cannot write {true_path(path)}: {os.strerror(number)}"
    if number in _DISK:
        return DiskError(
            f"{first} ({_room(path, number, needed, written)}). Free some space; what was finished is kept."
        )
    return RunError(f"{first}. Choose another place with --out.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into one sentence; nothing else is read in the block.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The path cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) or error from error


def system_error(error: Exception) -> RadtransferError | None:
    """What an error that nobody expected means where the machine caused it; None where it is a bug."""
    first = next(iter(str(error).splitlines()), "")
    number = _number(error)
    if number not in _DISK and (isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"):
        return TrainingError(
            f"Out of memory{f' ({first[:200]})' if first else ''}. Close other programs, or use a smaller --image-size "
            "or --batch-size, fewer --workers or --jobs."
        )
    if not isinstance(error, OSError):
        return DiskError(f"{first}. Free some space; what was finished is kept.") if number in _DISK else None
    if number is None or (error.filename is None and number not in _DISK):
        return None
    if number not in _DISK:
        return RunError(f"Cannot read or write {error.filename}: {os.strerror(number)}.")
    room = "" if error.filename is None else f" ({_room(Path(error.filename), number)})"
    return DiskError(f"Cannot read or write {error.filename or 'the disk'}: {os.strerror(number)}{room}.")


def existing_folder(path: Path) -> Path:
    """The folder that `path` is, or will be, in, as far as it exists: its file system is the one to be asked."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def size_text(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"


def _room(path: Path, number: int, needed: int = 0, written: int = 0) -> str:
    """How much there is, and how much it takes as far as that is known."""
    wanted = (
        f"{size_text(needed)} needed, " if needed else f"more than {size_text(written)} needed, " if written else ""
    )
    if number == errno.EFBIG and (limit := _largest_file()) is not None:
        return f"{wanted}a file of this process may have {size_text(limit)}: ulimit -f"
    folder = existing_folder(path)
    try:
        free = size_text(shutil.disk_usage(folder).free)
    except OSError:
        return f"{wanted}unknown free space in {folder}"
    quota = ", more than your quota lets you write" if number == errno.EDQUOT else ""
    return f"{wanted}{free} free in {folder}{quota}"


def _largest_file() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def disk_number(text: str) -> int | None:
    """The system's number for a full or failing disk that a message tells of."""
    return next((number for number in _DISK if os.strerror(number) in text), None)


def _number(error: Exception) -> int | None:
    if isinstance(number := getattr(error, "errno", None), int):
        return number
    told = re.search(r"errno = (\d+)", str(error))
    return int(told[1]) if told else disk_number(str(error))
