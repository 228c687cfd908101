"""Arrays out of HDF5 files that are not trusted: bounded in size, and from this file only.

What a model file is wrapped in, HDF5 or a zip: decided once, by its bytes, and the same for every reader.

Looks at the parts of an HDF5 file over which the HDF5 library, where they are damaged, loops without end or crashes.

Texts of any length, such as names of layers, lie in global heaps: objects one after the other, each with its size.
An object of size 0 is not past itself, and the library reads it for ever, where no signal and no limit reaches it.
An attribute that says it is a list of any length where its text begins ends the process, without a message.
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E, Global Heap, and IV.A.2.d, Datatype.

Judges the architecture in a model file before anything opens it. It is read as text; nothing in it is ever run.

A configuration names classes and functions by module and name, and Keras imports, makes and calls what it names. So
only what is on a list passes: the public layers, functions and other parts of the Keras that is installed, and
radtransfer's own initializers. The list is read from the text of Keras' lists of names; importing Keras would import
TensorFlow.

What a file is that users take for a weights file, told from its content.
"""

import ast
import importlib.util
import io
import json
import mmap
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from radtransfer.errors import WeightsError, WeightsNotFoundError
from radtransfer.pretrained.weight_file import SavedLayer

_MOST_COMPRESSED = 64
"""How many times larger than its file the declared content may be; float weights compress to half."""

Entry = tuple[SavedLayer, Mapping[str, Any]]
"""A saved layer without arrays, and its datasets by leaf name."""


def read_layers(entries: Sequence[Entry]) -> tuple[SavedLayer, ...]:
    """The layers whose datasets hold floats, of a file that `check_self_contained` has passed.

    Integer datasets are no weights (states of random generators, step counts) and are left out.
    """
    floats = [
        (layer, {leaf: dataset for leaf, dataset in leaves.items() if _is_float(dataset)}) for layer, leaves in entries
    ]
    return tuple(
        replace(layer, arrays={leaf: _array(dataset) for leaf, dataset in leaves.items()})
        for layer, leaves in floats
        if leaves
    )


def check_self_contained(file: h5py.File, *, file_size: int) -> None:
    """See that all of a file lies in it, once, and is no larger than its `file_size` bytes can hold. Nothing is read.

    Raises:
        WeightsError: A link or a dataset refers to another place, or more is declared than the file holds.
    """
    declared, links = 0, []
    file.visititems_links(lambda name, link: links.append((name, link)))  # h5py cannot stand an exception in there
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            where = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise WeightsError(f"holds a link, {name}, that refers to {where}; only self-contained files are read.")
        item = file[name]
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            continue
        # A dataset can name any file of the machine as its storage.
        if item.external or item.is_virtual:
            raise WeightsError(f"refers to another file for {item.name}; only self-contained files are read.")
        declared += item.nbytes
    if declared > _MOST_COMPRESSED * file_size + 2**20:
        raise WeightsError(
            f"declares {declared / 1e6:,.0f} MB of weights in {file_size / 1e6:,.1f} MB, which cannot be. "
            "Nothing was read. Download it again."
        )


def text(value: Any) -> str:
    """An attribute of either of HDF5's two kinds of string."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def _is_float(dataset: Any) -> bool:
    if not isinstance(dataset, h5py.Dataset):
        raise WeightsError(f"holds {type(dataset).__name__.lower()} where an array should be.")
    return dataset.dtype.kind == "f" or _is_bfloat16(dataset)


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16"


def _array(dataset: h5py.Dataset) -> np.ndarray:
    if _is_bfloat16(dataset):
        # The upper half of a float32; NumPy has no such type.
        return (dataset[()].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, which is told
        return np.asarray(dataset[()], dtype=np.float32)


_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_DEEPEST, _MOST_OBJECTS = 64, 100_000
"""Groups, one in the other, and groups and datasets of a file."""

_HEADER, _ALIGNMENT = 16, 8
"""Bytes of the header of a heap and of each object in it, and what all sizes are rounded up to."""


def check_heaps(content: bytes | mmap.mmap) -> None:
    """Raises WeightsError if the objects of a global heap do not lie one behind the other up to its end."""
    for found in _HEAP.finditer(content):
        start = found.start()
        # Chance writes these eight bytes into weights once in many files; only sizes that could be of a heap count.
        if start % _ALIGNMENT or start + _HEADER > len(content):
            continue
        (size,) = struct.unpack_from("<Q", content, start + 8)
        if not _HEADER <= size <= len(content) - start:
            raise WeightsError("is damaged: a heap of its texts is cut off. Download it again.")
        _walk(content, start, size)


def check_file_heaps(path: Path) -> None:
    """`check_heaps` of a file, without reading it into memory."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        check_heaps(content)


