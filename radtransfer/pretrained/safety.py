"""What a model file may hold before zipfile, h5py or Keras read it. Nothing in a file is trusted, and nothing is run.

Container   HDF5 or a zip, told by the bytes, the same for every reader; small enough for what it declares.
HDF5        The HDF5 library loops without end on a text of size 0 in a global heap, where no signal and no limit
            reaches it, and ends the process on an attribute that says it is a list of any length where its text begins.
            https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E, Global Heap, IV.A.2.d, Datatype.
Model       A configuration names classes and functions by module and name, and Keras imports, makes and calls what it
            names. Only what is on a list passes: the public layers, functions and other parts of the installed Keras,
            and radtransfer's own initializers. The list is read from the text of Keras' lists of names; importing Keras
            would import TensorFlow.
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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import h5py

from radtransfer.errors import WeightsError

MODEL_WEIGHTS = "model.weights.h5"
"""The HDF5 file in a `.keras` archive."""

LARGEST_JSON = 64 * 2**20
"""Bytes of a configuration that is read."""

_MOST_COMPRESSED = 64
"""How many times larger than its file the declared content may be; float weights compress to half."""

_MOST_DEEP, _MOST_OBJECTS = 64, 100_000
"""Groups, one in the other, and groups and datasets of an HDF5 file."""

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_HEADER, _ALIGNMENT = 16, 8
"""Bytes of the header of a heap and of each object in it, and what all sizes are rounded up to."""


def container_of(path: Path) -> Literal["zip", "hdf5"] | None:
    """The container of the file `path`, None if it is neither; raises WeightsError if it is both at once."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        members = []  # chance may write the four bytes of a zip's end
    hdf5 = h5py.is_hdf5(path)
    if members and hdf5 and not _is_within(path, members):
        raise WeightsError(
            f"{path} is an HDF5 file and a zip at once, and programs differ in which of the two they read. "
            "Nothing was read. Save the model again."
        )
    return "zip" if members else "hdf5" if hdf5 else None


def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip in `path`; raises WeightsError if readers could differ about it, or it unpacks to far too much."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    name, times = Counter(member.filename.casefold() for member in members).most_common(1)[0]
    declared = sum(member.file_size for member in members)
    if times > 1:
        problem = f"holds {name} {times} times, and programs differ in which one they read. Save the model again."
    elif min(member.header_offset for member in members):
        problem = "is a zip with something in front of it. Save the model again."
    elif declared > _MOST_COMPRESSED * path.stat().st_size + 2**20:
        problem = f"declares {declared / 1e6:,.0f} MB, which cannot be. Nothing was unpacked. Download it again."
    else:
        return archive
    archive.close()
    raise WeightsError(f"weights file {path} {problem}")


