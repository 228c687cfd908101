"""Whole models opened by Keras: in safe mode, after a look at what they would have it do."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.environment import keras_defaults
from radtransfer.errors import WeightsError
from radtransfer.weight_formats.carried_code import check_is_plain_keras
from radtransfer.weight_formats.container import WEIGHTS, container_of, open_archive, open_hdf5
from radtransfer.weight_formats.reading import DAMAGED

if TYPE_CHECKING:
    import keras

_CONTAINERS = {".keras": "zip", ".h5": "hdf5", ".hdf5": "hdf5"}
"""What Keras takes a file for, by its name."""

_UNZIPPED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What is raised on a damaged archive."""


@keras_defaults()
def open_model(path: Path) -> "keras.Model":
    """The model in `path`, not compiled.

    Raises:
        WeightsError: Not a model, damaged, or made of more than Keras' own layers and functions.
    """
    import keras

    _check_container(path)
    check_is_plain_keras(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # Keras raises what it meets in a damaged file
        raise WeightsError(f"{path} is not a model that Keras can load: {_reason(error)}") from error


def layer_names(path: Path) -> tuple[str, ...]:
    """The names of a model's layers, read without Keras; empty where the file does not tell, of which Keras will."""
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        return tuple(layer["config"]["name"] for layer in layers)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, NotImplementedError, *_UNZIPPED):
        return ()


def open_weights(model: "keras.Model", path: Path) -> None:
    """Give `model` the weights in `path`, which were saved from the same network.

    Raises:
        WeightsError: They are damaged, or another network's.
    """
    _check_container(path)
    try:
        model.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise WeightsError(f"{path} does not hold the weights of this network: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _check_container(path: Path) -> None:
    """See that `path` is what Keras takes it for, and that nothing in it unpacks to any size or leads elsewhere."""
    expected = _CONTAINERS.get(path.suffix)
    try:
        if not path.is_file() or expected is None or container_of(path) != expected:
            named = {"zip": "a .keras file, which is a zip", "hdf5": "an HDF5 file"}.get(expected, "a .keras file")
            raise WeightsError(f"is not a model that Keras can load: expected {named}, whole.")
        if expected == "hdf5":
            open_hdf5(path).close()
            return
        with open_archive(path) as archive:
            open_hdf5(archive.read(WEIGHTS)).close()
    except WeightsError as error:
        raise WeightsError(str(error) if str(path) in str(error) else f"{path} {error}") from None
    except DAMAGED as error:
        raise WeightsError(f"{path} is not a model that Keras can load: {_reason(error)}") from None
