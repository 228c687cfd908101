"""A data set of TensorFlow Datasets (TFDS), one of its own or one that `radtransfer data prepare` wrote.

Source text: `tfds:LOCATION` or `tfds:LOCATION?split=NAME+NAME`. LOCATION is a folder that holds the set, or
NAME[/CONFIG][:VERSION] of a set that was prepared in TFDS's own folder (`--image-root` names another one).

The splits train, validation and test are the given split. Those that `?split=` names are taken together, as in
TFDS, and folds are drawn from them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed, written
from radtransfer.datasets.splits import split_names
from radtransfer.datasets.tfds.builder import open_builder
from radtransfer.datasets.tfds.features import ChosenFeatures, choose_features, value_features
from radtransfer.datasets.tfds.image_index import SetIndex, Source, index_set
from radtransfer.datasets.tfds.known import KNOWN_SETS, KnownSet
from radtransfer.datasets.tfds.labels import read_labels
from radtransfer.datasets.tfds.prepared_table import is_prepared, read_prepared
from radtransfer.errors import ConfigError, DataError
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_EXAMPLE = "write tfds:FOLDER, or tfds:NAME/CONFIG such as tfds:patch_camelyon, with ?split=train if only that is meant"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the set `location`; nothing is downloaded.

    Raises:
        ConfigError: No location, or one with an unknown option.
        DataError: No such set, it was not prepared, is incomplete or damaged, or does not hold what is asked for.
    """
    name, chosen = parse_location(location)
    folder = Path(name).expanduser()
    if is_prepared(folder):
        return _only(read_prepared(folder, settings), chosen, name)
    if folder.is_dir() and settings.image_root:
        raise ConfigError(
            f"tfds:{name} is a folder and brings its own images. Leave --image-root out.", misfits=("image_root",)
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
    return _table(source, index_set(source), features, settings, pooled=bool(chosen))


def parse_location(location: str | None) -> tuple[str, tuple[str, ...]]:
    """The name or folder, and the splits that `?split=` chooses.

    Raises:
        ConfigError: No location, or one with an unknown option.
    """
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


def _only(table: ImageTable, chosen: Sequence[str], name: str) -> ImageTable:
    """The images of the chosen splits of a prepared set, taken together."""
    if not chosen:
        return table
    words = set(split_names(chosen).values())
    if table.splits is None and words == {"train"}:
        return table
    if table.splits is None or len(table.splits) > 1 or None in words:
        found = (
            "train" if table.splits is None else f"{len(table.splits)} folds" if len(table.splits) > 1 else "one split"
        )
        raise DataError(f"tfds:{name}?split={'+'.join(chosen)}: this prepared set brings {found}. Leave ?split= out.")
    kept = table.select(np.isin(table.splits[0], sorted(words)))
    return replace(kept, splits=None)


def _table(
    source: Source, index: SetIndex, features: ChosenFeatures, settings: DataSettings, *, pooled: bool
) -> ImageTable:
    known = KNOWN_SETS.get(source.builder.name)
    labels = read_labels(source.builder, index, features, settings, known)
    patients, patient_notes = _patients(index, features, settings, known)
    paths, path_notes = _paths(index, features.name)
    kept = np.flatnonzero(labels.known)
    splits, split_notes = (None, ()) if pooled else _given([index.splits[row] for row in kept])
    return ImageTable(
        paths=tuple(paths[row] for row in kept),
        files=tuple(index.places[row] for row in kept),
        targets=labels.targets,
        classes=labels.classes,
        task=labels.task,
        patients=None if patients is None else tuple(patients[row] for row in kept),
        splits=splits,
        notes=(*features.notes, *labels.notes, *path_notes, *patient_notes, *split_notes, *index.notes),
    )


def _paths(index: SetIndex, name: str | None) -> tuple[list[str], tuple[str, ...]]:
    """The split, and in it the name of the example if all have one of their own, else its number."""
    if name is not None:
        paths = [f"{split}/{value}" for split, value in zip(index.splits, index.values[name], strict=True)]
        if len(set(paths)) == len(paths):
            return paths, ()
    numbers: Counter[str] = Counter()
    paths = []
    for split in index.splits:
        paths.append(f"{split}/{numbers[split]}")
        numbers[split] += 1
    note = f"feature {name!r} names several images alike; their number in the split names them" if name else ""
    return paths, (note,) if note else ()


def _patients(
    index: SetIndex, features: ChosenFeatures, settings: DataSettings, known: KnownSet | None
) -> tuple[list[str] | None, tuple[str, ...]]:
    """The patients: from their feature, or from the name where the form of that is known."""
    if settings.patient_regex is not None:
        return None, ()
    if features.patient is not None:
        return [written(str(value)) for value in index.values[features.patient]], ()
    if known is None or known.patient is None or features.name != known.name:
        return None, ()
    names = index.values[known.name]
    matches = [re.search(known.patient, name) for name in names]
    patients = [match[1] if match else name for match, name in zip(matches, names, strict=True)]
    notes = [f"{len(set(patients))} patients from the {known.name} of the images"]
    if unmatched := matches.count(None):
        first = names[matches.index(None)]
        notes.append(f"{unmatched} images are patients of their own: their name holds no patient, such as {first!r}")
    return patients, tuple(notes)


def _given(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The given split, (1, images); None where there is nothing to learn from or nothing else."""
    splits = split_names(set(names))
    words = [splits[name] for name in names]
    held = set(words)
    if "train" not in held or len(held) == 1:
        return None, ()
    if "test" in held:
        return np.array([words], dtype="U5"), ("one fixed split, given with the data",)
    note = (
        "one fixed split: the set brings no test images, so its validation split is the test set; "
        "?split=train leaves it out and draws folds"
    )
    return np.array([["test" if word == "val" else word for word in words]], dtype="U5"), (note,)
