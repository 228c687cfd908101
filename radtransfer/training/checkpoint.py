"""Checkpoints: arrays and a small JSON record in one `.npz` file."""

import io
import itertools
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from radtransfer.errors import RunError
from radtransfer.runs.folder import atomic_write


def save_checkpoint(path: Path, arrays: Iterable[np.ndarray], record: dict[str, Any]) -> None:
    """Write `arrays`, one at a time, and `record` to an uncompressed `.npz`."""
    with atomic_write(path) as part:
        _write(part, arrays, record)


def load_checkpoint(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays and the record of a checkpoint; RunError if the file is damaged."""
    try:
        with path.open("rb") as file:  # NumPy leaves a damaged one open
            return _read(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete the folder {path.parent} to start this fold again."
        ) from None


def to_bytes(arrays: Iterable[np.ndarray], record: Any) -> bytes:
    file = io.BytesIO()
    _write(file, arrays, record)
    return file.getvalue()


def from_bytes(data: bytes) -> tuple[list[np.ndarray], Any]:
    return _read(io.BytesIO(data))


def _write(file: Path | BinaryIO, arrays: Iterable[np.ndarray], record: Any) -> None:
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        named = ((f"array_{i:05d}", array) for i, array in enumerate(arrays))
        for name, array in itertools.chain([("record", np.array(json.dumps(record)))], named):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read(file: Path | BinaryIO) -> tuple[list[np.ndarray], Any]:
    with np.load(file, allow_pickle=False) as archive:
        arrays = [archive[name] for name in sorted(archive.files) if name.startswith("array_")]
        return arrays, json.loads(str(archive["record"]))
