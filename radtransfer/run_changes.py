"""What training changed in each arm of a report: its layers by CCA, and the filters of its first convolution."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from radtransfer.arm_results import LayerChange
from radtransfer.errors import RadtransferError, SimilarityError
from radtransfer.progress import Progress
from radtransfer.run_arms import Arm

# These modules import TensorFlow, which a report without --cca does without.
if TYPE_CHECKING:
    from radtransfer.compare_weights import Filters

CHANNELS = (64, 16)
"""Channels of a layer that CCA is computed of: fewer for all arms where images are too few for one of them."""

MOST_FILTERS = 6
"""Arms whose filters are shown."""


def layer_changes(arms: Sequence[Arm], notes: list[str], progress: Progress) -> dict[str, list[LayerChange]]:
    """Each arm's first run before and after training, all arms in as many channels; what cannot be done is noted."""
    from radtransfer.compare import ComparisonSettings, compare
    from radtransfer.layer_pairs import Sampling

    for dims in CHANNELS:
        settings, found, failed = ComparisonSettings(sampling=Sampling(dims=dims)), {}, []
        too_few = False
        for number, arm in enumerate(arms, start=1):
            progress.count("arms compared before and after", number, len(arms))
            path = arm.runs[0].path
            try:
                comparison = compare(f"{path}@initial", f"{path}@final", settings, progress=progress)
                found[arm.name] = [_layer_change(item) for item in comparison.layers]
            except (RadtransferError, OSError) as error:
                failed.append(f"{arm.name} is not compared before and after training: {error}")
                too_few = too_few or isinstance(error, SimilarityError)
        if not too_few:
            break
    notes += failed
    return found


def _layer_change(item: Any) -> LayerChange:
    chance = _largest(item.null.closed_form, item.null.permuted)
    return LayerChange(item.layer, item.similarity, item.ci95, chance, item.dims, item.rows)


def filter_changes(arms: Sequence[Arm], notes: list[str]) -> "dict[str, Filters]":
    """The first convolution of each arm's first network before and after training; what cannot be read is noted."""
    from radtransfer.compare_weights import compare_weights

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
