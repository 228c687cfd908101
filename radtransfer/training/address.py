"""What determines a run, and its address: the hash of that.

Two configs have one address if no number of their runs can differ: whatever the order and form of their YAML, the
folder they are run in, and settings that change no number. The weights count by the content of their file and the
input scale it is known for; Keras' own, which Keras checks itself, by name. The data counts by its place, and by the
paths, labels, patients and splits that its table gives; pixels are not read, as they are far too many.
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
from radtransfer.runs.folder import FREE

_LABELS = FREE | {"recipe"}  # settings that are no part of the address; what a recipe sets is

_ADDED = (
    *(("data.split_column", None), ("data.fold_column", None), ("data.label_separator", None)),
    *(("data.missing_values", "error"), ("data.missing_patients", "own")),
    *(("data.allow_alike_patients", False), ("data.positive_class", None)),
    ("model.ignore_lambda", False),
)
"""Settings that earlier versions lacked, and their defaults: these leave the addresses of earlier runs as they were."""


def run_settings(config: Config, *, out: Path) -> dict[str, Any]:
    """What `config.yaml` says: the settings with full paths, so that they run from every folder."""
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
    """All that determines a run: its settings, `table` from `table_fingerprint`, and its weights.

    `source` is the address of the run that it starts from. WeightsError: The weights are not found, or do not fit.
    """
    settings = dict(dotted_values(run_settings(config, out=Path())))
    weights = {"run": source} if source else weights_identity(config)
    kept = {name: value for name, value in settings.items() if name not in _LABELS and (name, value) not in _ADDED}
    return kept | {"model.weights": weights, "table": table}


def address(identity: dict[str, Any]) -> str:
    """64 hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_identity(config: Config) -> dict[str, Any]:
    """What the weights are, wherever they lie."""
    given, backbone = config.model.weights, config.model.backbone
    if given == "random":
        return {"random": True}
    source = find_weights(given, backbone=backbone)
    scale = {"preprocessing": source.preprocessing_for(backbone)[0]}
    if source.card is not None and source.card.keras and given in (source.card.name, source.card.family):
        return {"keras": source.card.files[0]} | scale
    status = source.file.stat()
    return {"sha256": _sha256(source.file, status.st_size, status.st_mtime_ns)} | scale


def table_fingerprint(table: ImageTable) -> str:
    """Of paths, labels, patients and given splits: 64 hexadecimal digits."""
    rows = zip(table.paths, table.labels, table.groups, strict=True)
    lines = [table.task, "\t".join(table.classes), *("\t".join(row) for row in rows)]
    lines += [",".join(split) for split in ([] if table.splits is None else table.splits)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def files_fingerprint(table: ImageTable) -> str:
    """Of the sizes and times of the image files; it changes when one is replaced. Costs a look at each file."""
    digest = hashlib.sha256()
    files = dict.fromkeys(file_of(place) for place in table.files if place is not None)
    for place in filter(Path.exists, files):
        status = place.stat()
        digest.update(f"{place.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@cache
def _sha256(file: Path, size: int, time: int) -> str:
    """Of a file as it is at this size and time, computed once."""
    return sha256_of(file)


def dotted_values(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost values of nested mappings by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from dotted_values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
