"""`.keras`: a zip of `metadata.json`, `config.json` and `model.weights.h5`. The config is never run."""

import io
import json
import zipfile
from pathlib import Path

import h5py

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.hdf5_heaps import check_attributes, check_heaps
from radtransfer.weight_formats.weight_file import WeightFile, WeightFormat
from radtransfer.weight_formats.weights_h5 import layers_of

_WEIGHTS = "model.weights.h5"
_LARGEST_JSON = 64 * 2**20
_MOST_COMPRESSED = 64


def recognizes_keras_archive(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", _WEIGHTS} <= set(archive.namelist())


def read_keras_archive(path: Path) -> WeightFile:
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(_WEIGHTS).file_size
        if size > _MOST_COMPRESSED * path.stat().st_size + 2**20:
            raise WeightsError(f"declares {size / 1e6:,.0f} MB, which cannot be. Download it again.")
        content = archive.read(_WEIGHTS)
        check_heaps(content)
        with h5py.File(io.BytesIO(content)) as file:
            check_attributes(file)
            layers = layers_of(file, file_size=size)
        return WeightFile(
            path=path,
            format="keras_archive",
            layers=layers,
            keras_version=_entry(archive, "metadata.json", "keras_version"),
            model_name=_entry(archive, "config.json", "config", "name"),
        )


def _entry(archive: zipfile.ZipFile, member: str, *keys: str) -> str | None:
    try:
        if archive.getinfo(member).file_size > _LARGEST_JSON:
            return None
        value = json.loads(archive.read(member))
        for key in keys:
            value = value[key]
    except (KeyError, ValueError, TypeError):
        return None  # only shown to the user, never needed
    return str(value)


KERAS_ARCHIVE = WeightFormat(
    name="keras_archive",
    description=".keras of Keras 3 and tf_keras, a whole model",
    recognizes=recognizes_keras_archive,
    read=read_keras_archive,
)