def check_attributes(file: h5py.File) -> None:
    """Look at every group and dataset, and read no attribute.

    Raises:
        WeightsError: An attribute is a list of any length, or groups are nested, or objects are many, as in no weights
            file; or one stands in two places, so that walking over all places may never end.
    """
    waiting, seen = [(file.id, 0)], set()
    while waiting:
        item, depth = waiting.pop()
        place = h5py.h5o.get_info(item).addr
        if place in seen and not isinstance(item, h5py.h5g.GroupID):
            continue
        if place in seen or depth > _DEEPEST:
            raise WeightsError("nests its groups without end, or has one in two places. Download it again.")
        if len(seen) >= _MOST_OBJECTS:
            raise WeightsError(f"has more than {_MOST_OBJECTS:,} groups and datasets, which no weights file has.")
        seen.add(place)
        for number in range(h5py.h5a.get_num_attrs(item)):
            if h5py.h5a.open(item, index=number).get_type().get_class() == h5py.h5t.VLEN:
                name = h5py.h5i.get_name(item).decode("utf-8", "replace")
                raise WeightsError(f"is damaged: an attribute of {name} is no text. Download it again.")
        if isinstance(item, h5py.h5f.FileID):
            item = h5py.h5g.open(item, b"/")
        if isinstance(item, h5py.h5g.GroupID):
            names = [name for name in item if item.links.get_info(name).type == h5py.h5l.TYPE_HARD]
            waiting += [(h5py.h5o.open(item, name), depth + 1) for name in names]


