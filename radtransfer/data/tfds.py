"""Data sets of TensorFlow Datasets (TFDS), including those of `radtransfer data prepare`.

Source: `tfds:LOCATION` or `tfds:LOCATION?split=NAME+NAME`. LOCATION is a folder, or NAME[/CONFIG][:VERSION] of a set
prepared in the folder of TFDS (or `--image-root`). The splits train, validation and test are the given split; splits
named by `?split=` are pooled, and folds are drawn from them.

A prepared set has two more files beside its shards:

images.csv        a row per image: path, label (or a column `label: NAME` per label), patient, split (or `fold 1`,
                  `fold 2`, …), shard, offset, length, sha256
provenance.json   origin of the images; written last, so a folder without it is incomplete

A set at an address such as `gs://BUCKET/SET` is copied to the cache folder once, since training reads images in random
order. An interrupted copy is continued; a set whose files have changed is copied again, beside the old copy.
"""

import csv
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.labels import cell_value, clean_cell, listed, multilabel_targets, one_hot
from radtransfer.data.sheet import split_names
from radtransfer.data.table import ImageTable
from radtransfer.data.tfds_files import (
    KNOWN_SETS,
    METADATA,
    ChosenFeatures,
    KnownSet,
    SetIndex,
    Source,
    choose_features,
    index_set,
    open_builder,
    value_features,
)
from radtransfer.errors import ConfigError, DataError, DiskError
from radtransfer.files import atomic_write, size_text
from radtransfer.images.refs import FilePart, RemoteSource
from radtransfer.process import Progress, all_in_parallel, require_keras
from radtransfer.runs.cache import cache_folder
from radtransfer.runs.folder import write_rows

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_PIECE = 1 << 24  # bytes copied at a time
_LISTING = 16  # parallel requests for file sizes


def copied_set(source: RemoteSource, progress: Progress) -> str:
    """The local copy of the set at `source`, as a location for `read`; copied if necessary."""
    address = source.address
    if source.reader not in (None, "tfds"):
        raise DataError(f"{address}: {source.reader} reads local folders only. {_advice(source.scheme)}")
    require_keras()
    import tensorflow as tf

    known = sorted(name for name in tf.io.gfile.get_registered_schemes() if name not in ("", "file"))
    if source.scheme not in known:
        raise DataError(
            f"{address}: this TensorFlow supports {', '.join(f'{name}://' for name in known)} and folders. Mount it as "
            "a folder or copy the data set to this machine, and use that folder."
        )
    files = _files(source)
    key = hashlib.sha256(f"{address} {sorted(files.items())}".encode()).hexdigest()
    folder = cache_folder() / "remote" / f"{address.rpartition('/')[2]}-{key[:16]}"
    sizes = {name: (folder / name).stat().st_size for name in files if (folder / name).is_file()}
    missing = [name for name, (size, _) in sorted(files.items()) if sizes.get(name) != size]
    if not missing:
        progress.note(f"{address} is read from its copy in {folder}")
        return f"{folder}{source.options}"
    needed = sum(files[name][0] for name in missing)
    advice = "Free some space, or set the environment variable RADTRANSFER_CACHE to another folder."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DiskError(f"{address} cannot be copied to {folder} ({error.strerror}). {advice}") from None
    if needed > free:
        raise DiskError(f"{address} needs {size_text(needed)} in {folder}; {size_text(free)} are free. {advice}")
    progress.note(f"{address}: copying {len(missing)} files, {size_text(needed)}, to {folder}")
    for done, name in enumerate(missing, start=1):
        _copy_file(f"{address}/{name}", folder / name, files[name])
        progress.count("files copied", done, len(missing))
    return f"{folder}{source.options}"


