"""The table that stands beside the shards of a prepared data set, written and read so that nothing changes.

images.csv        a row per image: path, label (or a column `label: NAME` for each of several), patient, split (or
                  `fold 1`, `fold 2`, …), shard, offset, length, sha256
provenance.json   what the images were made of; written last, so that a folder without it is not finished
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed
from radtransfer.errors import ConfigError, DataError
from radtransfer.image_place import FilePart
from radtransfer.runs import write_rows
from radtransfer.settings import DataSettings

TABLE, PROVENANCE, STATE = "images.csv", "provenance.json", "prepare.json"

_LABEL, _FOLD = "label: ", "fold "


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Where an image lies in a prepared set, and the SHA-256 of the bytes that it was made of."""

    shard: str
    offset: int
    length: int
    sha256: str


def is_prepared(folder: Path) -> bool:
    """Whether `radtransfer data prepare` wrote, or is to go on writing, the folder."""
    return (folder / PROVENANCE).is_file() or (folder / STATE).is_file()


def write_table(folder: Path, table: ImageTable, stored: Sequence[StoredImage]) -> None:
    """Write `images.csv`.

    Args:
        folder: The prepared set.
        table: Its images.
        stored: Where each of them lies.
    """
    columns = {"path": table.paths, **_label_columns(table)}
    if table.patients is not None:
        columns["patient"] = table.patients
    columns |= _split_columns(table)
    for name in ("shard", "offset", "length", "sha256"):
        columns[name] = [getattr(image, name) for image in stored]
    write_rows(folder / TABLE, list(columns), zip(*columns.values(), strict=True))


def read_prepared(folder: Path, settings: DataSettings) -> ImageTable:
    """The images of a prepared set: paths, labels, patients and splits as the data it was made from had them.

    Raises:
        ConfigError: Settings that name what the set does not have.
        DataError: It is not finished, a shard is missing or has another size, or the table is damaged.
    """
    provenance = _provenance(folder)
    try:
        _check_shards(folder, provenance["shards"])
        table = _table(folder, _columns(folder / TABLE), provenance)
        rows = provenance["rows"]
    except (OSError, KeyError, ValueError, TypeError, StopIteration) as error:
        raise DataError(
            f"{folder}: {TABLE} or {PROVENANCE} is damaged ({type(error).__name__}: {error}). "
            "Copy it again, or prepare the data set again with --overwrite."
        ) from None
    if len(table) != rows:
        raise DataError(f"{folder / TABLE} has {len(table)} rows, {PROVENANCE} says {rows}. Copy it again.")
    return _as_asked(table, settings, provenance)


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not finished: run the same `radtransfer data prepare` command again, which goes on."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / PROVENANCE} cannot be read ({error}). Prepare the data set again.") from None


def _check_shards(folder: Path, shards: Sequence[dict[str, Any]]) -> None:
    for shard in shards:
        file = folder / shard["name"]
        found = file.stat().st_size if file.is_file() else None
        if found != shard["bytes"]:
            state = "missing" if found is None else f"damaged: it has {found} bytes instead of {shard['bytes']}"
            raise DataError(f"Shard {file} is {state}. Copy it again, or prepare the data set again with --overwrite.")


def _columns(file: Path) -> dict[str, tuple[str, ...]]:
    with file.open(encoding="utf-8", newline="") as handle:
        rows = csv.reader(handle)
        header = next(rows)
        return dict(zip(header, zip(*rows, strict=True), strict=True))


