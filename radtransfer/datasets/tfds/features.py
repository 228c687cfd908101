"""Which features of a TFDS set are the image, its name, its patient and its labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.datasets.columns import USUAL_NAMES
from radtransfer.datasets.labels import listed
from radtransfer.datasets.tfds.known import PATH_NAMES, KnownSet
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclass(frozen=True)
class ChosenFeatures:
    """The features that are read.

    Attributes:
        image: The image.
        name: What names it; None: its number does.
        patient: The patient; None where there is none.
        labels: The class; or several of 0 and 1; or the one that holds the findings.
        findings: Names of the findings that are read from a sequence of labels, sorted; else empty.
        notes: What was guessed and what is not used.
    """

    image: str
    name: str | None
    patient: str | None
    labels: tuple[str, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def value_features(features: "tfds.features.FeaturesDict") -> tuple[str, ...]:
    """The features that hold one value per example, or a list of labels."""
    import tensorflow_datasets as tfds

    def holds_values(feature: "tfds.features.FeatureConnector") -> bool:
        if isinstance(feature, tfds.features.Sequence):
            return isinstance(feature.feature, tfds.features.ClassLabel)
        return isinstance(feature, tfds.features.Tensor) and feature.shape == ()

    return tuple(name for name, feature in sorted(features.items()) if holds_values(feature))


def choose_features(
    features: "tfds.features.FeaturesDict", settings: DataSettings, known: KnownSet | None
) -> ChosenFeatures:
    """The features that the settings name, and for the others those that are known, or have usual names and types.

    Raises:
        DataError: A named feature is not there, or there is none that could be the image or the label.
    """
    values, notes = value_features(features), []
    image = _image(features)
    name = known.name if known else _first(PATH_NAMES, values)
    if settings.path_column:
        name = _named(settings.path_column, values, "path")
    patient = _named(settings.patient_column, values, "patient") if settings.patient_column else None
    usual = _first(USUAL_NAMES["patient"], [_squeezed(value) for value in values])
    if patient is None and settings.patient_regex is None and usual is not None:
        patient = next(value for value in values if _squeezed(value) == usual)
        notes.append(f"patients from feature {patient!r}")
    labels, findings = _labels(features, settings, known, [value for value in values if value not in (name, patient)])
    used = {image, name, patient, *labels}
    if unused := [feature for feature in sorted(features) if feature not in used]:
        notes.append(f"features not used: {listed(unused)}")
    return ChosenFeatures(image, name, patient, labels, findings, tuple(notes))


def _image(features: "tfds.features.FeaturesDict") -> str:
    import tensorflow_datasets as tfds

    images = [name for name, feature in features.items() if type(feature) is tfds.features.Image]
    images = [name for name in images if np.dtype(features[name].np_dtype).name in ("uint8", "uint16")]
    if len(images) == 1 or "image" in images:
        return "image" if "image" in images else images[0]
    found = listed(images) if images else f"none among {listed(sorted(features))}"
    raise DataError(f"Expected a TFDS data set with one Image feature of 8 or 16 bits. Received: {found}.")


def _labels(
    features: "tfds.features.FeaturesDict", settings: DataSettings, known: KnownSet | None, values: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The label features, and the findings in a sequence of labels."""
    import tensorflow_datasets as tfds

    lists = [name for name in values if isinstance(features[name], tfds.features.Sequence)]
    if known and known.findings:
        chosen = [_named(name, known.findings, "label") for name in settings.label_column] or known.usual
        return tuple(lists[:1]), tuple(sorted(chosen))
    plain = [name for name in values if name not in lists]
    if settings.label_column:
        return tuple(_named(name, plain, "label") for name in settings.label_column), ()
    classes = [name for name in plain if isinstance(features[name], tfds.features.ClassLabel)]
    label = _first(USUAL_NAMES["label"], classes) or (classes[0] if len(classes) == 1 else None)
    if label is None:
        raise DataError(
            f"Expected a TFDS data set with one ClassLabel. Received: {listed(classes) or 'none'}; its features are "
            f"{listed(sorted(features))}. Name the label with --label-column NAME."
        )
    return (label,), ()


def _named(name: str, known: Sequence[str], role: str) -> str:
    found = [item for item in known if item == name] or [item for item in known if item.lower() == name.lower()]
    if found:
        return found[0]
    raise DataError(
        f"{name!r} (--{role}-column) is not in this TFDS data set. It has {listed(known, limit=20) or 'nothing'}. "
        "Name one of these.",
        misfits=(f"{role}_column",),
    )


def _first(preferred: Sequence[str], found: Sequence[str]) -> str | None:
    return next((name for name in preferred if name in found), None)


def _squeezed(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
