"""Refuses model files that carry code. Their architecture is read as text; nothing in it is ever run."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from radtransfer.errors import WeightsError

_LARGEST_JSON = 64 * 2**20
_CODE = {
    "Lambda": "a Lambda layer",
    "__lambda__": "a Python function",
    "TorchModuleWrapper": "a pickled PyTorch module",
}
"""Classes whose saved form is a program, and what to call them."""

_HARMLESS = ("keras", "tf_keras", "keras_cv", "builtins", "numpy")
"""Packages that the classes of a model may be of; a file can name any other, and have it imported."""


def check_carries_no_code(path: Path) -> None:
    """Raises WeightsError if the model in `path`, `.keras` or HDF5, holds a program; weights alone hold none."""
    for part in _parts(_architecture(path)):
        what = _CODE.get(str(part.get("class_name"))) if "config" in part else None
        if what is not None:
            name = part["config"].get("name") if isinstance(part["config"], dict) else None
            where = f" ({name!r})" if name else ""
            raise WeightsError(
                f"weights file {path} carries code, {what}{where}, which is never run: whatever it did to the images "
                "would be lost. Where you trust the file, save its weights alone with save_weights."
            )


def check_is_plain_keras(path: Path) -> None:
    """Raises WeightsError if the model in `path` holds a function, or needs a class that is not of Keras."""
    check_carries_no_code(path)
    for part in _parts(_architecture(path)):
        module = part.get("module")
        if "class_name" in part and module is not None and str(module).partition(".")[0] not in _HARMLESS:
            raise WeightsError(
                f"{path} needs {module}.{part['class_name']}, which is not of Keras; nothing else is imported. "
                "Build the network in Python and compare it there."
            )


def _architecture(path: Path) -> Any:
    """The configuration that the file holds; None where it holds weights alone or none can be read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > _LARGEST_JSON:
                    raise WeightsError(f"weights file {path} has a config.json of more than 64 MB. Download it again.")
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError, zipfile.BadZipFile):
        return None


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in nested values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            # How it was trained is not read.
            waiting += (inner for key, inner in item.items() if key != "compile_config")
        elif isinstance(item, list):
            waiting += item
