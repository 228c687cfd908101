"""Every layer of two networks, compared in one pass over the images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from radtransfer.comparisons.activations import FeatureMaps
from radtransfer.comparisons.comparison_images import ComparisonImages
from radtransfer.comparisons.draws import CrossedSums, GroupedSums, MismatchedSums, PairedReadings
from radtransfer.comparisons.layer_pairs import (
    LayerPair,
    Sampling,
    crossed_readings,
    paired_readings,
    unequal_widths,
)
from radtransfer.comparisons.layer_scores import DrawScore, no_score, score_draw, similarity_value
from radtransfer.comparisons.sampling import image_order
from radtransfer.errors import SimilarityError
from radtransfer.pipeline.batches import make_batches
from radtransfer.progress import Progress
from radtransfer.similarity.measure import ROWS_PER_DIRECTION, Measure

_MOST_GROUPS, _FEWEST_GROUPS = 20, 5
# Raghu, Gilmer, Yosinski and Sohl-Dickstein advise 5 to 10 rows per direction.
_AMPLE_ROWS = 5
_STATE_BYTES = 1 << 30


@dataclass
class LayerScores:
    """What one pass found.

    Attributes:
        draws: (layer, kind) to the score of each draw.
        crossed: (layer of A, layer of B, kind) to the similarity in each draw; empty unless asked for.
        few_rows: The layers with too few rows for a kind that fits directions.
    """

    draws: dict[tuple[str, str], list[DrawScore]] = field(default_factory=dict)
    crossed: dict[tuple[str, str, str], list[float | None]] = field(default_factory=dict)
    few_rows: tuple[str, ...] = ()


def compare_layers(
    a: FeatureMaps,
    b: FeatureMaps,
    pairs: Sequence[LayerPair],
    images: ComparisonImages,
    *,
    sizes: tuple[int, int],
    kinds: dict[str, Measure],
    sampling: Sampling,
    cross: bool,
    progress: Progress,
) -> LayerScores:
    """Compare the pairs on the images, by every kind, in every draw.

    A layer that cannot be compared has no score, and a reason; the others have theirs.

    Args:
        a: One network's maps.
        b: The other's.
        pairs: Which layers.
        images: On which images.
        sizes: Side of the images that each network takes, pixels.
        kinds: Name of each measure and the measure.
        sampling: Of rows and channels.
        cross: Also every layer of A against every layer of B.
        progress: Counts the images.

    Raises:
        SimilarityError: No layer can be compared.
        DataError: An image cannot be decoded.
    """
    norms = "cka" in kinds
    unequal = unequal_widths(a, b, pairs, sampling)
    every, pairs = pairs, [pair for pair in pairs if pair.name not in unequal]
    draws = [
        paired_readings(a, b, pairs, images=len(images), sampling=sampling, repeat=repeat)
        for repeat in range(sampling.repeats)
    ]
    few = _few_rows(draws[0], images=len(images)) if any(measure.fits for measure in kinds.values()) else {}
    if not pairs or (len(few) == len(pairs) and all(measure.fits for measure in kinds.values())):
        raise SimilarityError(next(iter((unequal | few).values())))
    _note_few_rows(draws[0], sampling, progress)
    _note_high_scores(draws[0], kinds, few, progress)
    order, groups = image_order(images.clusters, groups=_groups(draws), seed=sampling.seed)
    grouped = [[GroupedSums(readings, groups, norms=norms) for readings in draw] for draw in draws]
    mismatched = [
        [MismatchedSums(readings, norms=norms) for readings in draw] if len(images) > 1 else [] for draw in draws
    ]
    crossed = [
        CrossedSums(readings, norms=norms)
        for repeat in range(sampling.repeats if cross else 0)
        for readings in crossed_readings(a, b, pairs, images=len(images), sampling=sampling, repeat=repeat)
    ]
    everything = [sums for draw in (*grouped, *mismatched) for sums in draw] + crossed
    first = 0
    for batch_a, batch_b in _batches(images, order, sizes, min(a.batch_size, b.batch_size)):
        last = first + len(batch_a)
        maps_a, maps_b = a.of(batch_a), b.of(batch_b)
        for sums in everything:
            sums.add(first, last, maps_a, maps_b)
        first = last
        progress.count("images", last, len(images))
    scores = _scores(grouped, mismatched, kinds, few)
    for pair in every:
        for kind in kinds if pair.name in unequal else ():
            none = no_score(unequal[pair.name], rows=0, images=len(images), dims=0)
            scores.draws[pair.name, kind] = [none] * sampling.repeats
    _add_crossed(scores, crossed, kinds)
    return scores


def _few_rows(draw: Sequence[PairedReadings], *, images: int) -> dict[str, str]:
    """The layers with too few rows for the directions that are fitted, and how many images would do."""
    found = {}
    for readings in draw:
        rows, cells = readings.positions.rows, readings.positions.grid[0] * readings.positions.grid[1]
        for name, reading in readings.a.items():
            dims = reading.channels.size + readings.b[name].channels.size
            needed = ROWS_PER_DIRECTION * dims
            if rows < needed:
                found[name] = (
                    f"{name}: expected at least {needed} rows for {dims} channels, received {rows} from {images} "
                    f"images of {cells} positions. {-(-needed // cells)} images would do"
                    f"{', with --rows ' + str(needed) if rows < min(needed, images * cells) else ''}; "
                    f"with these, use --dims {max(1, rows // (2 * ROWS_PER_DIRECTION))}, or --similarity cka."
                )
    return found


def _note_few_rows(draw: Sequence[PairedReadings], sampling: Sampling, progress: Progress) -> None:
    for readings in draw:
        if readings.positions.rows < sampling.rows and sampling.sampling == "spread":
            progress.note(
                f"{_shortened(list(readings.a))}: {readings.positions.rows:,} rows instead of {sampling.rows:,}; "
                "there are no more positions"
            )


def _note_high_scores(
    draw: Sequence[PairedReadings], kinds: dict[str, Measure], few: Mapping[str, str], progress: Progress
) -> None:
    """Warn where there are so few rows that unrelated layers look alike, but for layers that are left out."""
    fitted = any(measure.fits for measure in kinds.values())
    others = any(measure.chance_of_sums is not None for measure in kinds.values())
    for readings in draw:
        names = [name for name in readings.a if others or (fitted and name not in few)]
        dims = max((readings.a[name].channels.size + readings.b[name].channels.size for name in names), default=0)
        if readings.positions.rows < _AMPLE_ROWS * dims:
            progress.note(
                f"{_shortened(names)}: {readings.positions.rows:,} rows for {dims} channels make any layers "
                f"look alike; {_AMPLE_ROWS * dims:,} would be ample. Read the scores against chance"
            )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _groups(draws: Sequence[Sequence[PairedReadings]]) -> int:
    """So many groups of images that their sums stay within a gigabyte."""
    size = 0
    for readings in (readings for draw in draws for readings in draw):
        for name, reading in readings.a.items():
            mine, its = reading.channels.size, readings.b[name].channels.size
            size += 8 * (mine**2 + its**2 + mine * its)
    return int(np.clip(_STATE_BYTES // size, _FEWEST_GROUPS, _MOST_GROUPS))


def _batches(
    images: ComparisonImages, order: np.ndarray, sizes: tuple[int, int], batch_size: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The images in order, for each network in its size, (images, size, size, 3)."""
    epochs = {
        size: make_batches(
            images.paths,
            images.places,
            images.facts,
            np.zeros((len(images), 1), np.float32),
            image_size=size,
            reading=images.reading,
            batch_size=batch_size,
            workers=1,
        ).in_order(order)
        for size in set(sizes)
    }
    for step, batches in enumerate(zip(*epochs.values(), strict=True)):
        count = min(batch_size, len(images) - step * batch_size)
        of_size = {size: batch[0][:count] for size, batch in zip(epochs, batches, strict=True)}
        yield of_size[sizes[0]], of_size[sizes[1]]


