"""The file formats that weights come in: one card per format, one file per card.

A file's format is told by its content, never by its suffix. To add a format, write
`radtransfer/weight_formats/<name>.py` with a `WeightFormat` and name it here.

Reads a weights file of any format in the table, or says what the file is instead.

`.keras`: a zip of `metadata.json`, `config.json` and `model.weights.h5`. The config is never run.

Whole models opened by Keras: in safe mode, after a look at what they would have it do.

Legacy HDF5, written by Keras 1–2, tf_keras and Keras 3: `save_weights("x.h5")` and `save("x.h5")`.

    [model_weights/]                attribute layer_names, keras_version
        conv1_conv/                 attribute weight_names: ["conv1_conv/kernel:0", …]
            conv1_conv/kernel:0
        resnet50/                   a nested model is one group with the weights of all its layers,
            conv1_conv/kernel:0     those that were trainable when it was saved before the others

The order within a nested model therefore depends on what was frozen; a layer's own order does not.

`.weights.h5` of Keras 3 and tf_keras.

    layers/
        conv2d/vars/0, 1 …              group: class and count; attribute name of vars: the layer's name
        functional/layers/conv2d/vars   a nested model
        time_distributed/layer/vars     a layer within a layer
    optimizer/, metrics/, vars/         not read

tf_keras writes no names, and before 2.14 says `_layer_checkpoint_dependencies` for `layers`. The
count is the layer's rank within its class, in the order of `model.layers`.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import h5py

from radtransfer.errors import Table, WeightsError
from radtransfer.pretrained.hdf5 import (
    WEIGHTS,
    Entry,
    check_content,
    check_is_plain_keras,
    container_of,
    damage,
    lambdas_in,
    no_weights,
    open_archive,
    open_hdf5,
    optional_text,
    read_layers,
    text,
)
from radtransfer.pretrained.weight_file import SavedLayer, WeightFile, WeightFormat
from radtransfer.process import keras_defaults

FORMATS = Table(
    "weight format",
    {
        "legacy_h5": "radtransfer.pretrained.read:LEGACY_H5",
        "weights_h5": "radtransfer.pretrained.read:WEIGHTS_H5",
        "keras_archive": "radtransfer.pretrained.read:KERAS_ARCHIVE",
    },
)
"""Name to `WeightFormat`; a format is imported when a file is read."""


DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    SystemError,
    EOFError,
    NotImplementedError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What h5py, zipfile and json raise on damaged or hostile files."""


def read_weight_file(path: Path, *, ignore_lambda: bool = False) -> WeightFile:
    """All weights in `path`. Nothing in it is executed or unpickled.

    Args:
        path: The file.
        ignore_lambda: Read the weights of a model with Lambda layers too, whose effect nobody knows then.

    Raises:
        WeightsError: Not a weights file, damaged, or of a format that is not supported; says which.
    """
    check_content(path)
    try:
        if container_of(path) == "hdf5":
            open_hdf5(path).close()
        for card in FORMATS.values():
            if card.recognizes(path):
                lambdas = lambdas_in(path, allowed=ignore_lambda)
                return replace(_with_layers(card.read(path)), lambdas=lambdas)
        raise WeightsError(no_weights(path))
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except DAMAGED as error:
        raise WeightsError(damage(path, error)) from None


def check_is_weights(path: Path) -> None:
    """Raises WeightsError if `path` is no weights file of any format, as far as its first bytes tell."""
    try:
        check_content(path)
        if not any(card.recognizes(path) for card in FORMATS.values()):
            raise WeightsError(no_weights(path))
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except DAMAGED as error:
        raise WeightsError(damage(path, error)) from None


def sha256_of(path: Path) -> str:
    """The file's SHA-256, streamed."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _with_layers(file: WeightFile) -> WeightFile:
    if not file.layers:
        raise WeightsError("holds a model without any weights. Save it again with its weights.")
    return file


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


_CONTAINERS_WEIGHTS_H5 = ("layers", "_layer_checkpoint_dependencies")
_NOT_THE_MODEL = ("optimizer", "metrics")
_DEEPEST = 32


def recognizes_weights_h5(path: Path) -> bool:
    if container_of(path) != "hdf5":
        return False
    with h5py.File(path) as file:
        return holds_weights(file)


def read_weights_h5(path: Path) -> WeightFile:
    with h5py.File(path) as file:
        return WeightFile(path, "weights_h5", layers_of(file))


def holds_weights(file: h5py.File) -> bool:
    return any(name in file for name in _CONTAINERS_WEIGHTS_H5)


def layers_of(file: h5py.File) -> tuple[SavedLayer, ...]:
    """The layers of an open file.

    Raises:
        WeightsError: Groups are nested without end.
    """
    return read_layers(list(_entries(file, (), named="name" in _own(file).attrs)))


def _entries(
    group: h5py.Group,
    path: tuple[str, ...],
    names: tuple[str, ...] = (),
    *,
    named: bool,
    layer: bool = False,
    within: bool = False,
    depth: int = 0,
) -> Iterator[Entry]:
    """The layers in `group`.

    Args:
        group: Of a layer, a model or a list of layers.
        path: Groups that it stands in, its own the last, but for those that hold the layers of a model.
        names: Names of the models and layers that it stands in, its own the last.
        named: Whether the file keeps the name of every layer.
        layer: Whether it is a layer, and not the model itself or a list.
        within: Whether it stands in another layer.
        depth: How many groups it stands in.
    """
    if depth > _DEEPEST:
        raise WeightsError("nests its groups without end.")
    for key in sorted(group, key=_natural):
        item = group[key]
        if not isinstance(item, h5py.Group) or (not path and key in _NOT_THE_MODEL):
            continue
        state = {"named": named, "depth": depth + 1}
        if key == "vars":
            leaves = {leaf: item[leaf] for leaf in sorted(item, key=_natural)}
            if path and leaves:
                part, kind = "/".join(path[:-1]), re.sub(r"_\d+$", "", path[-1])
                yield SavedLayer(names[-1], {}, part=part, kind=kind, outer=names[:-1], within=within), leaves
        elif key in _CONTAINERS_WEIGHTS_H5:
            yield from _entries(item, path, names, **state)
        elif named and "vars" not in item:  # a list of layers in a layer
            yield from _entries(item, (*path, key), names, layer=layer, within=within, **state)
        else:
            # Without a name, the group still tells one layer from another.
            name = text(_own(item).attrs.get("name", "")) or key
            yield from _entries(item, (*path, key), (*names, name), layer=True, within=layer, **state)


def _own(group: h5py.Group) -> h5py.Group:
    """Where a layer keeps its own weights and its name; the group itself, where it keeps none."""
    own = group.get("vars")
    return own if isinstance(own, h5py.Group) else group


def _natural(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_2, conv2d_10 by count, as no text order does."""
    stem, count = re.fullmatch(r"(.*?)_?(\d*)", name).groups()
    return stem, int(count or 0)


WEIGHTS_H5 = WeightFormat(
    name="weights_h5",
    description=".weights.h5 of Keras 3 and tf_keras",
    recognizes=recognizes_weights_h5,
    read=read_weights_h5,
)


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
