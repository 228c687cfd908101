"""Similarity of layer pairs in one pass over the images, with an interval over images and the value by chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.data.run_data import ImageArrays, LocatedImages
from radtransfer.errors import ConfigError, SimilarityError
from radtransfer.process import Progress
from radtransfer.similarity.layer_rows import AllPairsSums, Draw, LayerPair, PairedSums, Sampling, draws, image_order
from radtransfer.similarity.measure import (
    FEWEST_GROUPS,
    ROWS_PER_DIRECTION,
    Measure,
    jackknife_error,
    leaving_one_out,
    normal_interval,
    total_moments,
)
from radtransfer.similarity.moments import CrossMoments

if TYPE_CHECKING:
    import tensorflow as tf

    from radtransfer.models.activations import FeatureMaps

_MOST_GROUPS = 20
# Raghu, Gilmer, Yosinski and Sohl-Dickstein advise 5 to 10 rows per direction.
_AMPLE_ROWS = 5
_STATE_BYTES = 1 << 30


@dataclass(frozen=True)
class Null:
    """The similarity of unrelated layers.

    `closed_form`: expected for independent Gaussian rows, None if unknown; `permuted`: of A on one image with B on
    another at the same positions, None with a single image.
    """

    closed_form: float | None
    permuted: float | None


@dataclass(frozen=True, eq=False)
class DrawScore:
    """The similarity of a layer, of one kind, in one draw of rows and channels.

    Attributes:
        dims: Channels of the narrower layer.
        undefined: Why the value is None.
        left_out: The similarities without each group of images, float64 (groups,); None if undefined.
    """

    rows: int
    images: int
    dims: int
    value: float | None = None
    undefined: str = ""
    left_out: np.ndarray | None = None
    null: Null = Null(None, None)
    rank_a: int = 0
    rank_b: int = 0


@dataclass(frozen=True)
class LayerSimilarity:
    """The similarity of a layer over draws and folds.

    Attributes:
        similarity: The mean over draws and folds; None if undefined in one of them.
        ci95: Jackknife interval over images; None with fewer than five groups of images in a draw, or different
            numbers of groups, as whole-image sampling may give.
        rank_a, rank_b: Independent directions, the fewest of all draws.
        rows, images, dims: In the fold with the fewest rows.
    """

    layer: str
    kind: str
    similarity: float | None
    ci95: tuple[float, float] | None
    null: Null
    rank_a: int
    rank_b: int
    rows: int
    images: int
    dims: int
    repeats: int


@dataclass(frozen=True)
class LayerScores:
    """The result of one pass: scores of each draw by layer and kind, and by layer of A, layer of B and kind (`cross`).

    `few_rows` are layers with too few rows for a kind that fits directions.
    """

    draws: dict[tuple[str, str], list[DrawScore]]
    crossed: dict[tuple[str, str, str], list[float | None]]
    few_rows: tuple[str, ...]


def score_layers(
    a: "FeatureMaps",
    b: "FeatureMaps",
    pairs: Sequence[LayerPair],
    images: LocatedImages | ImageArrays,
    *,
    sizes: tuple[int, int],
    kinds: Mapping[str, Measure],
    sampling: Sampling,
    cross: bool,
    progress: Progress,
) -> LayerScores:
    """Compare the pairs on the images, by every kind, in every draw; undefined scores carry a reason.

    `sizes` are the image sizes of the networks, pixels. Raises SimilarityError if no layer can be compared.
    """
    norms, count, repeats = "cka" in kinds, len(images), range(sampling.repeats)
    unequal = {}
    for pair in pairs if sampling.channels == "paired" else ():
        mine, its = a.width(pair.a), b.width(pair.b)
        if mine != its:
            unequal[pair.name] = (
                f"{pair.name}: --channels paired expects as many channels in both layers; received {mine} and {its}. "
                "Use --channels independent or all."
            )
    every, pairs = pairs, [pair for pair in pairs if pair.name not in unequal]
    drawn = [draws(a, b, pairs, images=count, sampling=sampling, repeat=repeat) for repeat in repeats]
    few = _few_rows(drawn[0], images=count) if any(measure.fits for measure in kinds.values()) else {}
    if not pairs or (len(few) == len(pairs) and all(measure.fits for measure in kinds.values())):
        raise SimilarityError(next(iter((unequal | few).values())))
    _note_rows(drawn[0], kinds, few, sampling, progress)
    # As many groups of images as their sums fit into a gigabyte.
    dims = [each.dims(name) for draw in drawn for each in draw for name in each.a]
    size = sum(8 * (mine**2 + its**2 + mine * its) for mine, its in dims)
    most = int(np.clip(_STATE_BYTES // size, FEWEST_GROUPS, _MOST_GROUPS))
    order, groups = image_order(images.clusters, groups=most, seed=sampling.seed)
    paired = [PairedSums(each, groups, norms=norms, mismatched=count > 1) for draw in drawn for each in draw]
    crossed = [
        AllPairsSums(each, norms=norms)
        for repeat in (repeats if cross else ())
        for each in draws(a, b, pairs, images=count, sampling=sampling, repeat=repeat, all_pairs=True)
    ]
    first = 0
    for batch_a, batch_b in _batches(images, order, sizes, min(a.batch_size, b.batch_size)):
        last = first + len(batch_a)
        maps_a, maps_b = a.of(batch_a), b.of(batch_b)
        for sums in (*paired, *crossed):
            sums.add(first, last, maps_a, maps_b)
        first = last
        progress.count("images", last, count)
    scores = LayerScores({}, {}, tuple(few))
    for sums in crossed:
        for mine, its, pair in sums.pairs():
            too_few = pair.rows < ROWS_PER_DIRECTION * (pair.x.channels + pair.y.channels)
            for kind, measure in kinds.items():
                undefined = sums.draw.undefined(mine, its) or (too_few and measure.fits)
                scores.crossed.setdefault((mine, its, kind), []).append(None if undefined else _value(measure, pair))
    for sums in paired:
        read = int(np.count_nonzero(sums.draw.positions.counts))
        for name, of_groups, mismatched in sums.pairs():
            reasons = {"undefined": sums.draw.undefined(name, name), "few_rows": few.get(name, "")}
            for kind, score in score_draw(of_groups, mismatched, kinds, images=read, **reasons).items():
                scores.draws.setdefault((name, kind), []).append(score)
    for pair in every:
        for kind in kinds if pair.name in unequal else ():
            scores.draws[pair.name, kind] = [DrawScore(0, count, 0, None, unequal[pair.name])] * sampling.repeats
    return scores


def score_draw(
    groups: Sequence[CrossMoments],
    mismatched: CrossMoments | None,
    kinds: Mapping[str, Measure],
    *,
    images: int,
    undefined: str = "",
    few_rows: str = "",
) -> dict[str, DrawScore]:
    """The scores of one draw of a layer, by kind, from the moments of groups of images.

    `mismatched`: moments of A on one image with B on another; `undefined`: why no kind can be computed; `few_rows`: why
    no kind that fits directions can.
    """
    total = total_moments(groups)
    rest = list(leaving_one_out(groups)) if len(groups) >= FEWEST_GROUPS else []
    size = total.rows, images, min(total.x.channels, total.y.channels)
    scores = {}
    for kind, measure in kinds.items():
        reason = undefined or (few_rows if measure.fits else "")
        try:
            found = None if reason else measure.of_sums(total)
        except SimilarityError as error:
            found, reason = None, str(error)
        if found is None:
            scores[kind] = DrawScore(*size, None, reason)
            continue
        left_out = [_value(measure, pair) for pair in rest]
        closed_form = None
        if measure.chance_of_sums is not None:
            closed_form = measure.chance_of_sums(total)
        elif measure.chance is not None and not (measure.fits and found.rows - 1 <= found.rank_x + found.rank_y):
            closed_form = measure.chance(found.rows, found.rank_x, found.rank_y)
        scores[kind] = DrawScore(
            *size,
            found.value,
            left_out=None if not left_out or None in left_out else np.array(left_out),
            null=Null(closed_form, None if mismatched is None else _value(measure, mismatched)),
            rank_a=found.rank_x,
            rank_b=found.rank_y,
        )
    return scores


def combine(
    layer: str, kind: str, folds: Sequence[Sequence[DrawScore]], *, same_images: bool = False
) -> LayerSimilarity:
    """One result from the draws of each fold; `same_images`: all folds used the same images in the same groups."""
    every = [draw for fold in folds for draw in fold]
    value, fewest = mean([draw.value for draw in every]), min(every, key=lambda draw: draw.rows)
    sets, ci95 = [every] if same_images else folds, None
    counts = [{0 if draw.left_out is None else draw.left_out.size for draw in fold} for fold in sets]
    if all(len(sizes) == 1 and 0 not in sizes for sizes in counts):
        # Each group is left out of all draws of a fold at once, because the draws share their images.
        errors = [jackknife_error(np.mean([draw.left_out for draw in fold], axis=0)) for fold in sets]
        ci95 = normal_interval(value, float(np.sqrt(np.sum(np.square(errors)))) / len(sets))
    return LayerSimilarity(
        layer,
        kind,
        value,
        ci95,
        Null(mean([draw.null.closed_form for draw in every]), mean([draw.null.permuted for draw in every])),
        min(draw.rank_a for draw in every),
        min(draw.rank_b for draw in every),
        fewest.rows,
        fewest.images,
        fewest.dims,
        len(folds[0]),
    )


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if one of the values is None."""
    return None if None in values else float(np.mean(values))


