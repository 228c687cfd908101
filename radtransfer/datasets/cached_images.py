"""Image files that are made once, in a folder of the cache that appears whole or not at all."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

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
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            write(draft)
            _publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
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


def _publish(draft: Path, folder: Path) -> None:
    """Rename; where another process has made the same folder meanwhile, its copy stays."""
    draft.chmod(0o755)
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
