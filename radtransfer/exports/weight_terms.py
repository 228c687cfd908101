"""Under which terms the weights stand that a model started from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.pretrained.manifest import card_named, card_of_file
from radtransfer.runs import read_run

_DEEP = 20
"""Runs that started from runs, at most."""


@dataclass(frozen=True)
class WeightTerms:
    """What is known of the weights that a run started from.

    Attributes:
        source: Their name, without the folders of the machine it ran on.
        sha256: Of their file; None where there is none.
        terms: One or more sentences.
    """

    source: str
    sha256: str | None
    terms: str


def weight_terms(record: Mapping[str, Any]) -> WeightTerms:
    """What `run.json` and the manifest say of the weights; of a run's weights, what that run started from."""
    weights = record.get("weights") or {}
    given, file = weights.get("source") or "random", weights.get("file")
    return WeightTerms(_short(given), weights.get("sha256"), _terms(record, given, file, _DEEP))


def _terms(record: Mapping[str, Any], given: str, file: str | None, deep: int) -> str:
    if given == "random":
        return "It started from random weights; no terms of others apply to them."
    backbone = record.get("backbone")
    card = card_named(given, backbone=backbone) or (card_of_file(Path(file)) if file else None)
    if card is not None and card.backbone == backbone:
        return card.terms
    source = _run_around(Path(file)) if file else None
    if source is not None and deep:
        weights = source.get("weights") or {}
        before = weights.get("source") or "random"
        return f"They are a run's, which started from {_short(before)}. " + _terms(
            source, before, weights.get("file"), deep - 1
        )
    return "Not known to radtransfer: they are those of whoever published the file."


def _run_around(file: Path) -> Mapping[str, Any] | None:
    """The record of the run that `file` is the model of, if it is still there."""
    for folder in list(file.parents)[:2]:
        if (folder / "run.json").is_file():
            try:
                return read_run(folder)
            except RunError:
                return None
    return None


def _short(given: str) -> str:
    """A name as it is; of a path its last part, with the run where it is a fold."""
    parts = Path(given).parts
    if len(parts) < 2:
        return given
    return "/".join(parts[-2:]) if parts[-1].startswith("fold_") else parts[-1]