def _value(measure: Measure, pair: CrossMoments) -> float | None:
    """The similarity; None if undefined, as for a layer that varies in only one group of images."""
    try:
        return measure.of_sums(pair).value
    except SimilarityError:
        return None


def _few_rows(drawn: Sequence[Draw], *, images: int) -> dict[str, str]:
    """The layers with too few rows for the fitted directions, each with a message."""
    found = {}
    for draw in drawn:
        rows, cells = draw.positions.rows, draw.positions.grid[0] * draw.positions.grid[1]
        for name in draw.a:
            dims = sum(draw.dims(name))
            needed = ROWS_PER_DIRECTION * dims
            if rows < needed:
                found[name] = (
                    f"{name}: expected at least {needed} rows for {dims} channels, received {rows} from {images} "
                    f"images of {cells} positions. Use {-(-needed // cells)} images"
                    f"{' and --rows ' + str(needed) if rows < min(needed, images * cells) else ''}, "
                    f"--dims {max(1, rows // (2 * ROWS_PER_DIRECTION))}, or --similarity cka."
                )
    return found


def _note_rows(
    drawn: Sequence[Draw],
    kinds: Mapping[str, Measure],
    few: Mapping[str, str],
    sampling: Sampling,
    progress: Progress,
) -> None:
    """Note layers with fewer rows than requested, or so few that unrelated layers have a high similarity."""

    def shortened(names: Sequence[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    for draw in drawn:
        if draw.positions.rows < sampling.rows and sampling.sampling == "spread":
            progress.note(
                f"{shortened(list(draw.a))}: only {draw.positions.rows:,} positions instead of {sampling.rows:,} rows"
            )
    fitted = any(measure.fits for measure in kinds.values())
    others = any(measure.chance_of_sums is not None for measure in kinds.values())
    for draw in drawn:
        names = [name for name in draw.a if others or (fitted and name not in few)]
        dims = max((sum(draw.dims(name)) for name in names), default=0)
        if draw.positions.rows < _AMPLE_ROWS * dims:
            progress.note(
                f"{shortened(names)}: with {draw.positions.rows:,} rows for {dims} channels, any layers look similar; "
                f"use {_AMPLE_ROWS * dims:,} rows, or compare the scores with chance"
            )


def _batches(
    images: LocatedImages | ImageArrays, order: np.ndarray, sizes: tuple[int, int], batch_size: int
) -> "Iterator[tuple[tf.Tensor, tf.Tensor]]":
    """Batches of the images in this order, in the size of each network, (images, size, size, 3)."""
    if isinstance(images, ImageArrays):
        height, width = images.pixels.shape[1:3]
        if {height, width} != {*sizes}:
            raise ConfigError(
                f"The networks expect images of {' and '.join(f'{size}×{size}' for size in dict.fromkeys(sizes))} "
                f"pixels. Received: {height}×{width}. Resize the array, or give files."
            )
        for start in range(0, len(images), batch_size):
            batch = images.pixels[order[start : start + batch_size]]
            yield batch, batch
        return
    epochs = {size: images.batches(image_size=size, batch_size=batch_size).in_order(order) for size in set(sizes)}
    for step, batches in enumerate(zip(*epochs.values(), strict=True)):
        count = min(batch_size, len(images) - step * batch_size)
        of_size = {size: batch[0][:count] for size, batch in zip(epochs, batches, strict=True)}
        yield of_size[sizes[0]], of_size[sizes[1]]
