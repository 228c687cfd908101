"""Arrays and a small record in one file, written whole: what a killed run goes on from."""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from radtransfer.errors import RunError
from radtransfer.runs.folder import atomic_write


def save_checkpoint(path: Path, arrays: Iterable[np.ndarray], record: dict[str, Any]) -> None:
    """`arrays` in order, taken one at a time, and `record` as JSON; an uncompressed `.npz`."""
    with atomic_write(path) as part:
        _write_all(part, arrays, record)


def packed(arrays: Iterable[np.ndarray], record: Any) -> bytes:
    """What `save_checkpoint` would write."""
    file = io.BytesIO()
    _write_all(file, arrays, record)
    return file.getvalue()


def unpacked(data: bytes) -> tuple[list[np.ndarray], Any]:
    """What `packed` was given."""
    return _read_all(io.BytesIO(data))


def _write_all(file: Path | BinaryIO, arrays: Iterable[np.ndarray], record: Any) -> None:
    def write(name: str, array: np.ndarray) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, array, allow_pickle=False)

    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        write("record", np.array(json.dumps(record)))
        for i, array in enumerate(arrays):
            write(f"array_{i:05d}", array)


def load_checkpoint(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `save_checkpoint` wrote; RunError if the file is damaged."""
    try:
        with path.open("rb") as file:  # NumPy leaves a damaged one open
            return _read_all(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete the folder {path.parent} to begin this fold again."
        ) from None


def _read_all(file: Path | BinaryIO) -> tuple[list[np.ndarray], Any]:
    with np.load(file, allow_pickle=False) as archive:
        arrays = [archive[name] for name in sorted(archive.files) if name.startswith("array_")]
        return arrays, json.loads(str(archive["record"]))
