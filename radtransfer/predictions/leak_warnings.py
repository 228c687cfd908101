"""Warnings where test images have been in training, so that figures are too high."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.comparisons.comparison_images import run_images
from radtransfer.datasets.image_table import ImageTable
from radtransfer.predictions.trained_model import TrainedModel
from radtransfer.progress import Progress
from radtransfer.run_reading import read_settings
from radtransfer.splits.folds import Fold
from radtransfer.splits.source_leaks import leaked_images
from radtransfer.splits.trained_images import Seen, seen_before

SEEN = "seen.csv"
"""Names the test images that were in training."""

_NO_TEST = "this is not a test"


@dataclass(frozen=True)
class Leaks:
    """Test images that were in training.

    Attributes:
        counts: `images` and `patients` that trained or validated the run, `of` so many test images and `of_patients`
            (None where they are not known), the images that are `in_weights`: in the training of the run that it
            started from, and whether images were `compared`, and not only paths and names. None for a model that is
            no run.
        how: Path of each to how it was seen, in the order of the test images: "trained", "validated", "weights"
            (those that the run started from), joined by ";"; "patient" where only other images of its patient were.
    """

    counts: dict[str, Any] | None
    how: dict[str, str] = field(default_factory=dict)


def warn_of_leaks(model: TrainedModel, table: ImageTable, progress: Progress) -> Leaks:
    """Warn of test images and patients that were in training, and count them.

    Args:
        model: That is tested.
        table: The test images.
        progress: Hears a warning of each kind of leak, and what could not be compared.
    """
    if model.kind != "run":
        progress.note(
            f"{model.given} does not know its training images; evaluate the run to see whether they are tested"
        )
        return Leaks(None)
    seen = seen_before(table, model.path, model.folds, run_images(model.path).data)
    weights, in_weights = _seen_by_the_weights(model, table)
    patients = None if table.patients is None else len(set(table.patients))
    if seen.images:
        progress.warning(
            f"leak: {len(seen.images)} of {len(table)} test images trained or validated {model.given} (e.g. "
            f"{table.paths[seen.images[0]]}); {_consequence(len(seen.images), len(table))}"
        )
    if seen.patients:
        name, there = next(((a, b) for a, b in seen.patients.items() if a != b), next(iter(seen.patients.items())))
        spelt = f"{name}, spelt {there} there" if name != there else name
        progress.warning(
            f"leak: {len(seen.patients)} of {patients} patients have names that stand in the training "
            f"of {model.given} too (e.g. {spelt}); if they are the same people, its figures are too high"
        )
    if in_weights:
        progress.warning(
            f"leak: {len(in_weights)} of {len(table)} test images trained or chose the weights of {weights}, which "
            f"{model.given} started from (e.g. {table.paths[in_weights[0]]}); "
            f"{_consequence(len(in_weights), len(table))}"
        )
    if not seen.compared:
        progress.note(
            f"the images of {model.given} are not there any more: only the paths of test images were compared"
        )
    counts = {
        "images": len(seen.images),
        "patients": len(seen.patients),
        "of": len(table),
        "of_patients": patients,
        "in_weights": len(in_weights),
        "compared": seen.compared,
    }
    return Leaks(counts, _how(table, seen, in_weights))


def leak_summary(seen: dict[str, Any] | None, listed: Path | None = None) -> str | None:
    """One line to stand under the results; None if nothing was in training.

    Args:
        seen: The counts of `Leaks`.
        listed: The file that names the images, if there is one.
    """
    told = _told(seen)
    return f"{told}; listed in {listed}" if told and listed else told


def _told(seen: dict[str, Any] | None) -> str | None:
    if seen is None:
        return None
    counts = [f"{seen['images']} of {seen['of']} test images"] if seen["images"] else []
    if seen["patients"]:
        counts.append(f"{seen['patients']} of {seen['of_patients']} patients")
    parts = [f"{' and '.join(counts)} were in the run's training or validation"] if counts else []
    if seen["in_weights"]:
        parts.append(f"{seen['in_weights']} of {seen['of']} test images in that of the weights it started from")
    if not parts:
        return None
    if seen["of"] in (seen["images"], seen["in_weights"]):
        return f"{', '.join(parts)}: {_NO_TEST}"
    known = seen["images"] or seen["in_weights"]
    return f"{', '.join(parts)}: the figures {'are' if known else 'may be'} too high"


def _how(table: ImageTable, seen: Seen, in_weights: Sequence[int]) -> dict[str, str]:
    ways = dict(zip(seen.images, seen.ways, strict=True))
    for row in in_weights:
        ways[row] = f"{ways[row]};weights" if row in ways else "weights"
    known = set(seen.patients)
    for row, patient in enumerate(table.patients or ()):
        if patient in known:
            ways.setdefault(row, "patient")
    return {table.paths[row]: ways[row] for row in sorted(ways)}


def _consequence(leaked: int, tested: int) -> str:
    if leaked == tested:
        return f"{_NO_TEST}. Give images that are new to it"
    return "its figures are too high. Leave them out"


def _seen_by_the_weights(model: TrainedModel, table: ImageTable) -> tuple[str, list[int]]:
    """The weights that the run started from, and rows of the test images that trained them, if they are a run's."""
    weights = str(read_settings(model.path)["model"].get("weights") or "random")
    whole = Fold(1, 1, 0, np.full(len(table), "test"))
    return weights, next((rows for _, rows in leaked_images(weights, table, [whole])), [])
