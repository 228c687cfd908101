"""The folder of what can be made again."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where radtransfer keeps what it can make again: $RADTRANSFER_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("RADTRANSFER_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "radtransfer"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "radtransfer"