def _table(folder: Path, columns: dict[str, tuple[str, ...]], provenance: dict[str, Any]) -> ImageTable:
    size, classes = provenance["image_size"], provenance["classes"]
    pixels = (size, size) if provenance["encoding"] == "raw" else None
    shards = {shard["name"]: folder.absolute() / shard["name"] for shard in provenance["shards"]}
    places = zip(columns["shard"], columns["offset"], columns["length"], strict=True)
    folds = [columns[name] for name in columns if name == "split" or name.startswith(_FOLD)]
    return ImageTable(
        paths=columns["path"],
        files=tuple(FilePart(shards[name], int(start), int(length), pixels=pixels) for name, start, length in places),
        targets=_targets(columns, classes, provenance["task"]),
        classes=tuple(classes),
        task=provenance["task"],
        patients=columns.get("patient"),
        splits=np.array(folds, dtype="U5") if folds else None,
        positive_from=provenance.get("positive_from"),
        notes=tuple(_notes(provenance)),
    )


def _targets(columns: dict[str, tuple[str, ...]], classes: Sequence[str], task: str) -> np.ndarray:
    if task == "multilabel":
        values = {"0": 0.0, "1": 1.0, "": np.nan}
        return np.array(
            [[values[text] for text in columns[_LABEL + name]] for name in classes], dtype=np.float32
        ).T.copy()
    number = {name: place for place, name in enumerate(classes)}
    return np.eye(len(classes), dtype=np.float32)[[number[label] for label in columns["label"]]]


def _label_columns(table: ImageTable) -> dict[str, Sequence[str]]:
    if table.task != "multilabel":
        return {"label": [table.classes[place] for place in table.targets.argmax(axis=1)]}
    return {
        _LABEL + name: ["" if np.isnan(value) else f"{value:g}" for value in values]
        for name, values in zip(table.classes, table.targets.T, strict=True)
    }


def _split_columns(table: ImageTable) -> dict[str, Sequence[str]]:
    if table.splits is None:
        return {}
    if len(table.splits) == 1:
        return {"split": table.splits[0].tolist()}
    return {f"{_FOLD}{number}": split.tolist() for number, split in enumerate(table.splits, start=1)}


def _notes(provenance: dict[str, Any]) -> Iterator[str]:
    size, made = provenance["image_size"], provenance["prepared"]
    yield f"prepared {made[:10]} from {provenance['source']} at {size}×{size} pixels, {provenance['encoding']}"
    if skipped := provenance["skipped"]:
        yield f"{len(skipped)} images that could not be read were left out when it was prepared"


def _as_asked(table: ImageTable, settings: DataSettings, provenance: dict[str, Any]) -> ImageTable:
    """The labels that are asked for; patients by the regular expression, if there is one."""
    if settings.image_root or settings.path_column:
        name = "image_root" if settings.image_root else "path_column"
        raise ConfigError(
            f"data.{name} is given, but a prepared data set brings its own images. Leave it out.", misfits=(name,)
        )
    if settings.patient_column and (settings.patient_column != "patient" or table.patients is None):
        has = "no patients" if table.patients is None else "them in 'patient'"
        raise ConfigError(
            f"--patient-column {settings.patient_column}: the prepared data set has {has}. Leave it out.",
            misfits=("patient_column",),
        )
    parts, notes = {}, list(table.notes)
    if settings.patient_regex is not None:
        parts["patients"] = None
    if settings.label_column and settings.label_column != ("label",):
        if table.task != "multilabel" or set(settings.label_column) - set(table.classes):
            has = listed(table.classes) if table.task == "multilabel" else "one label per image, 'label'"
            raise ConfigError(
                f"--label-column {','.join(settings.label_column)}: the prepared data set has {has}.",
                misfits=() if set(settings.label_column) & set(table.classes) else ("label_column",),
            )
        kept = [place for place, name in enumerate(table.classes) if name in settings.label_column]
        parts |= {"targets": table.targets[:, kept], "classes": tuple(table.classes[place] for place in kept)}
    if table.task == "multilabel":
        notes += _changed_counting(settings, provenance["settings"]["data"])
    return replace(table, **parts, notes=tuple(notes))


def _changed_counting(settings: DataSettings, before: dict[str, Any]) -> Iterator[str]:
    for name in ("uncertain", "unmentioned"):
        if getattr(settings, name) != before[name]:
            yield f"--{name} {getattr(settings, name)} not used: the set was prepared with {before[name]}"