def _files(source: RemoteSource) -> Mapping[str, tuple[int, int]]:
    """Size in bytes and modification time in ns of each file of the set."""
    import tensorflow as tf

    address = source.address

    def facts(name: str) -> tuple[int, int] | None:
        status = tf.io.gfile.stat(f"{address}/{name}")
        return None if status.is_directory else (status.length, status.mtime_nsec)

    try:
        facts(METADATA)  # raises an error, where `listdir` may return an empty list
        # Hidden files are locks and unfinished files.
        names = [name for name in tf.io.gfile.listdir(address) if not name.startswith(".")]
        found = all_in_parallel(facts, names, workers=_LISTING)
    except tf.errors.NotFoundError:
        raise DataError(f"No prepared data set at {address}: it has no {METADATA}. {_advice(source.scheme)}") from None
    except tf.errors.OpError as error:
        login = " (`gcloud auth application-default login`)" if source.scheme == "gs" else ""
        raise DataError(
            f"{_unreadable(address, error)} Check the network connection, the address and your permissions{login}."
        ) from None
    return {name: fact for name, fact in zip(names, found, strict=True) if fact is not None}


def _copy_file(address: str, file: Path, facts: tuple[int, int]) -> None:
    """Copy one file atomically with its modification time, which shows whether images have changed."""
    import tensorflow as tf

    size, time = facts
    with atomic_write(file) as part:
        try:
            with tf.io.gfile.GFile(address, "rb") as source, part.open("wb") as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
        except tf.errors.OpError as error:
            raise DataError(f"{_unreadable(address, error)} Run the same command again to continue the copy.") from None
        if part.stat().st_size != size:
            raise DataError(f"{address} ended after {part.stat().st_size} of {size} bytes. Run the command again.")
        os.utime(part, ns=(time, time))


def _unreadable(address: str, error: Any) -> str:
    reason = next(iter(str(error.message).strip().splitlines()), type(error).__name__)
    reason = reason.rpartition("error details: ")[2].rstrip(".")
    return f"{address} cannot be read ({reason[:300]})."


def _advice(scheme: str) -> str:
    return (
        "Only prepared data sets can be read from an address: run `radtransfer data prepare DATA --out SET`, copy the "
        f"folder SET to {scheme}://…, and use that address."
    )


TABLE, PROVENANCE, STATE = "images.csv", "provenance.json", "prepare.json"

_LABEL, _FOLD = "label: ", "fold "


def is_prepared(folder: Path) -> bool:
    """Whether the folder was written, perhaps in part, by `radtransfer data prepare`."""
    return (folder / PROVENANCE).is_file() or (folder / STATE).is_file()


def write_table(folder: Path, table: ImageTable, stored: Sequence[tuple[str, int, int, str]]) -> None:
    """Write `images.csv`; `stored` has shard, offset, length and SHA-256 of each image."""
    columns: dict[str, Sequence[Any]] = {"path": table.paths}
    if table.task == "multilabel":
        for name, values in zip(table.classes, table.targets.T, strict=True):
            columns[_LABEL + name] = ["" if np.isnan(value) else f"{value:g}" for value in values]
    else:
        columns["label"] = [table.classes[column] for column in table.targets.argmax(axis=1)]
    if table.patients is not None:
        columns["patient"] = table.patients
    splits = [] if table.splits is None else table.splits.tolist()
    columns |= {
        f"{_FOLD}{number}" if len(splits) > 1 else "split": split for number, split in enumerate(splits, start=1)
    }
    columns |= dict(zip(("shard", "offset", "length", "sha256"), zip(*stored, strict=True), strict=True))
    write_rows(folder / TABLE, list(columns), zip(*columns.values(), strict=True))


def read_prepared(folder: Path, settings: DataSettings) -> ImageTable:
    """The table of a prepared set, with the paths, labels, patients and splits of the original data."""
    again = "Copy it again, or prepare the data set again with --overwrite."
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is incomplete: run the same `radtransfer data prepare` command again to continue."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / PROVENANCE} cannot be read ({error}). Prepare the data set again.") from None
    try:
        for shard in provenance["shards"]:
            file = folder / shard["name"]
            found = file.stat().st_size if file.is_file() else None
            if found != shard["bytes"]:
                state = "missing" if found is None else f"damaged: it has {found} bytes instead of {shard['bytes']}"
                raise DataError(f"Shard {file} is {state}. {again}")
        with (folder / TABLE).open(encoding="utf-8", newline="") as handle:
            header, *lines = csv.reader(handle)
        table = _prepared_table(folder, dict(zip(header, zip(*lines, strict=True), strict=True)), provenance)
        rows = provenance["rows"]
    except (OSError, KeyError, ValueError, TypeError, StopIteration) as error:
        raise DataError(
            f"{folder}: {TABLE} or {PROVENANCE} is damaged ({type(error).__name__}: {error}). {again}"
        ) from None
    if len(table) != rows:
        raise DataError(f"{folder / TABLE} has {len(table)} rows, {PROVENANCE} says {rows}. Copy it again.")
    return _with_settings(table, settings, provenance)