def _walk(content: bytes | mmap.mmap, start: int, size: int) -> None:
    place = _HEADER
    while place + _HEADER <= size:
        number, _, _, length = struct.unpack_from("<HHIQ", content, start + place)
        # Object 0 is what is free at the end, its own header counted.
        step = length if number == 0 else _HEADER + -(-length // _ALIGNMENT) * _ALIGNMENT
        if step < _HEADER or place + step > size:
            raise WeightsError("is damaged: a text in it is longer than what holds it. Download it again.")
        place += step


WEIGHTS = "model.weights.h5"
"""The HDF5 file in a `.keras` archive."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_COMPRESSED_CONTAINER = 64
"""How many times larger than its file the unpacked content may be."""


def container_of(path: Path) -> Literal["zip", "hdf5"] | None:
    """The container of the file `path`; None if it is neither.

    Raises:
        WeightsError: It is both, so that two readers would read two models.
    """
    zipped, hdf5 = _zip_of(path), h5py.is_hdf5(path)
    if zipped is not None and hdf5 and not _is_within(path, zipped):
        raise WeightsError(
            f"{path} is an HDF5 file and a zip at once, and programs differ in which of the two they read. "
            "Nothing was read. Save the model again."
        )
    return "zip" if zipped is not None else "hdf5" if hdf5 else None


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip in `path`.

    Raises:
        WeightsError: It holds a name twice, begins with something else, or unpacks to far more than it can hold.
    """
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    name, times = Counter(member.filename.casefold() for member in members).most_common(1)[0]
    declared = sum(member.file_size for member in members)
    if times > 1:
        problem = f"holds {name} {times} times, and programs differ in which one they read. Save the model again."
    elif min(member.header_offset for member in members):
        problem = "is a zip with something in front of it. Save the model again."
    elif declared > _MOST_COMPRESSED_CONTAINER * path.stat().st_size + 2**20:
        problem = f"declares {declared / 1e6:,.0f} MB, which cannot be. Nothing was unpacked. Download it again."
    else:
        return archive
    archive.close()
    raise WeightsError(f"weights file {path} {problem}")


def open_hdf5(source: Path | bytes) -> h5py.File:
    """An HDF5 file, or the content of one, that the HDF5 library can read to its end and that names no other file.

    Raises:
        WeightsError: It is damaged, refers to another file, or declares far more than it holds.
    """
    if isinstance(source, bytes):
        check_heaps(source)
        file, size = h5py.File(io.BytesIO(source), "r"), len(source)
    else:
        check_file_heaps(source)
        file, size = h5py.File(source, "r"), source.stat().st_size
    try:
        check_attributes(file)
        check_self_contained(file, file_size=size)
    except BaseException:
        file.close()
        raise
    return file


def _zip_of(path: Path) -> list[zipfile.ZipInfo] | None:
    """The members of a zip; None where chance wrote the four bytes of a zip's end, or there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist() or None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return None


def _is_within(path: Path, members: list[zipfile.ZipInfo]) -> bool:
    """Whether the HDF5 that readers find in `path` is the stored weights, which happen to lie where they look."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        looked_at = (0, *(512 << power for power in range(64) if 512 << power < len(content)))
        found = next((place for place in looked_at if content[place : place + 8] == _SIGNATURE), None)
        for member in members:
            start = member.header_offset
            name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
            if member.filename == WEIGHTS and not member.compress_type and start + 30 + name + extra == found:
                return True
    return False


_LARGEST_JSON = 64 * 2**20
_LAMBDA = {"Lambda": "a Lambda layer", "__lambda__": "a Python function"}
_CODE = _LAMBDA | {"TorchModuleWrapper": "a pickled PyTorch module"}
"""Classes whose saved form is a program, and what to call them."""

_OTHER_PROGRAMS = {*_CODE, "TFSMLayer", "JaxLayer", "FlaxLayer"}
"""Public layers that are whatever a file has them be."""

_CLASSES = (
    *("layers", "models", "initializers", "regularizers", "constraints", "quantizers", "dtype_policies", "random"),
    *("losses", "metrics", "optimizers", "optimizers.schedules"),  # a model within a model may be compiled
)
_FUNCTIONS = ("activations", "losses", "metrics", "ops")
_ANY = ("get", "serialize", "deserialize", "Input")
"""Public functions that make other things."""

_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
_VALUES |= {"TensorShape", "__tuple__"}  # of Keras 2
"""What Keras writes like classes, but reads as plain values."""

_FILE_KEY = re.compile(
    r"(.*_)?(vocabulary|file|filepath|filename|fname|path|dir|directory|folder|url|uri|origin|asset)s?"
)
_FILE_VALUE = re.compile(r"[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[A-Za-z][\w+.-]*://")


def lambdas_in(path: Path, *, allowed: bool) -> tuple[str, ...]:
    """The names of the Lambda layers and functions in the model in `path`, of which the weights alone are wanted.

    Raises:
        WeightsError: There are some and they are not `allowed`, or it carries code of another kind.
    """
    found = []
    for part in _parts(_without_training(_architecture(path))):
        kind = str(part.get("class_name"))
        if "config" in part and kind in _CODE:
            if not allowed or kind not in _LAMBDA:
                raise WeightsError(_carries(path, part))
            if kind == "Lambda":
                found.append(str(_name(part) or "a Lambda layer"))
    return tuple(dict.fromkeys(found))


def check_is_plain_keras(path: Path) -> None:
    """Raises WeightsError unless the model in `path` is made of nothing but what is on the list, without files."""
    architecture = _architecture(path)
    if not isinstance(architecture, dict):
        raise WeightsError(f"{path} is not a model that Keras can load: it holds no architecture that can be read.")
    for part in _parts(_without_training(architecture)):
        if "class_name" in part and not _is_listed(part):
            raise WeightsError(_carries(path, part) if str(part["class_name"]) in _CODE else _needs(path, part))
        for key, value in part.items():
            if _names_file(key, value):
                shown = value if isinstance(value, str) else json.dumps(value)
                raise WeightsError(
                    f"{path} names a file, {key}: {shown[:200]!r}, which no image network needs; nothing was opened. "
                    "Save the model again with what the file holds."
                )


def _is_listed(part: dict[str, Any]) -> bool:
    """Whether Keras can find nothing but a listed class or function by the three names in `part`."""
    name, module, registered = (part.get(key) for key in ("class_name", "module", "registered_name"))
    if not all(value is None or isinstance(value, str) for value in (name, module, registered)):
        return False
    if name in _VALUES:
        return module is None and registered is None
    if name == "function":
        function = part.get("config")
        return isinstance(function, str) and (module, function) in _functions() and registered in (None, function)
    package, _, own = (registered or name or "").partition(">")
    if package == "radtransfer" and own:  # Keras looks among registered names first
        return name in (own, f"radtransfer>{own}") and (module or package).partition(".")[0] == package
    return (module, name) in _classes() and registered in (None, name)


def _names_file(key: str, value: Any) -> bool:
    if isinstance(value, str) and _FILE_VALUE.match(value):
        return True
    return _FILE_KEY.fullmatch(key) is not None and isinstance(value, (str, dict)) and bool(value)


@cache
def _classes() -> frozenset[tuple[str | None, str]]:
    """The module and name of every class that is allowed; None for the module that old files leave out."""
    root = _keras_folder()
    found = {pair for kind in _CLASSES for pair in _public(root, kind) if pair[1][0].isupper()}
    found |= {("keras", name) for module, name in _public(root, "") if (module, name) in found}
    found.add(("keras.src.models.functional", "Functional"))
    for kind in ("ops", "applications"):  # operations, and what Keras' own networks need beside public layers
        for file in (root / "src" / kind).glob("*.py"):
            names = re.findall(r"^class ([A-Za-z]\w*)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            found |= {(f"keras.src.{kind}.{file.stem}", name) for name in names if not file.stem.endswith("_test")}
    found = {pair for pair in found if pair[1] not in {*_OTHER_PROGRAMS, *_ANY}}
    return frozenset(found | {(None, name) for module, name in found if not module.startswith("keras.src.ops.")})


@cache
def _functions() -> frozenset[tuple[str, str]]:
    """The module and name of every function that is allowed."""
    found = {pair for kind in _FUNCTIONS for pair in _public(_keras_folder(), kind) if pair[1] not in _ANY}
    return frozenset(found | {("builtins", name) for _, name in found})


def _public(root: Path, kind: str) -> Iterator[tuple[str, str]]:
    """What `keras.KIND` exports: (keras.KIND, name), and where that is defined and called."""
    file = root.joinpath(*kind.split("."), "__init__.py")
    for statement in ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else ():
        for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
            yield f"keras.{kind}".rstrip("."), alias.asname or alias.name
            yield statement.module, alias.name


def _keras_folder() -> Path:
    return Path(importlib.util.find_spec("keras").origin).parent


def _architecture(path: Path) -> Any:
    """The configuration that the file holds, as Keras reads it; None where there is none that can be read."""
    try:
        if container_of(path) == "zip":
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > _LARGEST_JSON:
                    raise WeightsError(f"weights file {path} has a config.json of more than 64 MB. Download it again.")
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            return json.loads(text(file.attrs["model_config"]))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error):
        return None


def _without_training(architecture: Any) -> Any:
    """Without what the whole model was compiled with, which Keras is told not to read."""
    return architecture | {"compile_config": None} if isinstance(architecture, dict) else architecture


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in nested values."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += reversed(item.values())
        elif isinstance(item, list):
            waiting += reversed(item)


def _name(part: dict[str, Any]) -> str | None:
    return part["config"].get("name") if isinstance(part.get("config"), dict) else None


def _carries(path: Path, part: dict[str, Any]) -> str:
    where = f" ({_name(part)!r})" if _name(part) else ""
    take = ", or take them with --ignore-lambda (radtransfer weights convert)" if part["class_name"] in _LAMBDA else ""
    return (
        f"weights file {path} carries code, {_CODE[part['class_name']]}{where}, which is never run: whatever it did to "
        f"the images would be lost. Where you trust the file, save its weights alone with save_weights{take}."
    )


def _needs(path: Path, part: dict[str, Any]) -> str:
    name = part.get("config") if part["class_name"] == "function" else part["class_name"]
    registered = part.get("registered_name")
    what = ".".join(str(value) for value in (part.get("module"), name) if value)
    what += "" if registered in (None, name) else f" (registered as {registered})"
    return (
        f"{path} needs {what[:300]}, which is none of the layers, operations and functions of Keras that an image "
        "network is made of; nothing was opened. Build the network in Python and compare it there."
    )


_AGAIN = "Download it again."
_CONVERT = "Make a Keras file of it: radtransfer weights convert FILE OUT.weights.h5"
_SAVE_AGAIN = "Where it is trusted, load it in PyTorch and torch.save its state dict again, then convert that"

# The first bytes of files that are not weights, and what to say.
_BEGINNINGS = (
    (
        rb"(?i)\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|\?xml)",
        "is an HTML page, not HDF5: {file}. Google Drive returns its virus-scan page for large files; "
        "download it in a browser or with gdown.",
    ),
    (rb"version https://git-lfs", 'is a Git LFS pointer, not the file itself: {file}. Run "git lfs pull".'),
    (rb"\x80[\x02-\x05]", "is a pickle or old PyTorch file, never opened: {file}. " + _SAVE_AGAIN + "."),
    (rb".{257}ustar", "is a tar, as PyTorch wrote before 0.2, never opened: {file}. " + _SAVE_AGAIN + "."),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "is compressed: {file}. Unpack it first."),
    (rb"Rar!|7z\xbc\xaf", "is a packed archive: {file}. Unpack it and pass the .h5 file in it."),
    (rb"\x93NUMPY", "is a NumPy array: {file}. Pass a Keras file (.h5, .weights.h5, .keras)."),
)


