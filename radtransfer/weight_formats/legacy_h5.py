"""Legacy HDF5, written by Keras 1–2, tf_keras and Keras 3: `save_weights("x.h5")` and `save("x.h5")`.

    [model_weights/]                attribute layer_names, keras_version
        conv1_conv/                 attribute weight_names: ["conv1_conv/kernel:0", …]
            conv1_conv/kernel:0
        resnet50/                   a nested model is one group with the weights of all its layers,
            conv1_conv/kernel:0     those that were trainable when it was saved before the others

The order within a nested model therefore depends on what was frozen; a layer's own order does not.
"""

import json
from collections import defaultdict
from itertools import count, takewhile
from pathlib import Path, PurePosixPath

import h5py

from radtransfer.weight_formats.container import container_of
from radtransfer.weight_formats.hdf5 import Entry, optional_text, read_layers, text
from radtransfer.weight_formats.weight_file import SavedLayer, WeightFile, WeightFormat


def recognizes_legacy_h5(path: Path) -> bool:
    if container_of(path) != "hdf5":
        return False
    with h5py.File(path) as file:
        return _weights_group(file) is not None


def read_legacy_h5(path: Path) -> WeightFile:
    with h5py.File(path) as file:
        group = _weights_group(file)
        entries = [entry for name in _names(group, "layer_names") for entry in _layer_entries(name, group[name])]
        return WeightFile(
            path=path,
            format="legacy_h5",
            layers=read_layers(entries),
            keras_version=optional_text(group.attrs.get("keras_version")),
            model_name=_model_name(file),
        )


def _weights_group(file: h5py.File) -> h5py.Group | None:
    for group in (file, file.get("model_weights")):
        if isinstance(group, h5py.Group) and ("layer_names" in group.attrs or "layer_names0" in group.attrs):
            return group
    return None


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; Keras splits it over attributes with numbers where HDF5's limit is reached."""
    if attribute in group.attrs:
        return [text(name) for name in group.attrs[attribute]]
    chunks = takewhile(lambda chunk: chunk in group.attrs, (f"{attribute}{number}" for number in count()))
    return [text(name) for chunk in chunks for name in group.attrs[chunk]]


def _layer_entries(name: str, group: h5py.Group) -> list[Entry]:
    """The layers in one top-level group: itself, or those within it, of a nested model or of a layer."""
    owners: dict[str, dict[str, h5py.Dataset]] = defaultdict(dict)
    for weight in _names(group, "weight_names"):
        path = PurePosixPath(weight)
        leaf = path.name.partition(":")[0]
        owners[str(path.parent)][path.name if leaf in owners[str(path.parent)] else leaf] = group[weight]
    if len(owners) == 1:
        # One owner is the layer itself. TensorFlow 1 may have numbered its weights anew, so the
        # group's name is the better one.
        (leaves,) = owners.values()
        return [(SavedLayer(name, {}), leaves)]
    return [
        (SavedLayer(name, {}) if owner == name else SavedLayer(owner.removeprefix(f"{name}/"), {}, part=name), leaves)
        for owner, leaves in owners.items()
    ]


def _model_name(file: h5py.File) -> str | None:
    try:
        return str(json.loads(file.attrs["model_config"])["config"]["name"])
    except (KeyError, ValueError, TypeError):
        return None  # weights only, or a Sequential model before Keras 2.2


LEGACY_H5 = WeightFormat(
    name="legacy_h5",
    description="legacy HDF5 of Keras 2 and 3, weights only or whole model",
    recognizes=recognizes_legacy_h5,
    read=read_legacy_h5,
)