def _prepared_table(folder: Path, columns: dict[str, tuple[str, ...]], provenance: dict[str, Any]) -> ImageTable:
    size, classes = provenance["image_size"], provenance["classes"]
    pixels = (size, size) if provenance["encoding"] == "raw" else None
    shards = {shard["name"]: folder.absolute() / shard["name"] for shard in provenance["shards"]}
    spans = zip(columns["shard"], columns["offset"], columns["length"], strict=True)
    folds = [columns[name] for name in columns if name == "split" or name.startswith(_FOLD)]
    if provenance["task"] == "multilabel":
        values = {"0": 0.0, "1": 1.0, "": np.nan}
        of_class = [[values[text] for text in columns[_LABEL + name]] for name in classes]
        targets = np.array(of_class, dtype=np.float32).T.copy()
    else:
        number = {name: column for column, name in enumerate(classes)}
        targets = np.eye(len(classes), dtype=np.float32)[[number[label] for label in columns["label"]]]
    made = f"prepared {provenance['prepared'][:10]} from {provenance['source']}"
    notes = [f"{made} at {size}×{size} pixels, {provenance['encoding']}"]
    if skipped := provenance["skipped"]:
        notes.append(f"{len(skipped)} unreadable images were skipped when it was prepared")
    return ImageTable(
        paths=columns["path"],
        files=tuple(FilePart(shards[name], int(start), int(length), pixels=pixels) for name, start, length in spans),
        targets=targets,
        classes=tuple(classes),
        task=provenance["task"],
        patients=columns.get("patient"),
        splits=np.array(folds, dtype="U5") if folds else None,
        positive_from=provenance.get("positive_from"),
        notes=tuple(notes),
    )


def _with_settings(table: ImageTable, settings: DataSettings, provenance: dict[str, Any]) -> ImageTable:
    """Apply the settings for labels and patients to the table."""
    if settings.image_root or settings.path_column:
        name = "image_root" if settings.image_root else "path_column"
        raise ConfigError(
            f"data.{name} is given, but a prepared data set has its own images. Leave it out.", settings=(name,)
        )
    if settings.patient_column and (settings.patient_column != "patient" or table.patients is None):
        has = "no patients" if table.patients is None else "patients in 'patient'"
        raise ConfigError(
            f"--patient-column {settings.patient_column}: the prepared data set has {has}. Leave it out.",
            settings=("patient_column",),
        )
    parts, notes = {}, list(table.notes)
    if settings.patient_regex is not None:
        parts["patients"] = None
    if settings.label_column and settings.label_column != ("label",):
        if table.task != "multilabel" or set(settings.label_column) - set(table.classes):
            has = listed(table.classes) if table.task == "multilabel" else "one label per image, 'label'"
            raise ConfigError(
                f"--label-column {','.join(settings.label_column)}: the prepared data set has {has}.",
                settings=() if set(settings.label_column) & set(table.classes) else ("label_column",),
            )
        kept = [column for column, name in enumerate(table.classes) if name in settings.label_column]
        parts |= {"targets": table.targets[:, kept], "classes": tuple(table.classes[column] for column in kept)}
    if table.task == "multilabel":
        before = provenance["settings"]["data"]
        for name in ("uncertain", "unmentioned"):
            if (value := getattr(settings, name)) != before[name]:
                notes.append(f"--{name} {value} not used: the set was prepared with {before[name]}")
    return replace(table, **parts, notes=tuple(notes))


Labels = tuple[np.ndarray, tuple[str, ...], str, np.ndarray, Iterable[str]]
"""Targets of the labelled examples, classes, task, mask of labelled examples (bool), and notes."""