def open_hdf5(source: Path | bytes) -> h5py.File:
    """An HDF5 file, or the content of one, that the HDF5 library can read to its end and that names no other file.

    Raises WeightsError if it is damaged, refers to another file, or declares far more than it holds.
    """
    if isinstance(source, bytes):
        check_heaps(source)
        file, size = h5py.File(io.BytesIO(source), "r"), len(source)
    else:
        with _mapped(source) as content:
            check_heaps(content)
        file, size = h5py.File(source, "r"), source.stat().st_size
    try:
        check_attributes(file)
        _check_self_contained(file, size)
    except BaseException:
        file.close()
        raise
    return file


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
        place = _HEADER
        while place + _HEADER <= size:
            number, _, _, length = struct.unpack_from("<HHIQ", content, start + place)
            # Object 0 is what is free at the end, its own header counted.
            step = length if number == 0 else _HEADER + -(-length // _ALIGNMENT) * _ALIGNMENT
            if step < _HEADER or place + step > size:
                raise WeightsError("is damaged: a text in it is longer than what holds it. Download it again.")
            place += step


def check_attributes(file: h5py.File) -> None:
    """Look at every group and dataset, and read no attribute.

    Raises WeightsError if an attribute is a list of any length, groups are nested too deeply, objects are too many, or
    one stands in two places, so that walking over all places may never end.
    """
    waiting, seen = [(file.id, 0)], set()
    while waiting:
        item, depth = waiting.pop()
        place = h5py.h5o.get_info(item).addr
        if place in seen and not isinstance(item, h5py.h5g.GroupID):
            continue
        if place in seen or depth > _MOST_DEEP:
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


def text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _check_self_contained(file: h5py.File, file_size: int) -> None:
    """Raises WeightsError if a link or a dataset leads elsewhere, or more is declared than the file can hold."""
    declared, links = 0, []
    file.visititems_links(lambda name, link: links.append((name, link)))  # h5py cannot stand an exception in there
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            where = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise WeightsError(f"holds a link, {name}, that refers to {where}; only self-contained files are read.")
        item = file[name]
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            continue
        if item.external or item.is_virtual:  # a dataset can name any file of the machine as its storage
            raise WeightsError(f"refers to another file for {item.name}; only self-contained files are read.")
        declared += item.nbytes
    if declared > _MOST_COMPRESSED * file_size + 2**20:
        raise WeightsError(
            f"declares {declared / 1e6:,.0f} MB of weights in {file_size / 1e6:,.1f} MB, which cannot be. "
            "Nothing was read. Download it again."
        )


def _is_within(path: Path, members: list[zipfile.ZipInfo]) -> bool:
    """Whether the HDF5 that readers find in `path` is the stored weights, which happen to lie where they look."""
    with _mapped(path) as content:
        looked_at = (0, *(512 << power for power in range(64) if 512 << power < len(content)))
        found = next((place for place in looked_at if content[place : place + 8] == b"\x89HDF\r\n\x1a\n"), None)
        for member in members:
            start = member.header_offset
            name, extra = (int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
            if member.filename == MODEL_WEIGHTS and not member.compress_type and start + 30 + name + extra == found:
                return True
    return False


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


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

    Raises WeightsError if there are some and they are not `allowed`, or if it carries code of another kind.
    """
    found = []
    for part in _parts(_architecture(path)):
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
    for part in _parts(architecture):
        if "class_name" in part and not _is_listed(part):
            if str(part["class_name"]) in _CODE:
                raise WeightsError(_carries(path, part))
            name = part.get("config") if part["class_name"] == "function" else part["class_name"]
            registered = part.get("registered_name")
            what = ".".join(str(value) for value in (part.get("module"), name) if value)
            what += "" if registered in (None, name) else f" (registered as {registered})"
            raise WeightsError(
                f"{path} needs {what[:300]}, which is none of the layers, operations and functions of Keras that an "
                "image network is made of; nothing was opened. Build the network in Python and compare it there."
            )
        for key, value in part.items():
            is_file = _FILE_KEY.fullmatch(key) is not None and isinstance(value, (str, dict)) and bool(value)
            if is_file or (isinstance(value, str) and _FILE_VALUE.match(value)):
                shown = value if isinstance(value, str) else json.dumps(value)
                raise WeightsError(
                    f"{path} names a file, {key}: {shown[:200]!r}, which no image network needs; nothing was opened. "
                    "Save the model again with what the file holds."
                )


def _architecture(path: Path) -> Any:
    """The configuration that the file holds, as Keras reads it; None where there is none that can be read.

    Without what the whole model was compiled with, which Keras is told not to read.
    """
    try:
        if container_of(path) == "zip":
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > LARGEST_JSON:
                    raise WeightsError(f"weights file {path} has a config.json of more than 64 MB. Download it again.")
                found = json.loads(archive.read("config.json"))
        else:
            with h5py.File(path) as file:
                found = json.loads(text(file.attrs["model_config"]))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error):
        return None
    return found | {"compile_config": None} if isinstance(found, dict) else found


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


@cache
def _classes() -> frozenset[tuple[str | None, str]]:
    """The module and name of every class that is allowed; None for the module that old files leave out."""
    root = Path(importlib.util.find_spec("keras").origin).parent
    found = {pair for kind in _CLASSES for pair in _public(kind) if pair[1][0].isupper()}
    found |= {("keras", name) for module, name in _public("") if (module, name) in found}
    found.add(("keras.src.models.functional", "Functional"))
    for kind in ("ops", "applications"):  # operations, and what Keras' own networks need beside public layers
        for file in (root / "src" / kind).glob("*.py"):
            names = re.findall(r"^class ([A-Za-z]\w*)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            found |= {(f"keras.src.{kind}.{file.stem}", name) for name in names if not file.stem.endswith("_test")}
    found = {pair for pair in found if pair[1] not in {*_OTHER_PROGRAMS, *_ANY}}
    return frozenset(found | {(None, name) for module, name in found if not module.startswith("keras.src.ops.")})


@cache
def _functions() -> frozenset[tuple[str, str]]:
    found = {pair for kind in _FUNCTIONS for pair in _public(kind) if pair[1] not in _ANY}
    return frozenset(found | {("builtins", name) for _, name in found})


def _public(kind: str) -> Iterator[tuple[str, str]]:
    """What `keras.KIND` exports: (keras.KIND, name), and where that is defined and called."""
    root = Path(importlib.util.find_spec("keras").origin).parent
    file = root.joinpath(*kind.split("."), "__init__.py")
    for statement in ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else ():
        for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
            yield f"keras.{kind}".rstrip("."), alias.asname or alias.name
            yield statement.module, alias.name


def _name(part: dict[str, Any]) -> str | None:
    return part["config"].get("name") if isinstance(part.get("config"), dict) else None


def _carries(path: Path, part: dict[str, Any]) -> str:
    where = f" ({_name(part)!r})" if _name(part) else ""
    take = ", or take them with --ignore-lambda (radtransfer weights convert)" if part["class_name"] in _LAMBDA else ""
    return (
        f"weights file {path} carries code, {_CODE[part['class_name']]}{where}, which is never run: whatever it did to "
        f"the images would be lost. Where you trust the file, save its weights alone with save_weights{take}."
    )
