"""Reads weight files of any format that Keras writes, told by their content; says what another file is instead.

legacy_h5       Keras 1–2, tf_keras and Keras 3: `save_weights("x.h5")` and `save("x.h5")`
    [model_weights/]                attribute layer_names, keras_version
        conv1_conv/                 attribute weight_names: ["conv1_conv/kernel:0", …]
            conv1_conv/kernel:0
        resnet50/                   a nested model is one group with the weights of all its layers,
            conv1_conv/kernel:0     those that were trainable when it was saved before the others
weights_h5      `.weights.h5` of Keras 3 and tf_keras
    layers/
        conv2d/vars/0, 1 …              group: class and count; attribute name of vars: the layer's name
        functional/layers/conv2d/vars   a nested model
        time_distributed/layer/vars     a layer within a layer
    optimizer/, metrics/, vars/         not read
keras_archive   `.keras`: a zip of metadata.json, config.json and model.weights.h5, which is a weights_h5

In legacy_h5 the order within a nested model depends on what was frozen; a layer's own order does not. In weights_h5
tf_keras writes no names, and before 2.14 says `_layer_checkpoint_dependencies` for `layers`; the count is the layer's
rank within its class, in the order of `model.layers`.
"""

import hashlib
import json
import re
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from radtransfer.errors import WeightsError, WeightsNotFoundError
from radtransfer.pretrained.safety import (
    LARGEST_JSON,
    MODEL_WEIGHTS,
    container_of,
    lambdas_in,
    open_archive,
    open_hdf5,
    text,
)