def read_labels(
    builder: "tfds.core.DatasetBuilder",
    index: SetIndex,
    features: ChosenFeatures,
    settings: DataSettings,
    known: KnownSet | None,
) -> Labels:
    """The labels of every example that has one."""
    everything = np.ones(len(index.refs), bool)
    if features.findings:  # a sequence with one label per finding
        label, notes = features.labels[0], []
        class_names, rows = builder.info.features[label].feature.names, index.values[label]
        if wrong := [len(row) for row in rows if len(row) != len(known.findings)]:
            expected = f"the {len(known.findings)} findings of the set"
            found = f"{len(wrong)} examples do not have as many labels as {expected}"
            if builder.info.splits:
                raise DataError(f"{found}, such as {wrong[0]}. Prepare the data set again.")
            notes.append(f"{found}; missing ones count as unmentioned")
        columns = [
            [known.meanings[class_names[row[number]]] if number < len(row) else "" for row in rows]
            for number in map(known.findings.index, features.findings)
        ]
        if not settings.label_column:
            others = listed((name for name in known.findings if name not in features.findings), limit=20)
            notes.append(f"labels {listed(features.findings)}; also available for --label-column: {others}")
        return *_multilabel(features.findings, columns, settings), "multilabel", everything, notes
    names = sorted(features.labels)
    if len(names) > 1 or settings.task == "multilabel":
        columns = [_texts(builder.info.features[name], index.values[name], named=False) for name in names]
        return *_multilabel(names, columns, settings), "multilabel", everything, ()
    texts = _texts(builder.info.features[names[0]], index.values[names[0]])
    labelled = np.array([text != "" for text in texts])
    missing = int((~labelled).sum())
    if missing == len(labelled):
        raise DataError(f"No example of the chosen splits has a label ({names[0]}). Choose other splits.")
    notes = (f"{missing} images without a label are skipped",) if missing else ()
    return *one_hot([text for text in texts if text]), "multiclass", labelled, notes


def _texts(feature: "tfds.features.FeatureConnector", values: Iterable[Any], *, named: bool = True) -> list[str]:
    """Each label as text, the class number unless `named`; "" if missing."""
    names = getattr(feature, "names", None)
    if names is None:
        return ["" if value is None else cell_value(str(value)) for value in values]
    return ["" if value is None or value < 0 else names[value] if named else str(value) for value in values]


def _multilabel(
    names: Sequence[str], columns: Sequence[Sequence[str]], settings: DataSettings
) -> tuple[np.ndarray, tuple[str, ...]]:
    advice = "Several labels per image need two classes each."
    return multilabel_targets(
        names,
        list(zip(*columns, strict=True)),
        settings,
        error=lambda row, problem: DataError(f"Example {row}, {problem} {advice}"),
    )