def _scores(
    grouped: Sequence[Sequence[GroupedSums]],
    mismatched: Sequence[Sequence[MismatchedSums]],
    kinds: dict[str, Measure],
    few: dict[str, str],
) -> LayerScores:
    scores = LayerScores(few_rows=tuple(few))
    for draw, chance in zip(grouped, mismatched, strict=True):
        unrelated = dict(pair for sums in chance for pair in sums.pairs())
        for sums in draw:
            for name, groups in sums.pairs():
                reasons = {"undefined": sums.readings.undefined(name, name), "few_rows": few.get(name, "")}
                found = score_draw(groups, unrelated.get(name), kinds, images=sums.images, **reasons)
                for kind, score in found.items():
                    scores.draws.setdefault((name, kind), []).append(score)
    return scores


def _add_crossed(scores: LayerScores, crossed: Sequence[CrossedSums], kinds: dict[str, Measure]) -> None:
    """Every layer of A with every layer of B; None where it is not defined, or the rows are too few to fit."""
    for sums in crossed:
        for mine, its, pair in sums.pairs():
            few = pair.rows < ROWS_PER_DIRECTION * (pair.x.channels + pair.y.channels)
            for kind, measure in kinds.items():
                left_out = sums.readings.undefined(mine, its) or (few and measure.fits)
                value = None if left_out else similarity_value(measure, pair)
                scores.crossed.setdefault((mine, its, kind), []).append(value)
