"""A data set of TensorFlow Datasets (TFDS), one of its own or one that `radtransfer data prepare` wrote.

Source text: `tfds:LOCATION` or `tfds:LOCATION?split=NAME+NAME`. LOCATION is a folder that holds the set, or
NAME[/CONFIG][:VERSION] of a set that was prepared in TFDS's own folder (`--image-root` names another one). The splits
train, validation and test are the given split. Those that `?split=` names are taken together, as in TFDS, and folds are
drawn from them.

A prepared set has a table of its own beside its shards, written and read so that nothing changes:

images.csv        a row per image: path, label (or a column `label: NAME` for each of several), patient, split (or
                  `fold 1`, `fold 2`, …), shard, offset, length, sha256
provenance.json   what the images were made of; written last, so that a folder without it is not finished

A set at an address of TensorFlow's file systems, such as `gs://BUCKET/SET`, is copied once, shard by shard, into the
cache folder: training reads images in another order each epoch, which would be a request for every image. A copy that
was stopped goes on; a set whose files have another size or time is copied anew, beside the old one.
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
from radtransfer.data.labels import cell_value, clean_cell, label_values, listed, one_hot
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

_PIECE = 1 << 24  # bytes that are copied at a time
_LISTING = 16  # files that are asked for their size at a time


def copied_set(source: RemoteSource, progress: Progress) -> str:
    """The location on this machine, as dataset `tfds` reads it, of the set at `source`; copied unless it is there."""
    address = source.address
    if source.reader not in (None, "tfds"):
        raise DataError(f"{address}: {source.reader} reads folders of this machine. {_advice(source.scheme)}")
    require_keras()
    import tensorflow as tf

    known = sorted(name for name in tf.io.gfile.get_registered_schemes() if name not in ("", "file"))
    if source.scheme not in known:
        raise DataError(
            f"{address}: this TensorFlow knows {', '.join(f'{name}://' for name in known)} and folders. Mount it as a "
            "folder, or copy the data set to this machine, and name that folder."
        )
    files = _files(source)
    key = hashlib.sha256(f"{address} {sorted(files.items())}".encode()).hexdigest()
    folder = cache_folder() / "remote" / f"{address.rpartition('/')[2]}-{key[:16]}"
    there = {name: (folder / name).stat().st_size for name in files if (folder / name).is_file()}
    missing = [name for name, (size, _) in sorted(files.items()) if there.get(name) != size]
    if not missing:
        progress.note(f"{address} is read from its copy in {folder}")
        return f"{folder}{source.options}"
    needed = sum(files[name][0] for name in missing)
    advice = "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DiskError(f"{address} cannot be copied to {folder} ({error.strerror}). {advice}") from None
    if needed > free:
        raise DiskError(f"{address} takes {size_text(needed)} in {folder}; {size_text(free)} are free. {advice}")
    progress.note(f"{address}: copying {len(missing)} files, {size_text(needed)}, to {folder}")
    for done, name in enumerate(missing, start=1):
        _copy_file(f"{address}/{name}", folder / name, files[name])
        progress.count("files copied", done, len(missing))
    return f"{folder}{source.options}"


def _files(source: RemoteSource) -> Mapping[str, tuple[int, int]]:
    """Size in bytes, and time of change in ns, of each file of the set."""
    import tensorflow as tf

    address = source.address

    def facts(name: str) -> tuple[int, int] | None:
        status = tf.io.gfile.stat(f"{address}/{name}")
        return None if status.is_directory else (status.length, status.mtime_nsec)

    try:
        # Asked first: a list of files is empty for whatever reason.
        facts(METADATA)
        # Names that begin with a dot are locks, and what is still being written.
        names = [name for name in tf.io.gfile.listdir(address) if not name.startswith(".")]
        found = all_in_parallel(facts, names, workers=_LISTING)
    except tf.errors.NotFoundError:
        raise DataError(
            f"No prepared data set lies at {address}: it has no {METADATA}. {_advice(source.scheme)}"
        ) from None
    except tf.errors.OpError as error:
        login = " (`gcloud auth application-default login`)" if source.scheme == "gs" else ""
        raise DataError(
            f"{_unreadable(address, error)} Check that this machine is online, that the address is right, and that you "
            f"may read it{login}."
        ) from None
    return {name: fact for name, fact in zip(names, found, strict=True) if fact is not None}


def _copy_file(address: str, file: Path, facts: tuple[int, int]) -> None:
    """Copy one file, whole or not at all, with its time: that tells whether images have changed."""
    import tensorflow as tf

    size, time = facts
    with atomic_write(file) as part:
        try:
            with tf.io.gfile.GFile(address, "rb") as there, part.open("wb") as here:
                while piece := there.read(_PIECE):
                    here.write(piece)
        except tf.errors.OpError as error:
            raise DataError(
                f"{_unreadable(address, error)} What was copied is kept; the same command goes on."
            ) from None
        if part.stat().st_size != size:
            raise DataError(f"{address} ended after {part.stat().st_size} of {size} bytes. Run the command again.")
        os.utime(part, ns=(time, time))


def _unreadable(address: str, error: Any) -> str:
    reason = next(iter(str(error.message).strip().splitlines()), type(error).__name__)
    # TensorFlow wraps what the network says in what its library is called.
    reason = reason.rpartition("error details: ")[2].rstrip(".")
    return f"{address} cannot be read ({reason[:300]})."


def _advice(scheme: str) -> str:
    return (
        "Only prepared data sets are read from there: run `radtransfer data prepare DATA --out SET`, copy the folder "
        f"SET to {scheme}://…, and name that."
    )


TABLE, PROVENANCE, STATE = "images.csv", "provenance.json", "prepare.json"

_LABEL, _FOLD = "label: ", "fold "


def is_prepared(folder: Path) -> bool:
    """Whether `radtransfer data prepare` wrote, or is to go on writing, the folder."""
    return (folder / PROVENANCE).is_file() or (folder / STATE).is_file()


def write_table(folder: Path, table: ImageTable, stored: Sequence[tuple[str, int, int, str]]) -> None:
    """Write `images.csv`; `stored` is the shard, offset, length and SHA-256 of the bytes of each image."""
    columns: dict[str, Sequence[Any]] = {"path": table.paths}
    if table.task == "multilabel":
        for name, values in zip(table.classes, table.targets.T, strict=True):
            columns[_LABEL + name] = ["" if np.isnan(value) else f"{value:g}" for value in values]
    else:
        columns["label"] = [table.classes[place] for place in table.targets.argmax(axis=1)]
    if table.patients is not None:
        columns["patient"] = table.patients
    splits = [] if table.splits is None else table.splits.tolist()
    columns |= {
        f"{_FOLD}{number}" if len(splits) > 1 else "split": split for number, split in enumerate(splits, start=1)
    }
    columns |= dict(zip(("shard", "offset", "length", "sha256"), zip(*stored, strict=True), strict=True))
    write_rows(folder / TABLE, list(columns), zip(*columns.values(), strict=True))


def read_prepared(folder: Path, settings: DataSettings) -> ImageTable:
    """The images of a prepared set: paths, labels, patients and splits as the data it was made from had them."""
    again = "Copy it again, or prepare the data set again with --overwrite."
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not finished: run the same `radtransfer data prepare` command again, which goes on."
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
    return _as_asked(table, settings, provenance)


def _prepared_table(folder: Path, columns: dict[str, tuple[str, ...]], provenance: dict[str, Any]) -> ImageTable:
    size, classes = provenance["image_size"], provenance["classes"]
    pixels = (size, size) if provenance["encoding"] == "raw" else None
    shards = {shard["name"]: folder.absolute() / shard["name"] for shard in provenance["shards"]}
    places = zip(columns["shard"], columns["offset"], columns["length"], strict=True)
    folds = [columns[name] for name in columns if name == "split" or name.startswith(_FOLD)]
    if provenance["task"] == "multilabel":
        values = {"0": 0.0, "1": 1.0, "": np.nan}
        of_class = [[values[text] for text in columns[_LABEL + name]] for name in classes]
        targets = np.array(of_class, dtype=np.float32).T.copy()
    else:
        number = {name: place for place, name in enumerate(classes)}
        targets = np.eye(len(classes), dtype=np.float32)[[number[label] for label in columns["label"]]]
    made = f"prepared {provenance['prepared'][:10]} from {provenance['source']}"
    notes = [f"{made} at {size}×{size} pixels, {provenance['encoding']}"]
    if skipped := provenance["skipped"]:
        notes.append(f"{len(skipped)} images that could not be read were left out when it was prepared")
    return ImageTable(
        paths=columns["path"],
        files=tuple(FilePart(shards[name], int(start), int(length), pixels=pixels) for name, start, length in places),
        targets=targets,
        classes=tuple(classes),
        task=provenance["task"],
        patients=columns.get("patient"),
        splits=np.array(folds, dtype="U5") if folds else None,
        positive_from=provenance.get("positive_from"),
        notes=tuple(notes),
    )


def _as_asked(table: ImageTable, settings: DataSettings, provenance: dict[str, Any]) -> ImageTable:
    """The labels that are asked for; patients by the regular expression, if there is one."""
    if settings.image_root or settings.path_column:
        name = "image_root" if settings.image_root else "path_column"
        raise ConfigError(
            f"data.{name} is given, but a prepared data set brings its own images. Leave it out.", settings=(name,)
        )
    if settings.patient_column and (settings.patient_column != "patient" or table.patients is None):
        has = "no patients" if table.patients is None else "them in 'patient'"
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
        kept = [place for place, name in enumerate(table.classes) if name in settings.label_column]
        parts |= {"targets": table.targets[:, kept], "classes": tuple(table.classes[place] for place in kept)}
    if table.task == "multilabel":
        before = provenance["settings"]["data"]
        for name in ("uncertain", "unmentioned"):
            if (asked := getattr(settings, name)) != before[name]:
                notes.append(f"--{name} {asked} not used: the set was prepared with {before[name]}")
    return replace(table, **parts, notes=tuple(notes))


Labels = tuple[np.ndarray, tuple[str, ...], str, np.ndarray, Iterable[str]]
"""Targets of the labelled examples, classes, task, which examples are labelled (bool), and notes."""


def read_labels(
    builder: "tfds.core.DatasetBuilder",
    index: SetIndex,
    features: ChosenFeatures,
    settings: DataSettings,
    known: KnownSet | None,
) -> Labels:
    """The labels of every example that has one."""
    everything = np.ones(len(index.places), bool)
    if features.findings:  # one label per finding, from a feature that holds them in a row
        label, notes = features.labels[0], []
        class_names, rows = builder.info.features[label].feature.names, index.values[label]
        if wrong := [len(row) for row in rows if len(row) != len(known.findings)]:
            expected = f"the {len(known.findings)} findings of the set"
            found = f"{len(wrong)} examples have another number of labels than {expected}"
            if builder.info.splits:
                raise DataError(f"{found}, such as {wrong[0]}. Prepare the data set again.")
            notes.append(f"{found}; missing ones count as unmentioned")
        columns = [
            [known.meanings[class_names[row[place]]] if place < len(row) else "" for row in rows]
            for place in map(known.findings.index, features.findings)
        ]
        if not settings.label_column:
            others = listed((name for name in known.findings if name not in features.findings), limit=20)
            notes.append(f"labels {listed(features.findings)}; also there for --label-column: {others}")
        targets = _targets_of_labels(features.findings, columns, settings)
        return targets, features.findings, "multilabel", everything, notes
    names = sorted(features.labels)
    if len(names) > 1 or settings.task == "multilabel":
        # A class stands for its number, 0 or 1.
        numbers = [_texts(builder.info.features[name], index.values[name], named=False) for name in names]
        return _targets_of_labels(names, numbers, settings), tuple(names), "multilabel", everything, ()
    texts = _texts(builder.info.features[names[0]], index.values[names[0]])
    labelled = np.array([text != "" for text in texts])
    missing = int((~labelled).sum())
    if missing == len(labelled):
        raise DataError(f"No example of the chosen splits has a label ({names[0]}). Choose other splits.")
    notes = (f"{missing} images without a label are left out",) if missing else ()
    return *one_hot([text for text in texts if text]), "multiclass", labelled, notes


def _texts(feature: "tfds.features.FeatureConnector", values: Iterable[Any], *, named: bool = True) -> list[str]:
    """Each label as text; "" where there is none."""
    names = getattr(feature, "names", None)
    if names is None:
        return ["" if value is None else cell_value(str(value)) for value in values]
    return ["" if value is None or value < 0 else names[value] if named else str(value) for value in values]


def _targets_of_labels(names: Sequence[str], columns: Sequence[Sequence[str]], settings: DataSettings) -> np.ndarray:
    values = label_values(settings)
    for name, column in zip(names, columns, strict=True):
        if unknown := set(column) - set(values):
            raise DataError(
                f"Label {name!r}: expected 1, 0, -1 (uncertain) or nothing, received {min(unknown)!r}. "
                "Several labels per image need two classes each."
            )
    return np.array([[values[text] for text in row] for row in zip(*columns, strict=True)], dtype="float32")


_EXAMPLE = "write tfds:FOLDER, or tfds:NAME/CONFIG such as tfds:patch_camelyon, with ?split=train if only that is meant"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the set `location`; nothing is downloaded."""
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
            raise DataError(f"{asked}: this prepared set brings {found}. Leave ?split= out.")
        return replace(table.select(np.isin(table.splits[0], sorted(words))), splits=None)
    if folder.is_dir() and settings.image_root:
        raise ConfigError(
            f"tfds:{name} is a folder and brings its own images. Leave --image-root out.", settings=("image_root",)
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
        files=tuple(index.places[row] for row in kept),
        targets=targets,
        classes=classes,
        task=task,
        patients=None if patients is None else tuple(patients[row] for row in kept),
        splits=splits,
        notes=(*notes, *index.notes),
    )


