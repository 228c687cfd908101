"""Image files that are made once, in a folder of the cache that appears whole or not at all."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from radtransfer.cache import new_folder
from radtransfer.errors import DataError


def write_once(folder: Path, write: Callable[[Path], None], *, what: str) -> None:
    """Make `folder` by `write`, unless it is there.

    Args:
        folder: To be made. Two processes may try at once: the first to finish stays.
        write: Writes into the empty folder it is given, a temporary neighbour that is then renamed.
        what: Is written, for the message.

    Raises:
        DataError: The folder cannot be written.
    """
    if folder.is_dir():
        return
    try:
        with new_folder(folder) as draft:
            write(draft)
    except OSError as error:
        raise DataError(
            f"{what} could not be written to {folder} ({error}). "
            "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
        ) from error


def fingerprint(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits that change with the path, size or time of any file."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