_EXAMPLE = "expected tfds:FOLDER or tfds:NAME/CONFIG, such as tfds:patch_camelyon, perhaps with ?split=train"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The table of the set `location`; nothing is downloaded."""
    name, chosen = parse_location(location)
    folder = Path(name).expanduser()
    if is_prepared(folder):
        table = read_prepared(folder, settings)
        words = set(split_names(chosen).values())
        if not chosen or (table.splits is None and words == {"train"}):
            return table
        if table.splits is None or len(table.splits) > 1 or None in words:
            several = table.splits is not None and len(table.splits) > 1
            found = f"{len(table.splits)} folds" if several else "train" if table.splits is None else "one split"
            asked = f"tfds:{name}?split={'+'.join(chosen)}"
            raise DataError(f"{asked}: this prepared set has {found}. Leave ?split= out.")
        return replace(table.select(np.isin(table.splits[0], sorted(words))), splits=None)
    if folder.is_dir() and settings.image_root:
        raise ConfigError(
            f"tfds:{name} is a folder with its own images. Leave --image-root out.", settings=("image_root",)
        )
    builder = open_builder(name, settings.image_root)
    known = KNOWN_SETS.get(builder.name)
    features = choose_features(builder.info.features, settings, known)
    source = Source(
        builder=builder,
        location=name,
        data_dir=settings.image_root,
        image=features.image,
        features=value_features(builder.info.features),
        splits=_splits(builder, chosen, name),
    )
    index = index_set(source)
    targets, classes, task, labelled, label_notes = read_labels(builder, index, features, settings, known)
    notes = [*features.notes, *label_notes]
    paths = _paths(index, features.name, notes)
    patients = _patients(index, features, settings, known, notes)
    kept = np.flatnonzero(labelled)
    splits = None if chosen else _given([index.splits[row] for row in kept], notes)
    return ImageTable(
        paths=tuple(paths[row] for row in kept),
        files=tuple(index.refs[row] for row in kept),
        targets=targets,
        classes=classes,
        task=task,
        patients=None if patients is None else tuple(patients[row] for row in kept),
        splits=splits,
        notes=(*notes, *index.notes),
    )


def parse_location(location: str | None) -> tuple[str, tuple[str, ...]]:
    """The name or folder, and the splits in `?split=`."""
    name, mark, option = (location or "").partition("?")
    key, _, value = option.partition("=")
    chosen = tuple(filter(None, re.split(r"[+,]", value)))
    if not name or (mark and (key != "split" or not chosen)):
        raise ConfigError(f"tfds:{location or ''}: {_EXAMPLE}.")
    return name, chosen


def _splits(builder: "tfds.core.DatasetBuilder", chosen: Sequence[str], name: str) -> tuple[str, ...]:
    """The splits to read, in the order of train, validation and test."""
    known = list(builder.info.splits)
    if not known:  # a set without files, such as `mock_data`
        return tuple(chosen) or ("train",)
    if unknown := [split for split in chosen if split not in known]:
        raise DataError(f"tfds:{name} has no split {unknown[0]!r}. It has {listed(known)}.")
    order = ("train", "val", "test")
    names = split_names(known)
    usual = sorted((split for split in known if names[split]), key=lambda split: order.index(names[split]))
    if not chosen and not usual:
        raise DataError(
            f"tfds:{name} has no train split, but {listed(known)}. Choose one with tfds:{name}?split={known[0]}"
        )
    return tuple(chosen or usual)


def _paths(index: SetIndex, name: str | None, notes: list[str]) -> list[str]:
    """SPLIT/NAME of each example if that is unique, else SPLIT/NUMBER."""
    if name is not None:
        paths = [f"{split}/{value}" for split, value in zip(index.splits, index.values[name], strict=True)]
        if len(set(paths)) == len(paths):
            return paths
        notes.append(f"feature {name!r} is not unique; images are named by their number in the split")
    numbers: Counter[str] = Counter()
    paths = []
    for split in index.splits:
        paths.append(f"{split}/{numbers[split]}")
        numbers[split] += 1
    return paths


def _patients(
    index: SetIndex, features: ChosenFeatures, settings: DataSettings, known: KnownSet | None, notes: list[str]
) -> list[str] | None:
    """The patients from their feature, or from the image name of a known set."""
    if settings.patient_regex is not None:
        return None
    if features.patient is not None:
        return [clean_cell(str(value)) for value in index.values[features.patient]]
    if known is None or known.patient is None or features.name != known.name:
        return None
    names = index.values[known.name]
    matches = [re.search(known.patient, name) for name in names]
    patients = [match[1] if match else name for match, name in zip(matches, names, strict=True)]
    notes.append(f"{len(set(patients))} patients from the {known.name} of the images")
    if unmatched := matches.count(None):
        first = names[matches.index(None)]
        notes.append(f"{unmatched} images are their own patients: no patient in their name, such as {first!r}")
    return patients


def _given(names: Sequence[str], notes: list[str]) -> np.ndarray | None:
    """The given split, (1, images); None without train or without another split."""
    splits = split_names(set(names))
    words = np.array([[splits[name] for name in names]], dtype="U5")
    found = set(splits.values())
    if "train" not in found or len(found) == 1:
        return None
    note = "one fixed split, given with the data"
    if "test" not in found:
        words[words == "val"] = "test"
        note = (
            "one fixed split: no test images, so the validation split is the test set; ?split=train draws folds instead"
        )
    notes.append(note)
    return words