def parse_location(location: str | None) -> tuple[str, tuple[str, ...]]:
    """The name or folder, and the splits that `?split=` chooses."""
    name, mark, option = (location or "").partition("?")
    key, _, value = option.partition("=")
    chosen = tuple(filter(None, re.split(r"[+,]", value)))
    if not name or (mark and (key != "split" or not chosen)):
        raise ConfigError(f"tfds:{location or ''}: {_EXAMPLE}.")
    return name, chosen


def _splits(builder: "tfds.core.DatasetBuilder", chosen: Sequence[str], name: str) -> tuple[str, ...]:
    """The splits to read, in the order of train, validation and test."""
    known = list(builder.info.splits)
    if not known:  # nothing is known of a set without files; `mock_data` gives every split the same examples
        return tuple(chosen) or ("train",)
    if unknown := [split for split in chosen if split not in known]:
        raise DataError(f"tfds:{name} has no split {unknown[0]!r}. It has {listed(known)}.")
    order = ("train", "val", "test")
    names = split_names(known)
    usual = sorted((split for split in known if names[split]), key=lambda split: order.index(names[split]))
    if not chosen and not usual:
        raise DataError(
            f"tfds:{name} has no train split, but {listed(known)}. Choose with tfds:{name}?split={known[0]}"
        )
    return tuple(chosen or usual)


