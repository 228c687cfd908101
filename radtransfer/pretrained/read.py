"""Reads weight files of every format that Keras writes, recognized by content; names the type of any other file.

legacy_h5       Keras 1–2, tf_keras and Keras 3: `save_weights("x.h5")` and `save("x.h5")`
    [model_weights/]                attribute layer_names, keras_version
        conv1_conv/                 attribute weight_names: ["conv1_conv/kernel:0", …]
            conv1_conv/kernel:0
        resnet50/                   a nested model is one group with the weights of all its layers,
            conv1_conv/kernel:0     first of those that were trainable when it was saved
weights_h5      `.weights.h5` of Keras 3 and tf_keras
    layers/
        conv2d/vars/0, 1 …              group: class and count; attribute name of vars: the layer's name
        functional/layers/conv2d/vars   a nested model
        time_distributed/layer/vars     a layer in a layer
    optimizer/, metrics/, vars/         not read
keras_archive   `.keras`: a zip of metadata.json, config.json and model.weights.h5, which is a weights_h5

In legacy_h5 the order of layers in a nested model depends on what was frozen; the order of weights in a layer does
not. In weights_h5, tf_keras writes no names, and before 2.14 `_layer_checkpoint_dependencies` instead of `layers`; the
count is the layer's rank in its class, in the order of `model.layers`.
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
"""Errors of h5py, zipfile, json and struct on damaged or hostile files."""

_LAYERS = ("layers", "_layer_checkpoint_dependencies")
_NOT_THE_MODEL = ("optimizer", "metrics")
_NETWORK = "radtransfer"
"""Attribute of a `.weights.h5` that we converted."""
_MAX_DEPTH = 32

_DOWNLOAD_AGAIN = "Download it again."
_SAVE_AGAIN = "If you trust it, load it in PyTorch, save its state dict again with torch.save, and convert that file."

# The first bytes of files that are not weights, and the message.
_SIGNATURES = (
    (
        rb"(?i)\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|\?xml)",
        "is an HTML page, not HDF5: {file}. Google Drive returns its virus-scan page for large files; "
        "download it in a browser or with gdown.",
    ),
    (rb"version https://git-lfs", 'is a Git LFS pointer, not the file itself: {file}. Run "git lfs pull".'),
    (rb"\x80[\x02-\x05]", "is a pickle or old PyTorch file, which is never opened: {file}. " + _SAVE_AGAIN),
    (rb".{257}ustar", "is a tar as written by PyTorch before 0.2, which is never opened: {file}. " + _SAVE_AGAIN),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "is compressed: {file}. Unpack it first."),
    (rb"Rar!|7z\xbc\xaf", "is a packed archive: {file}. Unpack it and pass the .h5 file in it."),
    (rb"\x93NUMPY", "is a NumPy array: {file}. Pass a Keras file (.h5, .weights.h5, .keras)."),
)


@dataclass(frozen=True)
class SavedLayer:
    """A layer with weights in a file.

    `arrays` maps variable names ("kernel"), or numbers ("0", "1" …) in files without names, to float arrays; paths
    ("query/kernel") in a layer with sub-layers.
    """

    name: str  # "" if the file has no names
    arrays: dict[str, np.ndarray]
    part: str = ""  # path of the sub-model or layer that contains it, "" for the model itself
    kind: str | None = None  # layer class in snake case ("conv2d"), if the file has it
    outer: tuple[str, ...] = ()  # names of the models and layers that contain it, if the file has them
    within: bool = False  # whether it is known to be inside another layer, not a sub-model

    @property
    def label(self) -> str:
        """The name in messages, unique in the file."""
        return "/".join(piece for piece in (self.part, self.name) if piece)


@dataclass(frozen=True)
class WeightFile:
    """All weights of one file; the order of layers that have a `kind` is known only within that kind."""

    path: Path
    format: str
    layers: tuple[SavedLayer, ...] = field(repr=False)
    keras_version: str | None = None
    model_name: str | None = None
    lambdas: tuple[str, ...] = ()  # names of Lambda layers, whose effect is unknown
    backbone: str | None = None  # the network, if the file names it
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network's spec
    preprocessing: str | None = None
    left_out: tuple[str, ...] = ()  # names of other content of the file
    notes: tuple[str, ...] = ()  # what was assumed or changed when it was read

    @property
    def parameters(self) -> int:
        return sum(array.size for layer in self.layers for array in layer.arrays.values())

    @property
    def lambda_note(self) -> str:
        """A note on Lambda layers for the user; "" if there are none."""
        if not self.lambdas:
            return ""
        shown = ", ".join(self.lambdas[:4]) + (", …" if len(self.lambdas) > 4 else "")
        layers = f"{len(self.lambdas)} Lambda layer" + ("s" if len(self.lambdas) > 1 else "")
        return f"{self.path.name} holds {layers} ({shown}), ignored: their effect on the images is unknown"


def read_weight_file(path: Path, *, ignore_lambda: bool = False) -> WeightFile:
    """Read all weights in `path` without executing or unpickling anything.

    With `ignore_lambda`, models with Lambda layers are read too. Raises WeightsError, with the reason, if the file is
    damaged, not supported, or not a weights file.
    """
    check_content(path)
    with reading(path):
        container = container_of(path)
        if container == "hdf5":
            open_hdf5(path).close()
        found = _format_of(path, container)
        lambdas = lambdas_in(path, allowed=ignore_lambda)
        file = replace(_read(path, found), lambdas=lambdas, **(recorded_network(path) if found == "weights_h5" else {}))
        if not file.layers:
            raise WeightsError("holds a model without any weights. Save it again with its weights.")
        return file


def record_network(path: Path, backbone: str, options: Mapping[str, Any], preprocessing: str | None) -> None:
    """Write into a `.weights.h5` which network it is for, and what of its graph is not the backbone's default."""
    with h5py.File(path, "a") as file:
        network = {"backbone": backbone, "options": dict(options), "preprocessing": preprocessing}
        file.attrs[_NETWORK] = json.dumps(network)


