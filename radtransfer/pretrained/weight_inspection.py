"""Everything that can be said about a weights file without training with it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from radtransfer.pretrained.recognition import Recognition, recognize
from radtransfer.pretrained.weight_sources import Certainty, WeightSource
from radtransfer.weight_formats.reading import sha256_of
from radtransfer.weight_formats.weight_file import WeightFile

_REASONS = {
    "run": "The run that made the file recorded it.",
    "assumed": "No card in the manifest; it is the backbone's own mode. --preprocessing overrides it.",
}


@dataclass(frozen=True)
class Inspection:
    """What a weights file holds.

    Attributes:
        file: Its path.
        format: Key in `weight_formats.FORMATS`.
        keras_version: Of the writer, where recorded.
        model_name: Of the saved model, where recorded.
        layers: With weights.
        parameters: All numbers in them.
        sha256: Of the file.
        not_finite: Of each variable with such values: its name, how many are NaN and how many infinite.
        lambdas: Names of its Lambda layers, whose effect on the images is unknown.
        backbone: The network whose every layer finds its weights here; None if it is none of ours.
        backbone_layers: With weights, without a head.
        channels: Of the images it takes.
        matched_by: What the layers were matched by.
        matched: Layers of the backbone that find their weights.
        missing: Layers of the backbone that do not.
        extra: Layers that are not the backbone's: a head, or another sub-model.
        card: Name in the manifest, if the file's name and network are known there.
        preprocessing: Mode it was trained with.
        preprocessing_sure: How that is known.
        preprocessing_certainty: Of the card.
        reason: Why that mode.
        terms: Of use.
    """

    file: str
    format: str
    keras_version: str | None
    model_name: str | None
    layers: int
    parameters: int
    sha256: str
    not_finite: tuple[dict[str, Any], ...] = ()
    lambdas: tuple[str, ...] = ()
    backbone: str | None = None
    backbone_layers: int | None = None
    channels: int | None = None
    matched_by: Literal["name", "order"] | None = None
    matched: int | None = None
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    card: str | None = None
    preprocessing: str | None = None
    preprocessing_sure: Certainty | None = None
    preprocessing_certainty: str | None = None
    reason: str | None = None
    terms: str | None = None


def inspect_weights(source: WeightSource, file: WeightFile) -> Inspection:
    """What `file`, which was read from `source`, holds. Builds networks to compare it with."""
    inspection = Inspection(
        file=str(file.path),
        format=file.format,
        keras_version=file.keras_version,
        model_name=file.model_name,
        layers=len(file.layers),
        parameters=file.parameters,
        sha256=sha256_of(file.path),
        not_finite=tuple(_not_finite(file)),
        lambdas=file.lambdas,
    )
    found = recognize(file)
    return inspection if found is None else _with_backbone(inspection, found, source)


def _not_finite(file: WeightFile) -> Iterator[dict[str, Any]]:
    for layer in file.layers:
        for leaf, array in layer.arrays.items():
            nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            if nan or infinite:
                yield {"variable": f"{layer.label}/{layer.leaf_name(leaf)}", "nan": nan, "infinite": infinite}


def _with_backbone(inspection: Inspection, found: Recognition, source: WeightSource) -> Inspection:
    mode, sure = source.preprocessing_for(found.backbone)
    inspection = replace(
        inspection,
        backbone=found.backbone,
        backbone_layers=found.layers,
        channels=found.channels,
        matched_by=found.match.by,
        matched=found.layers - len(found.match.missing),
        missing=found.match.missing,
        extra=found.match.extra,
        preprocessing=mode,
        preprocessing_sure=sure,
        reason=_REASONS.get(sure),
    )
    if sure != "card":
        return inspection
    card = source.card
    return replace(
        inspection,
        card=card.name,
        preprocessing_certainty=card.certainty,
        reason=card.reason,
        terms=card.terms,
    )
