"""Checks model files before zipfile, h5py or Keras read them. Nothing in a file is trusted, and nothing is run.

Container   HDF5 or a zip, recognized by its bytes, unambiguous for every reader, with a plausible declared size.
HDF5        The HDF5 library hangs on a text of size 0 in a global heap, where no signal and no limit stops it, and
            crashes on an attribute that declares a list of variable length where its text begins.
            https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E, Global Heap, IV.A.2.d, Datatype.
Model       A configuration names classes and functions by module and name, and Keras imports, creates and calls them.
            Only an allowlist passes: the public layers, functions and other parts of the installed Keras, and
            radtransfer's own initializers. The list is read from the source of Keras, as importing Keras would import
            TensorFlow.
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
"""Maximum bytes of a configuration."""

_MAX_COMPRESSION = 64
"""Maximum size of the declared content over that of the file; float weights compress to about half."""

_MAX_DEPTH, _MAX_OBJECTS = 64, 100_000
"""Limits on nested groups and on groups and datasets in an HDF5 file."""

_HEAP = re.compile(rb"GCOL\x01\0\0\0")
_HEADER, _ALIGNMENT = 16, 8
"""Bytes of the header of a heap and of each object in it; sizes are multiples of the alignment."""


def container_of(path: Path) -> Literal["zip", "hdf5"] | None:
    """The container of the file, None if it is neither; raises WeightsError if it is both."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        members = []  # weights may contain the four bytes of a zip's end by chance
    hdf5 = h5py.is_hdf5(path)
    if members and hdf5 and not _is_within(path, members):
        raise WeightsError(
            f"{path} is both an HDF5 file and a zip, and programs differ in which of the two they read. "
            "Nothing was read. Save the model again."
        )
    return "zip" if members else "hdf5" if hdf5 else None


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open the zip `path`; raises WeightsError if it is ambiguous or declares far too much content."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    name, times = Counter(member.filename.casefold() for member in members).most_common(1)[0]
    declared = sum(member.file_size for member in members)
    if times > 1:
        problem = f"holds {name} {times} times, and programs differ in which one they read. Save the model again."
    elif min(member.header_offset for member in members):
        problem = "is a zip with other data in front of it. Save the model again."
    elif declared > _MAX_COMPRESSION * path.stat().st_size + 2**20:
        problem = f"declares {declared / 1e6:,.0f} MB, which is impossible. Nothing was unpacked. Download it again."
    else:
        return archive
    archive.close()
    raise WeightsError(f"weights file {path} {problem}")


def open_hdf5(source: Path | bytes) -> h5py.File:
    """Open an HDF5 file, or the content of one, after checks that the HDF5 library can read it.

    Raises WeightsError if it is damaged, refers to another file, or declares far more data than it contains.
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
    """Raise WeightsError unless the objects of every global heap follow one another up to its end."""
    for found in _HEAP.finditer(content):
        start = found.start()
        # Weights may contain these eight bytes by chance, so the sizes are checked as well.
        if start % _ALIGNMENT or start + _HEADER > len(content):
            continue
        (size,) = struct.unpack_from("<Q", content, start + 8)
        if not _HEADER <= size <= len(content) - start:
            raise WeightsError("is damaged: a heap of texts is truncated. Download it again.")
        place = _HEADER
        while place + _HEADER <= size:
            number, _, _, length = struct.unpack_from("<HHIQ", content, start + place)
            # Object 0 is the free space at the end, including its header.
            step = length if number == 0 else _HEADER + -(-length // _ALIGNMENT) * _ALIGNMENT
            if step < _HEADER or place + step > size:
                raise WeightsError("is damaged: a text exceeds its heap. Download it again.")
            place += step


def check_attributes(file: h5py.File) -> None:
    """Check every group and dataset without reading an attribute.

    Raises WeightsError if an attribute is a list of variable length, groups are nested too deeply or in a circle, or
    there are too many objects.
    """
    waiting, seen = [(file.id, 0)], set()
    while waiting:
        item, depth = waiting.pop()
        place = h5py.h5o.get_info(item).addr
        if place in seen and not isinstance(item, h5py.h5g.GroupID):
            continue
        if place in seen or depth > _MAX_DEPTH:
            raise WeightsError("nests its groups without end, or has one in two places. Download it again.")
        if len(seen) >= _MAX_OBJECTS:
            raise WeightsError(f"has more than {_MAX_OBJECTS:,} groups and datasets, too many for a weights file.")
        seen.add(place)
        for number in range(h5py.h5a.get_num_attrs(item)):
            if h5py.h5a.open(item, index=number).get_type().get_class() == h5py.h5t.VLEN:
                name = h5py.h5i.get_name(item).decode("utf-8", "replace")
                raise WeightsError(f"is damaged: an attribute of {name} is not a text. Download it again.")
        if isinstance(item, h5py.h5f.FileID):
            item = h5py.h5g.open(item, b"/")
        if isinstance(item, h5py.h5g.GroupID):
            names = [name for name in item if item.links.get_info(name).type == h5py.h5l.TYPE_HARD]
            waiting += [(h5py.h5o.open(item, name), depth + 1) for name in names]


def text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _check_self_contained(file: h5py.File, file_size: int) -> None:
    """Raise WeightsError if a link or dataset refers to another place, or far too much data is declared."""
    declared, links = 0, []
    file.visititems_links(lambda name, link: links.append((name, link)))  # h5py allows no exception in the callback
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
    if declared > _MAX_COMPRESSION * file_size + 2**20:
        raise WeightsError(
            f"declares {declared / 1e6:,.0f} MB of weights in {file_size / 1e6:,.1f} MB, which is impossible. "
            "Nothing was read. Download it again."
        )


def _is_within(path: Path, members: list[zipfile.ZipInfo]) -> bool:
    """Whether the HDF5 signature in the zip is that of its uncompressed model.weights.h5."""
    with _mapped(path) as content:
        # The offsets at which HDF5 readers search the signature.
        offsets = (0, *(512 << power for power in range(64) if 512 << power < len(content)))
        found = next((offset for offset in offsets if content[offset : offset + 8] == b"\x89HDF\r\n\x1a\n"), None)
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
"""Classes whose saved form contains a program, and their names in messages."""

_OTHER_PROGRAMS = {*_CODE, "TFSMLayer", "JaxLayer", "FlaxLayer"}
"""Public layers that run a program from a file."""

_CLASSES = (
    *("layers", "models", "initializers", "regularizers", "constraints", "quantizers", "dtype_policies", "random"),
    *("losses", "metrics", "optimizers", "optimizers.schedules"),  # a nested model may be compiled
)
_FUNCTIONS = ("activations", "losses", "metrics", "ops")
_FACTORIES = ("get", "serialize", "deserialize", "Input")
"""Public functions that create other objects."""

_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
_VALUES |= {"TensorShape", "__tuple__"}  # Keras 2
"""Written by Keras like classes, but read as plain values."""

_FILE_KEY = re.compile(
    r"(.*_)?(vocabulary|file|filepath|filename|fname|path|dir|directory|folder|url|uri|origin|asset)s?"
)
_FILE_VALUE = re.compile(r"[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[A-Za-z][\w+.-]*://")


def lambdas_in(path: Path, *, allowed: bool) -> tuple[str, ...]:
    """The names of the Lambda layers and functions of the model in `path`, when only its weights are read.

    Raises WeightsError if there are any and they are not `allowed`, or if the file carries other code.
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
    """Raise WeightsError unless the model in `path` consists of allowed parts only and names no files."""
    architecture = _architecture(path)
    if not isinstance(architecture, dict):
        raise WeightsError(f"{path} is not a model that Keras can load: it holds no readable architecture.")
    for part in _parts(architecture):
        if "class_name" in part and not _is_listed(part):
            if str(part["class_name"]) in _CODE:
                raise WeightsError(_carries(path, part))
            name = part.get("config") if part["class_name"] == "function" else part["class_name"]
            registered = part.get("registered_name")
            what = ".".join(str(value) for value in (part.get("module"), name) if value)
            what += "" if registered in (None, name) else f" (registered as {registered})"
            raise WeightsError(
                f"{path} needs {what[:300]}, which is not one of the layers, operations and functions of Keras for "
                "image networks; nothing was opened. Build the network in Python and compare it there."
            )
        for key, value in part.items():
            is_file = _FILE_KEY.fullmatch(key) is not None and isinstance(value, (str, dict)) and bool(value)
            if is_file or (isinstance(value, str) and _FILE_VALUE.match(value)):
                shown = value if isinstance(value, str) else json.dumps(value)
                raise WeightsError(
                    f"{path} names a file, {key}: {shown[:200]!r}, which no image network needs; nothing was opened. "
                    "Save the model again with the content of the file."
                )


