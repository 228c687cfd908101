"""The folder of what can be made again."""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from radtransfer.errors import DiskError
from radtransfer.files import delete_part, new_part
from radtransfer.process import before_hard_end

_instead: dict[Path, tempfile.TemporaryDirectory] = {}
"""By folder that the cache cannot take: the temporary one that this process uses."""

_told: set[Path] = set()
"""The cache folders of which `cache_note` has said that they cannot be written."""


def cache_folder() -> Path:
    """Where radtransfer keeps what it can make again: $RADTRANSFER_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("RADTRANSFER_CACHE"):
        return _with_home(chosen)
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "radtransfer"
    return _with_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "radtransfer"


def _with_home(path: str) -> Path:
    """The path; `~` is in the folder for temporary files where this user has no home, as in some containers."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"radtransfer-{os.getuid()}", path.lstrip("~/"))


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary neighbour that becomes `folder` when the block succeeds, so that a half-written one is never read.

    Where another process has made the same folder meanwhile, its copy stays.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = new_part(folder)
    try:
        draft.mkdir()
        with before_hard_end(lambda: delete_part(draft)):
            yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        delete_part(draft)


def cache_note(error: Exception) -> str | None:
    """What to say of a cache folder that cannot be used, so that its user goes on without; None once it is said."""
    folder = cache_folder()
    if folder in _told:
        return None
    _told.add(folder)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = (
        "it is not a directory"
        if isinstance(cause, FileExistsError)
        else getattr(cause, "strerror", None) or str(cause)
    )
    return (
        f"the cache {folder} cannot be written ({reason.rstrip('.')}): nothing is kept there for later runs, and what "
        "is needed is made again. Free some space there, or name another folder in RADTRANSFER_CACHE"
    )


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
