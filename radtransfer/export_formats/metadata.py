"""What an exported model says about itself, beside its weights: classes, how images are read, where it comes from.

In a `.keras` file it is one more member of the archive, in a SavedModel a file of `assets.extra`, the folder that
TensorFlow leaves to others. Keras and TensorFlow open both as before.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "radtransfer.json"
"""Of the member, and of the file."""


def write_metadata(path: Path, values: Mapping[str, Any]) -> None:
    """Add `values` to a `.keras` file or SavedModel folder that has none yet; other files are left as they are."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path.is_dir():
        folder = path / "assets.extra"
        folder.mkdir(exist_ok=True)
        (folder / NAME).write_text(text, encoding="utf-8", newline="\n")
    elif path.suffix == ".keras":
        # A fixed date, as Keras' own members have, so that the same model is the same file.
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(NAME, (1980, 1, 1, 0, 0, 0)), text)


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What `write_metadata` wrote; None where there is nothing that can be read."""
    try:
        if path.is_dir():
            text = (path / "assets.extra" / NAME).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(NAME).decode()
        values = json.loads(text)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return values if isinstance(values, dict) else None