DAMAGED = (
    *(OSError, KeyError, ValueError, TypeError, RuntimeError, SystemError, EOFError, NotImplementedError),
    *(AttributeError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What h5py, zipfile, json and struct raise on damaged or hostile files."""

_LAYERS = ("layers", "_layer_checkpoint_dependencies")
_NOT_THE_MODEL = ("optimizer", "metrics")
_MOST_DEEP = 32

_AGAIN = "Download it again."
_SAVE_AGAIN = "Where it is trusted, load it in PyTorch and torch.save its state dict again, then convert that."

# The first bytes of files that are not weights, and what to say.
_BEGINNINGS = (
    (
        rb"(?i)\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|\?xml)",
        "is an HTML page, not HDF5: {file}. Google Drive returns its virus-scan page for large files; "
        "download it in a browser or with gdown.",
    ),
    (rb"version https://git-lfs", 'is a Git LFS pointer, not the file itself: {file}. Run "git lfs pull".'),
    (rb"\x80[\x02-\x05]", "is a pickle or old PyTorch file, never opened: {file}. " + _SAVE_AGAIN),
    (rb".{257}ustar", "is a tar, as PyTorch wrote before 0.2, never opened: {file}. " + _SAVE_AGAIN),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "is compressed: {file}. Unpack it first."),
    (rb"Rar!|7z\xbc\xaf", "is a packed archive: {file}. Unpack it and pass the .h5 file in it."),
    (rb"\x93NUMPY", "is a NumPy array: {file}. Pass a Keras file (.h5, .weights.h5, .keras)."),
)


@dataclass(frozen=True)
class SavedLayer:
    """One layer with weights, as a file holds it.

    Attributes:
        name: As saved; "" where the file keeps none.
        arrays: Leaf name ("kernel", "moving_mean") to float array; "0", "1" … in the layer's own order
            where the file keeps no leaf names. Of a layer with layers within it, path to array ("query/kernel").
        part: Path of the sub-model, or layer, that it stands in, "" for the model itself.
        outer: Names of the models and layers that it stands in, where the file keeps them.
        within: Whether it is known to stand in another layer, not in a sub-model.
    """

    name: str
    arrays: dict[str, np.ndarray]
    part: str = ""
    kind: str | None = None  # layer class in snake case ("conv2d"), where the file tells it
    outer: tuple[str, ...] = ()
    within: bool = False

    @property
    def label(self) -> str:
        """Its name in messages, unique within its file."""
        return "/".join(piece for piece in (self.part, self.name) if piece)


@dataclass(frozen=True)
class WeightFile:
    """All weights of one file.

    Attributes:
        layers: In the file's order; within one kind only, where `kind` is told.
        lambdas: Names of its Lambda layers, whose effect is unknown.
    """

    path: Path
    format: str
    layers: tuple[SavedLayer, ...] = field(repr=False)
    keras_version: str | None = None
    model_name: str | None = None
    lambdas: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(array.size for layer in self.layers for array in layer.arrays.values())

    @property
    def lambda_note(self) -> str:
        """What the user should know of its Lambda layers; "" where there are none."""
        if not self.lambdas:
            return ""
        shown = ", ".join(self.lambdas[:4]) + (", …" if len(self.lambdas) > 4 else "")
        layers = f"{len(self.lambdas)} Lambda layer" + ("s" if len(self.lambdas) > 1 else "")
        return f"{self.path.name} holds {layers} ({shown}), ignored: the effect on the images is unknown"


def read_weight_file(path: Path, *, ignore_lambda: bool = False) -> WeightFile:
    """All weights in `path`. Nothing in it is executed or unpickled.

    With `ignore_lambda`, the weights of a model with Lambda layers are read too, whose effect is then unknown.

    Raises:
        WeightsError: Not a weights file, damaged, or of a format that is not supported; says which.
    """
    check_content(path)
    with reading(path):
        container = container_of(path)
        if container == "hdf5":
            open_hdf5(path).close()
        found = _format_of(path, container)
        lambdas = lambdas_in(path, allowed=ignore_lambda)
        file = replace(_read(path, found), lambdas=lambdas)
        if not file.layers:
            raise WeightsError("holds a model without any weights. Save it again with its weights.")
        return file


def check_is_weights(path: Path) -> None:
    """Raises WeightsError if `path` is no weights file of any format; its arrays are not read."""
    check_content(path)
    with reading(path):
        _format_of(path, container_of(path))


def sha256_of(path: Path) -> str:
    """The file's SHA-256, streamed."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_content(path: Path) -> None:
    """Raises WeightsError if the first bytes show that `path` is no weights file."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1024)
    except FileNotFoundError:
        raise WeightsNotFoundError(f"no weights file at {path}. Expected a Keras or PyTorch file.") from None
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}.") from None
    if not head:
        raise WeightsError(f"weights file is empty (0 bytes): {path}. {_AGAIN}")
    for beginning, message in _BEGINNINGS:
        if re.match(beginning, head, flags=re.DOTALL):
            raise WeightsError("weights file " + message.format(file=f"{path} ({_size(path)})"))
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"weights file is truncated: {path} ({_size(path)}, a zip without end). {_AGAIN}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever is raised while `path` is read becomes a WeightsError that names it."""
    try:
        yield
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except DAMAGED as error:
        sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
        if sizes:
            found, whole = (int(size) / 1e6 for size in sizes.groups())
            problem = f"weights file is truncated ({found:.1f} of {whole:.1f} MB): {path}. {_AGAIN}"
        else:
            reason = str(error).strip("'\"") or type(error).__name__
            problem = f"weights file is damaged: {path} ({_size(path)}; {reason}). {_AGAIN}"
        raise WeightsError(problem) from None


def numbers_of(stored: np.ndarray) -> np.ndarray:
    """float32 of stored bfloat16, the upper half of a float32, of which NumPy has no type."""
    return (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _format_of(path: Path, container: str | None) -> str:
    if container == "zip":
        with zipfile.ZipFile(path) as archive:
            if {"config.json", MODEL_WEIGHTS} <= set(archive.namelist()):
                return "keras_archive"
    elif container == "hdf5":
        with h5py.File(path) as file:
            if _legacy_group(file) is not None:
                return "legacy_h5"
            if any(name in file for name in _LAYERS):
                return "weights_h5"
    raise WeightsError(_no_weights(path))


def _read(path: Path, format: str) -> WeightFile:
    if format == "legacy_h5":
        with h5py.File(path) as file:
            group = _legacy_group(file)
            names = _names(group, "layer_names")
            layers = _with_arrays(entry for name in names for entry in _legacy_layers(name, group[name]))
            try:
                model_name = str(json.loads(file.attrs["model_config"])["config"]["name"])
            except (KeyError, ValueError, TypeError):
                model_name = None  # weights only, or a Sequential model before Keras 2.2
            version = group.attrs.get("keras_version")
            return WeightFile(path, format, layers, None if version is None else text(version), model_name)
    if format == "weights_h5":
        with h5py.File(path) as file:
            return WeightFile(path, format, _with_arrays(_entries(file, (), named="name" in _own(file).attrs)))
    with open_archive(path) as archive:
        with open_hdf5(archive.read(MODEL_WEIGHTS)) as file:
            layers = _with_arrays(_entries(file, (), named="name" in _own(file).attrs))
        version = _json_entry(archive, "metadata.json", "keras_version")
        return WeightFile(path, format, layers, version, _json_entry(archive, "config.json", "config", "name"))


def _with_arrays(entries: Iterable[tuple[SavedLayer, Mapping[str, Any]]]) -> tuple[SavedLayer, ...]:
    """The layers, each given without arrays and with its datasets by leaf name.

    Integer datasets are no weights (states of random generators, step counts) and are left out.
    """
    layers = []
    for layer, leaves in entries:
        arrays = {}
        for leaf, dataset in leaves.items():
            if not isinstance(dataset, h5py.Dataset):
                raise WeightsError(f"holds {type(dataset).__name__.lower()} where an array should be.")
            if dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":
                arrays[leaf] = numbers_of(dataset[()])
            elif dataset.dtype.kind == "f":
                with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, which is reported
                    arrays[leaf] = np.asarray(dataset[()], dtype=np.float32)
        if arrays:
            layers.append(replace(layer, arrays=arrays))
    return tuple(layers)


def _legacy_group(file: h5py.File) -> h5py.Group | None:
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


def _legacy_layers(name: str, group: h5py.Group) -> list[tuple[SavedLayer, Mapping[str, Any]]]:
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


def _entries(
    group: h5py.Group,
    path: tuple[str, ...],
    names: tuple[str, ...] = (),
    *,
    named: bool,
    layer: bool = False,
    within: bool = False,
    depth: int = 0,
) -> Iterator[tuple[SavedLayer, Mapping[str, Any]]]:
    """The layers in `group`, of a layer, a model or a list of layers.

    `path` are the groups that it stands in, its own the last, but for those that hold the layers of a model; `names`
    are the names of these models and layers, where the file stores every one (`named`). `layer` is False for the model
    itself and for a list; `within` says whether it stands in another layer.
    """
    if depth > _MOST_DEEP:
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
        elif key in _LAYERS:
            yield from _entries(item, path, names, **state)
        elif named and "vars" not in item:  # a list of layers in a layer
            yield from _entries(item, (*path, key), names, layer=layer, within=within, **state)
        else:
            # Without a name, the group still tells one layer from another.
            name = text(_own(item).attrs.get("name", "")) or key
            yield from _entries(item, (*path, key), (*names, name), layer=True, within=layer, **state)


def _own(group: h5py.Group) -> h5py.Group:
    own = group.get("vars")
    return own if isinstance(own, h5py.Group) else group


def _natural(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_2, conv2d_10 by count, as no text order does."""
    stem, number = re.fullmatch(r"(.*?)_?(\d*)", name).groups()
    return stem, int(number or 0)


def _json_entry(archive: zipfile.ZipFile, member: str, *keys: str) -> str | None:
    try:
        if archive.getinfo(member).file_size > LARGEST_JSON:
            return None
        value = json.loads(archive.read(member))
        for key in keys:
            value = value[key]
    except (KeyError, ValueError, TypeError):
        return None  # only shown to the user, never needed
    return str(value)


def _no_weights(path: Path) -> str:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return (
                f"weights file is a PyTorch file: {path} ({_size(path)}). "
                "Make a Keras file of it: radtransfer weights convert FILE OUT.weights.h5."
            )
        inside = [name for name in names if name.endswith((".h5", ".keras", ".hdf5"))]
        if inside:
            return f"{path} is a zip that holds {', '.join(inside[:5])}. Unpack it and pass one of them."
        return (
            f"{path} is a zip but not a .keras file (it holds {', '.join(names[:5]) or 'nothing'}). "
            "Expected config.json and model.weights.h5 in it."
        )
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            held = ", ".join(sorted(map(str, file))[:5]) or "nothing"
        return (
            f"{path} is HDF5 but holds no Keras weights (it holds {held}). "
            "Expected a file that Keras wrote with save or save_weights."
        )
    with path.open("rb") as handle:
        head = handle.read(16)
    return (
        f"{path} ({_size(path)}) is not a weights file: it begins with {str(head)[1:]}. "
        "Expected a Keras file (.h5, .weights.h5, .keras)."
    )


def _size(path: Path) -> str:
    size = path.stat().st_size
    if size >= 1e6:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"
