"""Arrays and a small record in one file, written whole: what a killed run goes on from."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.errors import RunError
from radtransfer.runs import whole_file


def save_checkpoint(path: Path, arrays: Iterable[np.ndarray], record: dict[str, Any]) -> None:
    """`arrays` in order, taken one at a time, and `record` as JSON; an uncompressed `.npz`."""
    with whole_file(path) as part, zipfile.ZipFile(part, "w", allowZip64=True) as file:
        _write(file, "record", np.array(json.dumps(record)))
        for i, array in enumerate(arrays):
            _write(file, f"array_{i:05d}", array)


def _write(file: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


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
