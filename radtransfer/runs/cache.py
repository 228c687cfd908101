"""The folder of what can be made again."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from radtransfer.files import delete_part, new_part
from radtransfer.process import before_hard_end

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