def recorded_network(path: Path) -> dict[str, Any]:
    """What `record_network` wrote; empty for files of other origin."""
    if not h5py.is_hdf5(path):
        return {}
    with h5py.File(path) as file:
        return json.loads(text(file.attrs[_NETWORK])) if _NETWORK in file.attrs else {}


def check_is_weights(path: Path) -> None:
    """Raise WeightsError if `path` is not a weights file; its arrays are not read."""
    check_content(path)
    with reading(path):
        _format_of(path, container_of(path))


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_content(path: Path) -> None:
    """Raise WeightsError if the first bytes show that `path` is not a weights file."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1024)
    except FileNotFoundError:
        raise WeightsNotFoundError(f"no weights file at {path}. Expected a Keras or PyTorch file.") from None
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}.") from None
    if not head:
        raise WeightsError(f"weights file is empty (0 bytes): {path}. {_DOWNLOAD_AGAIN}")
    for signature, message in _SIGNATURES:
        if re.match(signature, head, flags=re.DOTALL):
            raise WeightsError("weights file " + message.format(file=f"{path} ({_size(path)})"))
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"weights file is truncated: {path} ({_size(path)}, a zip without end). {_DOWNLOAD_AGAIN}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors in the block into a WeightsError that names `path`."""
    try:
        yield
    except WeightsError as error:
        message = str(error)
        raise WeightsError(message if str(path) in message else f"weights file {path} {message}") from None
    except DAMAGED as error:
        sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
        if sizes:
            found, whole = (int(size) / 1e6 for size in sizes.groups())
            problem = f"weights file is truncated ({found:.1f} of {whole:.1f} MB): {path}. {_DOWNLOAD_AGAIN}"
        else:
            reason = str(error).strip("'\"") or type(error).__name__
            problem = f"weights file is damaged: {path} ({_size(path)}; {reason}). {_DOWNLOAD_AGAIN}"
        raise WeightsError(problem) from None


def bfloat16_to_float32(stored: np.ndarray) -> np.ndarray:
    """NumPy has no bfloat16, which is the upper half of a float32."""
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
    """The layers with their float datasets as arrays; integers are states of random generators or step counts."""
    layers = []
    for layer, leaves in entries:
        arrays = {}
        for leaf, dataset in leaves.items():
            if not isinstance(dataset, h5py.Dataset):
                raise WeightsError(f"holds {type(dataset).__name__.lower()} where an array should be.")
            if dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16":
                arrays[leaf] = bfloat16_to_float32(dataset[()])
            elif dataset.dtype.kind == "f":
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported later
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
    """A list of names; beyond HDF5's size limit Keras splits it into numbered attributes."""
    if attribute in group.attrs:
        return [text(name) for name in group.attrs[attribute]]
    chunks = takewhile(lambda chunk: chunk in group.attrs, (f"{attribute}{number}" for number in count()))
    return [text(name) for chunk in chunks for name in group.attrs[chunk]]


def _legacy_layers(name: str, group: h5py.Group) -> list[tuple[SavedLayer, Mapping[str, Any]]]:
    """The layers in a top-level group: one layer, or those in a nested model or layer."""
    owners: dict[str, dict[str, h5py.Dataset]] = defaultdict(dict)
    for weight in _names(group, "weight_names"):
        path = PurePosixPath(weight)
        leaf = path.name.partition(":")[0]
        owners[str(path.parent)][path.name if leaf in owners[str(path.parent)] else leaf] = group[weight]
    if len(owners) == 1:
        # The layer itself. TensorFlow 1 may have renumbered its weights, so the name of the group is used.
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
    """The layers in `group`, which belongs to a model, a layer or a list of layers.

    `path` are the groups down to this one, without those for the layers of a model; `names` are the names of these
    models and layers, if the file stores them all (`named`). `layer` says whether the group is a layer, `within`
    whether it is inside another layer.
    """
    if depth > _MAX_DEPTH:
        raise WeightsError("nests its groups without end. Download it again.")
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
            # Without a stored name, the group's key distinguishes the layers.
            name = text(_own(item).attrs.get("name", "")) or key
            yield from _entries(item, (*path, key), (*names, name), layer=True, within=layer, **state)


def _own(group: h5py.Group) -> h5py.Group:
    own = group.get("vars")
    return own if isinstance(own, h5py.Group) else group


def _natural(name: str) -> tuple[str, int]:
    """A sort key that puts conv2d_2 before conv2d_10."""
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
        return None  # only shown to the user
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
