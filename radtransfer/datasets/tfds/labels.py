"""The labels of a TFDS set as targets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.datasets.labels import label_values, listed, one_hot, plain
from radtransfer.datasets.tfds.features import ChosenFeatures
from radtransfer.datasets.tfds.image_index import SetIndex
from radtransfer.datasets.tfds.known import KnownSet
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclass(frozen=True)
class SetLabels:
    """The labels of a set.

    Attributes:
        targets: Of the labelled examples, as `ImageTable` has them.
        classes: Class or label names.
        task: "multiclass" or "multilabel".
        known: Which examples are labelled, bool (examples,).
        notes: What was chosen and what is left out.
    """

    targets: np.ndarray
    classes: tuple[str, ...]
    task: str
    known: np.ndarray
    notes: tuple[str, ...] = ()


def read_labels(
    builder: "tfds.core.DatasetBuilder",
    index: SetIndex,
    features: ChosenFeatures,
    settings: DataSettings,
    known: KnownSet | None,
) -> SetLabels:
    """The labels of every example that has one.

    Raises:
        DataError: A label is none of the values that it may have, or no example has one.
    """
    if features.findings:
        return _findings(builder, index, features, settings, known)
    columns = [_texts(builder.info.features[name], index.values[name]) for name in features.labels]
    if len(columns) > 1 or settings.task == "multilabel":
        order = sorted(range(len(columns)), key=lambda column: features.labels[column])
        names = tuple(features.labels[column] for column in order)
        numbers = [_binary(builder.info.features[name], index.values[name]) for name in names]
        return SetLabels(_targets(names, numbers, settings), names, "multilabel", np.ones(len(index.places), bool))
    known_rows = np.array([text != "" for text in columns[0]])
    missing = int((~known_rows).sum())
    if missing == len(known_rows):
        raise DataError(f"No example of the chosen splits has a label ({features.labels[0]}). Choose other splits.")
    targets, classes = one_hot([text for text in columns[0] if text])
    notes = (f"{missing} images without a label are left out",) if missing else ()
    return SetLabels(targets, classes, "multiclass", known_rows, notes)


def _findings(
    builder: "tfds.core.DatasetBuilder",
    index: SetIndex,
    features: ChosenFeatures,
    settings: DataSettings,
    known: KnownSet,
) -> SetLabels:
    """One label per finding, from a feature that holds them in a row."""
    label, notes = features.labels[0], []
    class_names, rows = builder.info.features[label].feature.names, index.values[label]
    wrong = [len(row) for row in rows if len(row) != len(known.findings)]
    if wrong:
        found = (
            f"{len(wrong)} examples have another number of labels than the {len(known.findings)} findings of the set"
        )
        if builder.info.splits:
            raise DataError(f"{found}, such as {wrong[0]}. Prepare the data set again.")
        notes.append(f"{found}; missing ones count as unmentioned")
    columns = []
    for finding in features.findings:
        place = known.findings.index(finding)
        columns.append([known.meanings[class_names[row[place]]] if place < len(row) else "" for row in rows])
    if not settings.label_column:
        others = listed((name for name in known.findings if name not in features.findings), limit=20)
        notes.append(f"labels {listed(features.findings)}; also there for --label-column: {others}")
    targets = _targets(features.findings, columns, settings)
    return SetLabels(targets, features.findings, "multilabel", np.ones(len(rows), bool), tuple(notes))


def _texts(feature: "tfds.features.FeatureConnector", values: Iterable[Any]) -> list[str]:
    """Each label as text; "" where there is none."""
    names = getattr(feature, "names", None)
    if names is None:
        return ["" if value is None else plain(str(value)) for value in values]
    return ["" if value is None or value < 0 else names[value] for value in values]


def _binary(feature: "tfds.features.FeatureConnector", values: Iterable[Any]) -> list[str]:
    """Each label as 1, 0, -1 (uncertain) or nothing; a class without label is unmentioned."""
    if getattr(feature, "names", None) is None:
        return ["" if value is None else plain(str(value)) for value in values]
    return ["" if value is None or value < 0 else str(value) for value in values]


def _targets(names: Sequence[str], columns: Sequence[Sequence[str]], settings: DataSettings) -> np.ndarray:
    values = label_values(settings)
    for name, column in zip(names, columns, strict=True):
        if unknown := set(column) - set(values):
            raise DataError(
                f"Label {name!r}: expected 1, 0, -1 (uncertain) or nothing, received {min(unknown)!r}. "
                "Several labels per image need two classes each."
            )
    return np.array([[values[text] for text in row] for row in zip(*columns, strict=True)], dtype="float32")
