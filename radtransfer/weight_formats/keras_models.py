"""Whole models opened by Keras: in safe mode, after a look at what they would have it do."""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from radtransfer.environment import keras_defaults
from radtransfer.errors import WeightsError
from radtransfer.weight_formats.carried_code import check_is_plain_keras
from radtransfer.weight_formats.hdf5_heaps import check_attributes, check_file_heaps, check_heaps

if TYPE_CHECKING:
    import keras

_UNZIPPED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What is raised on a damaged archive."""

_MOST_COMPRESSED = 64
"""How many times larger than its file the unpacked content may be."""


@keras_defaults()
def open_model(path: Path) -> "keras.Model":
    """The model in `path`, not compiled.

    Raises:
        WeightsError: Not a model, damaged, or it carries code.
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
    """See that nothing in the file unpacks to any size, or is read without end."""
    try:
        if h5py.is_hdf5(path):
            check_file_heaps(path)
            with h5py.File(path) as file:
                check_attributes(file)
            return
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
            if declared > _MOST_COMPRESSED * path.stat().st_size + 2**20:
                raise WeightsError(f"declares {declared / 1e6:,.0f} MB, which cannot be. Nothing was unpacked.")
            content = archive.read("model.weights.h5")
        check_heaps(content)
        with h5py.File(io.BytesIO(content)) as file:
            check_attributes(file)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except (OSError, KeyError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return  # no archive, or a damaged one: Keras says so