def check_content(path: Path) -> None:
    """Raises WeightsError if the first bytes show that `path` is no weights file."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1024)
    except FileNotFoundError:
        raise WeightsNotFoundError(f"no weights file at {path}.") from None
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}.") from None
    if not head:
        raise WeightsError(f"weights file is empty (0 bytes): {path}. {_AGAIN}")
    for beginning, message in _BEGINNINGS:
        if re.match(beginning, head, flags=re.DOTALL):
            raise WeightsError("weights file " + message.format(file=f"{path} ({_size(path)})"))
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"weights file is truncated: {path} ({_size(path)}, a zip without end). {_AGAIN}")


def damage(path: Path, error: Exception) -> str:
    """What an exception raised while reading tells the user."""
    sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
    if sizes:
        found, whole = (int(size) / 1e6 for size in sizes.groups())
        return f"weights file is truncated ({found:.1f} of {whole:.1f} MB): {path}. {_AGAIN}"
    reason = str(error).strip("'\"") or type(error).__name__
    return f"weights file is damaged: {path} ({_size(path)}; {reason}). {_AGAIN}"


def no_weights(path: Path) -> str:
    """What to say about a file that no format recognizes."""
    if zipfile.is_zipfile(path):
        return _no_weights_in_zip(path)
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


def _no_weights_in_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return f"weights file is a PyTorch file: {path} ({_size(path)}). {_CONVERT}."
    inside = [name for name in names if name.endswith((".h5", ".keras", ".hdf5"))]
    if inside:
        return f"{path} is a zip that holds {', '.join(inside[:5])}. Unpack it and pass one of them."
    return (
        f"{path} is a zip but not a .keras file (it holds {', '.join(names[:5]) or 'nothing'}). "
        "Expected config.json and model.weights.h5 in it."
    )


def _size(path: Path) -> str:
    size = path.stat().st_size
    if size >= 1e6:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"
