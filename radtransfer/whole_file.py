"""A file that appears whole or not at all, whenever the process is killed and however full the disk is."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from radtransfer.cache import PART
from radtransfer.system_errors import write_error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block succeeds.

    Readers see the old file or the new one, never a part; a failure leaves the old one.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The file may not be written.
    """
    part = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        yield part
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError, ValueError) as error:
        told = write_error(path, error) if getattr(error, "filename", None) in (None, str(part)) else None
        if told is None:
            raise
        raise told from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the file's new name on the disk as well, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
