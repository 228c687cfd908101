"""A file that appears whole or not at all, whenever the process is killed and however full the disk is."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from radtransfer.errors import RadtransferError
from radtransfer.interruption import before_hard_end
from radtransfer.parts import delete_part, new_part, part_size
from radtransfer.system_errors import write_error, writing


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block succeeds.

    Readers see the old file or the new one, never a part; a failure leaves the old one. A device or a pipe, such as
    `/dev/stdout`, is `path` itself: it cannot be replaced.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The file may not be written.
    """
    if path.absolute().parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        with writing(path):
            yield path
        return
    part = new_part(path)
    try:
        with before_hard_end(lambda: delete_part(part)):
            yield part
            with part.open("rb+") as handle:
                os.fsync(handle.fileno())
            part.replace(path)
        sync_folder(path.parent)
    except RadtransferError:
        raise
    except Exception as error:
        written = part_size(part)
        delete_part(part)
        ours = getattr(error, "filename", None) in (None, str(part))
        told = write_error(path, error, written=written) if ours else None
        if told is None:
            raise
        raise told from error
    finally:
        delete_part(part)


def sync_folder(folder: Path) -> None:
    """Have the file's new name on the disk as well, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
