"""The folder of what can be made again."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from radtransfer.interruption import before_hard_end

PART = ".part-"
"""How the name of anything begins that is still being written; nobody reads it."""


def cache_folder() -> Path:
    """Where radtransfer keeps what it can make again: $RADTRANSFER_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("RADTRANSFER_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "radtransfer"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radtransfer"


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary neighbour that becomes `folder` when the block succeeds, so that a half-written one is never read.

    Where another process has made the same folder meanwhile, its copy stays.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=PART, dir=folder.parent))
    try:
        with before_hard_end(lambda: shutil.rmtree(draft, ignore_errors=True)):
            yield draft
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
