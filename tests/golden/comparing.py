"""What must be equal in two folders of golden results, file by file and key by key."""

import csv
import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

IGNORED = {
    *("started", "ended", "written", "prepared", "date_saved", "timings", "seconds"),  # times and durations
    *("versions", "keras_version", "device", "onednn", "hosts"),  # the machine, what is installed on it, free ports
    *("sources_digest", "sources (hash)"),  # of a prepared set: a hash of absolute paths and times
    "module",  # where Python finds a class; its registered name is compared
}
"""Keys and columns that may hold anything; that they are there is compared."""

TEXTS = {
    *("text", "message", "error", "note", "notes", "reason", "advice", "title", "description", "purpose", "notice"),
    *("meaning", "terms", "caller", "inside", "usage", "coarse", "evidence", "verdict"),
}
"""Keys and columns whose words may differ; whether there are any is compared, and numbers are."""

UNCOMPARED = ("data", "cache", "logs", "made.json")
"""In a folder of golden results: what was drawn, what only saves time, what commands printed for people."""

MISSING, TEXT = "(missing)", "(text)"
HASH = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{12}|[0-9a-f]{64})(?![0-9A-Za-z])")
"""The folder of a run in a store, whose name may change, or the hash of a file."""


def compare(first: Path, second: Path, *, tolerance: float = 0.0, only: Sequence[str] = ()) -> list[str]:
    """The differences of two folders of golden results, each a line: file, key, both values.

    `tolerance` is relative; 0 asks for the same bits. `only` names files and folders to look at; without, all.
    Where only some of the commands were run in one of the folders, what the others make is left out.
    """
    found = []
    roots = sorted((_made(folder).get("root", str(folder)) for folder in (first, second)), key=len, reverse=True)
    names = [_names(folder) for folder in (first, second)]
    mine, theirs = (_files(folder, only, own) for folder, own in zip((first, second), names, strict=True))
    partial = any(_made(folder).get("only") for folder in (first, second))
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in mine or name not in theirs:
            if not partial or Path(name).parts[:2] in _folders(mine) & _folders(theirs):
                found.append(f"{name}: only in {first if name in mine else second}")
            continue
        values = [
            {_plain(key, roots, runs): _plain(value, roots, runs) for key, value in flatten(path)}
            for path, runs in zip((mine[name], theirs[name]), names, strict=True)
        ]
        keys = values[0].keys() | values[1].keys()
        if name == "results/exit_codes.json" and partial:
            keys = values[0].keys() & values[1].keys() - {"{}"}
        for key in sorted(keys):
            a, b = (side.get(key, MISSING) for side in values)
            if not _equal(a, b, tolerance):
                found.append(f"{name}: {key}: {_shown(a, b)}")
    return found


def flatten(path: Path) -> Iterator[tuple[str, Any]]:
    """Key path and value of everything in a file that must stay equal; nothing of formats that are for the eye."""
    try:
        yield from _flatten(path.name, path.read_bytes(), "")
    except (ValueError, OSError, KeyError, yaml.YAMLError) as error:
        yield "(cannot be read)", f"{type(error).__name__}: {error}"


