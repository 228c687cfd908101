"""Image files that are made once, in a folder of the cache that appears whole or not at all."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from radtransfer.cache import cache_note, new_folder
from radtransfer.errors import DiskError

_instead: dict[Path, tempfile.TemporaryDirectory] = {}
"""By folder that the cache cannot take: the temporary one that this process uses."""


def write_once(folder: Path, write: Callable[[Path], None], *, what: str) -> tuple[Path, list[str]]:
    """Make `folder` by `write`, unless it is there; a temporary one where the cache cannot take it.

    Args:
        folder: To be made. Two processes may try at once: the first to finish stays.
        write: Writes into the empty folder it is given, a temporary neighbour that is then renamed.
        what: Is written, for the message.

    Returns:
        The folder, and what is to be said of it.

    Raises:
        DiskError: It fits neither into the cache nor into a temporary folder.
    """
    if folder in _instead:
        return Path(_instead[folder].name), []
    try:
        if not folder.is_dir():
            with new_folder(folder) as draft:
                write(draft)
        return folder, []
    except OSError as error:
        note = cache_note(error)
        other = None
        try:
            other = tempfile.TemporaryDirectory(prefix="radtransfer-")
            write(Path(other.name))
        except OSError:
            if other is not None:
                other.cleanup()
            raise DiskError(
                f"{what} could not be written to {folder} ({error}). "
                "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
            ) from error
        _instead[folder] = other
        return Path(other.name), [note] if note else []


def delete_temporary() -> None:
    """Delete what `write_once` made instead, where the process ends in another way than Python's."""
    while _instead:
        _instead.popitem()[1].cleanup()


def fingerprint(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits that change with the path, size or time of any file."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
