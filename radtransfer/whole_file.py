"""A file that appears whole or not at all, whenever the process is killed and however full the disk is."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from radtransfer.cache import PART
from radtransfer.interruption import before_hard_end
from radtransfer.system_errors import write_error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block succeeds.

    Readers see the old file or the new one, never a part; a failure leaves the old one.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The file may not be written.
    """
    # One thread more writes when the process is ended while another writes.
    thread = "" if threading.current_thread() is threading.main_thread() else f"{threading.get_ident()}-"
    part = path.with_name(f"{PART}{os.getpid()}-{thread}{path.name}")
    with before_hard_end(lambda: part.unlink(missing_ok=True)):
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


@contextlib.contextmanager
def part_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent` for what is moved out of it when all of it is whole; nothing else of it stays."""
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix=PART) as folder,
        before_hard_end(lambda: shutil.rmtree(folder, ignore_errors=True)),
    ):
        yield Path(folder)


def _sync_folder(folder: Path) -> None:
    """Have the file's new name on the disk as well, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