def _architecture(path: Path) -> Any:
    """The configuration of the model, without its compile configuration; None if there is no readable one."""
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
    """Whether the three names in `part` can only mean an allowed class or function to Keras."""
    name, module, registered = (part.get(key) for key in ("class_name", "module", "registered_name"))
    if not all(value is None or isinstance(value, str) for value in (name, module, registered)):
        return False
    if name in _VALUES:
        return module is None and registered is None
    if name == "function":
        function = part.get("config")
        return isinstance(function, str) and (module, function) in _functions() and registered in (None, function)
    package, _, own = (registered or name or "").partition(">")
    if package == "radtransfer" and own:  # Keras looks up registered names first
        return name in (own, f"radtransfer>{own}") and (module or package).partition(".")[0] == package
    return (module, name) in _classes() and registered in (None, name)


@cache
def _classes() -> frozenset[tuple[str | None, str]]:
    """The module and name of every allowed class; the module is None in old files."""
    root = Path(importlib.util.find_spec("keras").origin).parent
    found = {pair for kind in _CLASSES for pair in _public(kind) if pair[1][0].isupper()}
    found |= {("keras", name) for module, name in _public("") if (module, name) in found}
    found.add(("keras.src.models.functional", "Functional"))
    for kind in ("ops", "applications"):  # operations, and private layers of Keras' own networks
        for file in (root / "src" / kind).glob("*.py"):
            names = re.findall(r"^class ([A-Za-z]\w*)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            found |= {(f"keras.src.{kind}.{file.stem}", name) for name in names if not file.stem.endswith("_test")}
    found = {pair for pair in found if pair[1] not in {*_OTHER_PROGRAMS, *_FACTORIES}}
    return frozenset(found | {(None, name) for module, name in found if not module.startswith("keras.src.ops.")})


@cache
def _functions() -> frozenset[tuple[str, str]]:
    found = {pair for kind in _FUNCTIONS for pair in _public(kind) if pair[1] not in _FACTORIES}
    return frozenset(found | {("builtins", name) for _, name in found})


def _public(kind: str) -> Iterator[tuple[str, str]]:
    """The exports of `keras.KIND`: (keras.KIND, name), and the module and name of the definition."""
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
    extract = ", or extract them with radtransfer weights convert --ignore-lambda"
    return (
        f"weights file {path} carries code, {_CODE[part['class_name']]}{where}, which is never run, so its effect on "
        "the images would be lost. If you trust the file, save its weights alone with save_weights"
        f"{extract if part['class_name'] in _LAMBDA else ''}."
    )
