"""What training changed in each arm of a report: its layers by CCA, and the filters of its first convolution."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.errors import RadtransferError, SimilarityError
from radtransfer.progress import Progress
from radtransfer.reports.arm_results import LayerChange
from radtransfer.reports.gain import GainPoint, relative_gain
from radtransfer.reports.run_arms import Arm

# These modules import TensorFlow, which a report without --cca does without.
if TYPE_CHECKING:
    from radtransfer.comparisons.weights import Filters

CHANNELS = (64, 16)
"""Channels of a layer that CCA is computed of: fewer for all arms where images are too few for one of them."""

MOST_FILTERS = 6
"""Arms whose filters are shown."""


def layer_changes(arms: Sequence[Arm], notes: list[str], progress: Progress) -> dict[str, list[LayerChange]]:
    """Each arm's first run before and after training, all arms in as many channels; what cannot be done is noted."""
    from radtransfer.comparisons.compare import ComparisonSettings, compare
    from radtransfer.comparisons.layer_pairs import Sampling

    for dims in CHANNELS:
        settings, found, failed = ComparisonSettings(sampling=Sampling(dims=dims)), {}, []
        too_few = False
        for number, arm in enumerate(arms, start=1):
            progress.count("arms compared before and after", number, len(arms))
            path, folds = arm.runs[0].path, arm.runs[0].folds
            try:
                compared = [
                    compare(
                        f"{path}@initial", f"{path}@final", replace(settings, folds=(fold.fold,)), progress=progress
                    )
                    for fold in folds
                ]
                found[arm.name] = _layer_changes([fold.key for fold in folds], [each.layers for each in compared])
            except (RadtransferError, OSError) as error:
                failed.append(f"{arm.name} is not compared before and after training: {error}")
                too_few = too_few or isinstance(error, SimilarityError)
        if not too_few:
            break
    notes += failed
    return found


def _layer_changes(keys: Sequence[str], folds: Sequence[Sequence[Any]]) -> list[LayerChange]:
    """The mean over folds, whose images are different ones, and each fold's value."""
    changes = []
    for items in zip(*folds, strict=True):
        by_training = {k: item.similarity for k, item in zip(keys, items, strict=True) if item.similarity is not None}
        value = float(np.mean(list(by_training.values()))) if len(by_training) == len(items) else None
        ends, interval = [item.ci95 for item in items], None
        if value is not None and None not in ends:
            half = float(np.sqrt(sum(((high - low) / 2) ** 2 for low, high in ends))) / len(items)
            interval = (value - half, value + half)
        chance = _largest(*(end for item in items for end in (item.null.closed_form, item.null.permuted)))
        fewest = min(items, key=lambda item: item.rows)
        changes.append(
            LayerChange(items[0].layer, value, interval, chance, fewest.dims, fewest.rows, by_training=by_training)
        )
    return changes


def baseline_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm that differs from `arm` in nothing but that it starts at random; None where there is none."""
    if arm.start == "random":
        return None
    key = (arm.backbone, arm.depth, arm.context, "random")
    return next((other for other in arms if (other.backbone, other.depth, other.context, other.start) == key), None)


def change_differences(arms: Sequence[Arm], changes: Mapping[str, Sequence[LayerChange]]) -> list[dict[str, Any]]:
    """How much more alike to its start each layer stayed than where it started at random, by arm and layer.

    Each row has the difference and its 95 % interval, the errors of both taken as independent.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Table 5.
    """
    rows = []
    for arm in arms:
        baseline = baseline_of(arm, arms)
        of_random = {} if baseline is None else {c.layer: c for c in changes.get(baseline.name, ())}
        for change in changes.get(arm.name, ()):
            other = of_random.get(change.layer)
            if other is None or change.similarity is None or other.similarity is None:
                continue
            value, interval = change.similarity - other.similarity, None
            if change.ci95 is not None and other.ci95 is not None:
                half = float(np.hypot(np.ptp(change.ci95), np.ptp(other.ci95))) / 2
                interval = (value - half, value + half)
            rows.append({"arm": arm.name, "layer": change.layer, "difference": value, "ci95": interval})
    return rows


def gain_points(arms: Sequence[Arm], changes: Mapping[str, Sequence[LayerChange]]) -> dict[tuple[str, str], list]:
    """Similarity and gain of each training, by arm and layer.

    The gain is relative to the arm that differs in nothing but that it starts at random, on the same seed and fold;
    arms without such a one are left out.
    """
    points: dict[tuple[str, str], list] = {}
    for arm in arms:
        baseline = baseline_of(arm, arms)
        if baseline is None:
            continue
        aucs, of_random = ({fold.key: fold.auc for fold in each.folds} for each in (arm, baseline))
        target = Path(str(arm.runs[0].settings.get("data.source") or "the data")).name
        for change in changes.get(arm.name, ()):
            points[arm.name, change.layer] = [
                GainPoint(target, key, similarity, relative_gain(aucs[key], of_random[key]))
                for key, similarity in change.by_training.items()
                if aucs.get(key) is not None and of_random.get(key)
            ]
    return points


def filter_changes(arms: Sequence[Arm], notes: list[str]) -> "dict[str, Filters]":
    """The first convolution of each arm's first network before and after training; what cannot be read is noted."""
    from radtransfer.comparisons.weights import compare_weights

    found = {}
    for arm in arms[:MOST_FILTERS]:
        path, fold = arm.runs[0].path, arm.runs[0].folds[0].fold
        try:
            filters = compare_weights(f"{path}@initial", f"{path}@final", folds=(fold,)).filters
        except (RadtransferError, OSError) as error:
            notes.append(f"{arm.name}: its filters cannot be read: {error}")
            continue
        if filters is not None:
            found[arm.name] = filters
    if len(arms) > MOST_FILTERS:
        notes.append(f"filters of {', '.join(arm.name for arm in arms[MOST_FILTERS:])} are not shown")
    return found


def _largest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
