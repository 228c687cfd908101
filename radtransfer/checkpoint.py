"""Arrays and a small record in one file, written whole: what a killed run goes on from."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.errors import RunError
from radtransfer.runs import whole_file


def save_checkpoint(path: Path, arrays: list[np.ndarray], record: dict[str, Any]) -> None:
    """`arrays` in order, and `record` as JSON."""
    named = {f"array_{i:05d}": array for i, array in enumerate(arrays)}
    with whole_file(path) as part, part.open("wb") as handle:
        np.savez(handle, record=np.array(json.dumps(record)), **named)


def load_checkpoint(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `save_checkpoint` wrote.

    Raises:
        RunError: The file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in sorted(file.files) if name.startswith("array_")]
            return arrays, json.loads(str(file["record"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete the folder {path.parent} to begin this fold again."
        ) from None
