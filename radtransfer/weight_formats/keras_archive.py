"""`.keras`: a zip of `metadata.json`, `config.json` and `model.weights.h5`. The config is never run."""

import json
import zipfile
from pathlib import Path

from radtransfer.weight_formats.container import WEIGHTS, container_of, open_archive, open_hdf5
from radtransfer.weight_formats.weight_file import WeightFile, WeightFormat
from radtransfer.weight_formats.weights_h5 import layers_of

_LARGEST_JSON = 64 * 2**20


def recognizes_keras_archive(path: Path) -> bool:
    if container_of(path) != "zip":
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", WEIGHTS} <= set(archive.namelist())


def read_keras_archive(path: Path) -> WeightFile:
    with open_archive(path) as archive:
        with open_hdf5(archive.read(WEIGHTS)) as file:
            layers = layers_of(file)
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