def _flatten(name: str, content: bytes, at: str) -> Iterator[tuple[str, Any]]:
    suffix = name.rpartition(".")[2]
    if suffix in ("json", "jsonl"):
        documents = content.splitlines() if suffix == "jsonl" else [content]
        for number, document in enumerate(documents):
            yield from _tree(json.loads(document), f"{at}[{number}]" if suffix == "jsonl" else at)
    elif suffix in ("yaml", "yml"):
        yield from _tree(yaml.safe_load(content), at)
    elif suffix == "csv":
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))
        yield from _table(rows[0] if rows else [], rows[1:], at)
    elif suffix == "parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(io.BytesIO(content))
        yield from _tree(table.to_pydict(), at)
    elif suffix in ("npz", "keras"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for item in sorted(archive.namelist()):
                yield f"{at}{item}!", "stored"
                yield from _flatten(item, archive.read(item), f"{at}{item}!")
    elif suffix == "npy":
        yield f"{at}array", np.load(io.BytesIO(content), allow_pickle=False)
    elif suffix == "h5":
        with h5py.File(io.BytesIO(content)) as file:
            yield from _arrays(file, at)
    elif ".tfrecord" in name:
        yield f"{at}sha256", hashlib.sha256(content).hexdigest()


def _tree(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield f"{at}{{}}", tuple(value)
        for key, item in value.items():
            hashed = isinstance(item, str) and HASH.fullmatch(item)
            if key not in IGNORED and not (hashed and f"{key} (hash)" in IGNORED):
                yield from _tree(_without_words(item) if key in TEXTS else item, f"{at}.{key}")
    elif isinstance(value, list):
        yield f"{at}[]", len(value)
        for number, item in enumerate(value):
            yield from _tree(item, f"{at}[{number}]")
    else:
        yield at, value


def _without_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_words(item) for item in value]
    return TEXT if isinstance(value, str) and value else value


def _table(columns: list[str], rows: list[list[str]], at: str) -> Iterator[tuple[str, Any]]:
    yield f"{at}columns", tuple(columns)
    yield f"{at}rows", len(rows)
    for number, row in enumerate(rows, 1):
        for column, cell in zip(columns, row, strict=True):
            if column not in IGNORED:
                value = _number(cell)
                yield f"{at}row {number}.{column}", _without_words(value) if column in TEXTS else value


def _number(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def _arrays(file: h5py.File, at: str) -> Iterator[tuple[str, Any]]:
    found = []
    file.visititems(lambda name, item: found.append((name, item)))
    for name, item in [("", file), *found]:
        for key, value in item.attrs.items():
            if key in IGNORED:
                continue
            if isinstance(value, bytes | str) and value[:1] in (b"{", "{"):
                yield from _tree(json.loads(value), f"{at}{name}@{key}")
            else:
                yield f"{at}{name}@{key}", np.asarray(value)
        yield f"{at}{name}", item[()] if isinstance(item, h5py.Dataset) else "group"


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if not tolerance or a.dtype.kind != "f":
            return a.tolist() == b.tolist() if a.dtype.hasobject else a.tobytes() == b.tobytes()
        return np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return type(a) is type(b) and a == b


def _shown(a: Any, b: Any) -> str:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape == b.shape and a.dtype == b.dtype and a.dtype.kind in "fiu":
            return f"arrays {a.shape} differ by at most {np.abs(a.astype(float) - b.astype(float)).max():g}"
        return f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"
    return f"{a!r:.200} and {b!r:.200}"


def _files(folder: Path, only: Sequence[str], names: dict[str, str]) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        around = {str(place), *map(str, place.parents)}
        if path.is_file() and place.parts[0] not in UNCOMPARED and (not only or around & set(only)):
            found[_plain(str(place), [], names)] = path
    return found


def _made(folder: Path) -> dict[str, Any]:
    file = folder / "made.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _folders(names: Iterable[str]) -> set[tuple[str, ...]]:
    """What single commands wrote: results/NAME and runs/NAME."""
    return {Path(name).parts[:2] for name in names if len(Path(name).parts) > 2}


def _names(folder: Path) -> dict[str, str]:
    """What addresses of stored runs and hashes of files mean: a run's part in its study, and the file's place.

    A .keras file holds the time at which it was saved, so its hash is another every time, and the address of a run
    that starts from it is, too.
    """
    found = {}
    for file in sorted([*folder.rglob("table.json"), *folder.rglob("sweep.json")]):
        rows = json.loads(file.read_text())
        for row in rows["runs"] if isinstance(rows, dict) else rows:
            labels = [row.get("arm"), row.get("variant"), row.get("through"), *row.get("labels", {}).items()]
            name = " ".join(str(label) for label in labels if label is not None)
            found.setdefault(row["run"].rpartition("/")[2], f"<{name}>")
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".keras", ".h5"):
            name = _plain(str(path.relative_to(folder)), [], found)
            found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), f"<sha256 of {name}>")
    return found


def _plain(value: Any, roots: list[str], names: dict[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(item, roots, names) for item in value)
    if not isinstance(value, str):
        return value
    for root in roots:
        value = value.replace(root, "ROOT")
    return HASH.sub(lambda found: names.get(found[0]) or names.get(found[0][:12]) or found[0], value)
