"""A word where test images have been in training, so that figures are too high."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from radtransfer.comparisons.comparison_images import run_file, run_images
from radtransfer.datasets.image_table import ImageTable
from radtransfer.predictions.trained_model import TrainedModel
from radtransfer.progress import Progress
from radtransfer.splits.folds import Fold
from radtransfer.splits.source_leaks import source_leaks
from radtransfer.splits.trained_images import seen_before
from radtransfer.yaml_text import read_yaml


def warn_of_leaks(model: TrainedModel, table: ImageTable, progress: Progress) -> dict[str, Any] | None:
    """Counts of the test images and patients that the run has trained or validated on, with a warning each."""
    if model.kind != "run":
        progress.note(
            f"{model.given} does not know its training images; evaluate the run to see whether they are tested"
        )
        return None
    seen = seen_before(table, model.path, model.folds, run_images(model.path).data)
    if seen.images:
        progress.note(
            f"leak: {len(seen.images)} of {len(table)} test images trained or validated {model.given} (e.g. "
            f"{table.paths[seen.images[0]]}); its figures are too high. Leave them out"
        )
    if seen.patients:
        progress.note(
            f"leak: {len(seen.patients)} of {len(set(table.patients))} patients have names that stand in the training "
            f"of {model.given} too (e.g. {seen.patients[0]}); if they are the same people, its figures are too high"
        )
    for note in _seen_by_the_weights(model, table):
        progress.note(note)
    if not seen.compared:
        progress.note(
            f"the images of {model.given} are not there any more: only the paths of test images were compared"
        )
    return {"images": len(seen.images), "patients": len(seen.patients), "compared": seen.compared}


def _seen_by_the_weights(model: TrainedModel, table: ImageTable) -> Iterator[str]:
    """A warning where the run started from another run that has trained on the images."""
    document, _ = read_yaml(run_file(model.path, "config.yaml"))
    weights = (document.get("model") or {}).get("weights") or "random"
    whole = Fold(1, 1, 0, np.full(len(table), "test"))
    for note in source_leaks(str(weights), table, [whole]):
        yield f"leak: {note.partition(': ')[2]}"
