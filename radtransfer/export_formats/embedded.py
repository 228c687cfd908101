"""How a description is put into files: a member of a ZIP, an attribute of HDF5."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from radtransfer.settings import ImageSettings

NAME = "radtransfer.json"
"""Of the member, file, attribute or property that describes a model."""

LABELS = "labels.txt"
"""The classes, one a line, in the order of the outputs."""


def as_json(metadata: Mapping[str, Any]) -> str:
    """`metadata` as text; NaN is refused, since JSON has none."""
    return json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False)


def as_lines(metadata: Mapping[str, Any]) -> str:
    """The classes, one a line."""
    return "".join(f"{' '.join(str(name).split())}\n" for name in metadata.get("classes", ()))


def reading_of(metadata: Mapping[str, Any]) -> ImageSettings:
    """How the images of an exported model are read, by its metadata; stretched where it says nothing."""
    rules, names = metadata.get("input") or {}, (field.name for field in fields(ImageSettings))
    return ImageSettings(**{name: rules[name] for name in names if name in rules})


def add_to_zip(path: Path, metadata: Mapping[str, Any], *, labels: bool = False) -> None:
    """Add the description to a ZIP; a file that is none gets one at its end, which its own readers do not see."""
    members = {NAME: as_json(metadata)} | ({LABELS: as_lines(metadata)} if labels else {})
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in members.items():
            # A fixed date, as Keras' own members have, so that the same model is the same file.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


def read_from_zip(path: Path) -> dict[str, Any]:
    """What `add_to_zip` added; empty where there is none."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(NAME)) if NAME in archive.namelist() else {}


def add_to_hdf5(path: Path, metadata: Mapping[str, Any]) -> None:
    """Put the description into an attribute of an HDF5 file."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[NAME] = as_json(metadata)


def read_from_hdf5(path: Path) -> dict[str, Any]:
    """What `add_to_hdf5` put there; empty where there is none."""
    import h5py

    with h5py.File(path) as file:
        return json.loads(file.attrs[NAME]) if NAME in file.attrs else {}
