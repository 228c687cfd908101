"""Judges the architecture in a model file before anything opens it. It is read as text; nothing in it is ever run.

A configuration names classes and functions by module and name, and Keras imports, makes and calls what it names. So
only what is on a list passes: the public layers, functions and other parts of the Keras that is installed, and
radtransfer's own initializers. The list is read from the text of Keras' lists of names; importing Keras would import
TensorFlow.
"""

import ast
import importlib.util
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.container import container_of
from radtransfer.weight_formats.hdf5 import text

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
