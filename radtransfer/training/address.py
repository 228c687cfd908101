"""The address of a run: a hash of everything that determines its numbers.

The order and format of the YAML, the output folder and settings that change no number are left out. Weights enter
by the SHA-256 of their file and their input scale (Keras' own weights by name), data by path, labels, patients and
splits of the table. Pixels are not hashed: that would take too long.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from radtransfer.config.load import config_values
from radtransfer.config.schema import Config
from radtransfer.data.readers import absolute_source
from radtransfer.data.table import ImageTable
from radtransfer.images.refs import file_of
from radtransfer.pretrained.read import sha256_of
from radtransfer.pretrained.source import absolute_weights, find_weights
from radtransfer.runs.folder import FREE_SETTINGS

# Not part of the address. What a recipe sets is part of it, its name is not.
_EXCLUDED = FREE_SETTINGS | {"recipe"}

# Settings added since version 1, with their defaults: left out so that earlier runs keep their addresses.
_ADDED = (
    *(("data.split_column", None), ("data.fold_column", None), ("data.label_separator", None)),
    *(("data.missing_values", "error"), ("data.missing_patients", "own")),
    *(("data.allow_alike_patients", False), ("data.positive_class", None)),
    ("model.ignore_lambda", False),
)


def run_settings(config: Config, *, out: Path) -> dict[str, Any]:
    """The content of `config.yaml`: the settings with absolute paths, so that they work from any folder."""
    values, data, model = config_values(config), config.data, config.model
    values["out"] = str(out.absolute())
    values["system"]["worker_index"] = None  # of one process, not of the run
    if data.source is not None:
        values["data"]["source"] = absolute_source(data.source)
    if data.image_root is not None:
        values["data"]["image_root"] = str(Path(data.image_root).expanduser().absolute())
    values["model"]["weights"] = absolute_weights(model.weights, backbone=model.backbone)
    return values


def run_identity(config: Config, *, table: str, source: str | None = None) -> dict[str, Any]:
    """Everything that determines a run: its settings, `table` from `table_fingerprint`, and its weights.

    `source` is the address of the run whose weights it starts from. Raises WeightsError if the weights are not found.
    """
    settings = dict(dotted_values(run_settings(config, out=Path())))
    weights = {"run": source} if source else _weights_identity(config)
    kept = {name: value for name, value in settings.items() if name not in _EXCLUDED and (name, value) not in _ADDED}
    return kept | {"model.weights": weights, "table": table}


def address(identity: dict[str, Any]) -> str:
    """The SHA-256 of `identity`, 64 hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _weights_identity(config: Config) -> dict[str, Any]:
    given, backbone = config.model.weights, config.model.backbone
    if given == "random":
        return {"random": True}
    source = find_weights(given, backbone=backbone)
    scale = {"preprocessing": source.preprocessing_for(backbone)[0]}
    spec = source.spec
    if spec is not None and spec.keras and given in (spec.name, spec.family):
        return {"keras": spec.files[0]} | scale
    status = source.file.stat()
    return {"sha256": _sha256(source.file, status.st_size, status.st_mtime_ns)} | scale


def table_fingerprint(table: ImageTable) -> str:
    """The SHA-256 of paths, labels, patients and given splits, 64 hexadecimal digits."""
    rows = zip(table.paths, table.labels, table.groups, strict=True)
    lines = [table.task, "\t".join(table.classes), *("\t".join(row) for row in rows)]
    lines += [",".join(split) for split in ([] if table.splits is None else table.splits)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def files_fingerprint(table: ImageTable) -> str:
    """The SHA-256 of names, sizes and times of the image files: it changes when one is replaced."""
    digest = hashlib.sha256()
    files = dict.fromkeys(file_of(place) for place in table.files if place is not None)
    for place in filter(Path.exists, files):
        status = place.stat()
        digest.update(f"{place.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@cache
def _sha256(file: Path, size: int, time: int) -> str:
    """Cached by size and time, so that a changed file is hashed again."""
    return sha256_of(file)


def dotted_values(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost values of nested mappings by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from dotted_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