def _paths(index: SetIndex, name: str | None, notes: list[str]) -> list[str]:
    """The split, and in it the name of the example if all have one of their own, else its number."""
    if name is not None:
        paths = [f"{split}/{value}" for split, value in zip(index.splits, index.values[name], strict=True)]
        if len(set(paths)) == len(paths):
            return paths
        notes.append(f"feature {name!r} names several images alike; their number in the split names them")
    numbers: Counter[str] = Counter()
    paths = []
    for split in index.splits:
        paths.append(f"{split}/{numbers[split]}")
        numbers[split] += 1
    return paths


def _patients(
    index: SetIndex, features: ChosenFeatures, settings: DataSettings, known: KnownSet | None, notes: list[str]
) -> list[str] | None:
    """The patients: from their feature, or from the name where the form of that is known."""
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
        notes.append(f"{unmatched} images are patients of their own: their name holds no patient, such as {first!r}")
    return patients


def _given(names: Sequence[str], notes: list[str]) -> np.ndarray | None:
    """The given split, (1, images); None where there is nothing to learn from or nothing else."""
    splits = split_names(set(names))
    words = np.array([[splits[name] for name in names]], dtype="U5")
    held = set(splits.values())
    if "train" not in held or len(held) == 1:
        return None
    note = "one fixed split, given with the data"
    if "test" not in held:
        words[words == "val"] = "test"
        note = (
            "one fixed split: the set brings no test images, so its validation split is the test set; "
            "?split=train leaves it out and draws folds"
        )
    notes.append(note)
    return words
