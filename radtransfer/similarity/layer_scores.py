"""Pairs of layers scored in one pass over the images: a similarity, an interval over images, and what chance gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.data.run_data import ImageArrays, LocatedImages
from radtransfer.errors import SimilarityError
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

    Attributes:
        closed_form: For independent Gaussian rows: by formula, of Procrustes the mean over random rotations; None where
            neither is known.
        permuted: Of A on one image with B on another at the same positions; None with a single image.
    """

    closed_form: float | None
    permuted: float | None


@dataclass(frozen=True, eq=False)
class DrawScore:
    """How similar a layer is in two networks, by one kind of similarity, in a single draw of rows and channels.

    Attributes:
        rows: How many were read.
        images: They are of so many images.
        dims: Channels read of the narrower layer.
        value: The similarity; None where it is not defined.
        undefined: Why the value is None.
        left_out: The similarities without each group of images, float64 (groups,); None where not defined.
        null: What chance gives.
        rank_a, rank_b: Independent directions.
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
    """The same over draws and folds.

    Attributes:
        layer: The stage or layer.
        kind: Key of `SIMILARITIES`.
        similarity: The mean over draws, and over folds; None where it is not defined in one of them, as of
            channels that are all constant.
        ci95: Jackknife interval over images; None where a draw reads fewer than five groups of them, or draws
            read different numbers of groups, as whole-image sampling may.
        null: What chance gives.
        rank_a, rank_b: Independent directions, the fewest of all draws.
        rows: Of one draw; in the fold that has the fewest.
        images: They are of so many images.
        dims: Channels read of the narrower layer.
        repeats: Draws.
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
    """What one pass found.

    Attributes:
        draws: (layer, kind) to the score of each draw.
        crossed: (layer of A, layer of B, kind) to the similarity in each draw; empty unless asked for.
        few_rows: The layers with too few rows for a kind that fits directions.
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
    norms, count, repeats = "cka" in kinds, len(images), range(sampling.repeats)
    unequal = _unequal_widths(a, b, pairs) if sampling.channels == "paired" else {}
    every, pairs = pairs, [pair for pair in pairs if pair.name not in unequal]
    drawn = [draws(a, b, pairs, images=count, sampling=sampling, repeat=repeat) for repeat in repeats]
    few = _few_rows(drawn[0], images=count) if any(measure.fits for measure in kinds.values()) else {}
    if not pairs or (len(few) == len(pairs) and all(measure.fits for measure in kinds.values())):
        raise SimilarityError(next(iter((unequal | few).values())))
    _note_rows(drawn[0], kinds, few, sampling, progress)
    order, groups = image_order(images.clusters, groups=_groups(drawn), seed=sampling.seed)
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
    scores = LayerScores({}, _crossed_scores(crossed, kinds), tuple(few))
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
    """What one draw says of a layer, by kind; rests without a group are formed once for all kinds.

    Args:
        groups: Moments of groups of images.
        mismatched: Moments of A on one image with B on another.
        kinds: The measures.
        images: How many are read.
        undefined: Why no kind can be computed; empty where that is not known.
        few_rows: The same of the kinds that fit directions.
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
    """One result from the draws of each fold; `same_images`: the folds saw the same ones, in the same groups."""
    every = [draw for fold in folds for draw in fold]
    value, fewest = mean([draw.value for draw in every]), min(every, key=lambda draw: draw.rows)
    return LayerSimilarity(
        layer,
        kind,
        value,
        _interval(value, [every] if same_images else folds),
        Null(mean([draw.null.closed_form for draw in every]), mean([draw.null.permuted for draw in every])),
        min(draw.rank_a for draw in every),
        min(draw.rank_b for draw in every),
        fewest.rows,
        fewest.images,
        fewest.dims,
        len(folds[0]),
    )


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of them is."""
    return None if None in values else float(np.mean(values))


def _interval(value: float, folds: Sequence[Sequence[DrawScore]]) -> tuple[float, float] | None:
    counts = [{0 if draw.left_out is None else draw.left_out.size for draw in fold} for fold in folds]
    if any(len(sizes) > 1 or 0 in sizes for sizes in counts):
        return None
    # A group is left out of all draws of a fold at once: their errors are those of the same images.
    errors = [jackknife_error(np.mean([draw.left_out for draw in fold], axis=0)) for fold in folds]
    return normal_interval(value, float(np.sqrt(np.sum(np.square(errors)))) / len(folds))


def _value(measure: Measure, pair: CrossMoments) -> float | None:
    """The similarity; None where it is not defined, as of a layer that is constant but for one group of images."""
    try:
        return measure.of_sums(pair).value
    except SimilarityError:
        return None


def _crossed_scores(
    crossed: Sequence[AllPairsSums], kinds: Mapping[str, Measure]
) -> dict[tuple[str, str, str], list[float | None]]:
    """Every layer of A with every layer of B; None where it is not defined, or the rows are too few to fit."""
    found: dict[tuple[str, str, str], list[float | None]] = {}
    for sums in crossed:
        for mine, its, pair in sums.pairs():
            few = pair.rows < ROWS_PER_DIRECTION * (pair.x.channels + pair.y.channels)
            for kind, measure in kinds.items():
                left_out = sums.draw.undefined(mine, its) or (few and measure.fits)
                found.setdefault((mine, its, kind), []).append(None if left_out else _value(measure, pair))
    return found


def _unequal_widths(a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair]) -> dict[str, str]:
    """Name of each pair whose channels cannot be the same, and why."""
    widths = {pair.name: (a.width(pair.a), b.width(pair.b)) for pair in pairs}
    return {
        name: f"{name}: --channels paired takes the same channels of both layers; received {mine} and {its} channels. "
        "Use --channels independent or all."
        for name, (mine, its) in widths.items()
        if mine != its
    }


def _few_rows(drawn: Sequence[Draw], *, images: int) -> dict[str, str]:
    """The layers with too few rows for the directions that are fitted, and how many images would do."""
    found = {}
    for draw in drawn:
        rows, cells = draw.positions.rows, draw.positions.grid[0] * draw.positions.grid[1]
        for name in draw.a:
            dims = sum(draw.dims(name))
            needed = ROWS_PER_DIRECTION * dims
            if rows < needed:
                found[name] = (
                    f"{name}: expected at least {needed} rows for {dims} channels, received {rows} from {images} "
                    f"images of {cells} positions. {-(-needed // cells)} images would do"
                    f"{', with --rows ' + str(needed) if rows < min(needed, images * cells) else ''}; "
                    f"with these, use --dims {max(1, rows // (2 * ROWS_PER_DIRECTION))}, or --similarity cka."
                )
    return found


def _note_rows(
    drawn: Sequence[Draw],
    kinds: Mapping[str, Measure],
    few: Mapping[str, str],
    sampling: Sampling,
    progress: Progress,
) -> None:
    """Say where rows are fewer than asked for, and where so few that unrelated layers look alike."""

    def shortened(names: Sequence[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    for draw in drawn:
        if draw.positions.rows < sampling.rows and sampling.sampling == "spread":
            progress.note(
                f"{shortened(list(draw.a))}: {draw.positions.rows:,} rows instead of {sampling.rows:,}; "
                "there are no more positions"
            )
    fitted = any(measure.fits for measure in kinds.values())
    others = any(measure.chance_of_sums is not None for measure in kinds.values())
    for draw in drawn:
        names = [name for name in draw.a if others or (fitted and name not in few)]
        dims = max((sum(draw.dims(name)) for name in names), default=0)
        if draw.positions.rows < _AMPLE_ROWS * dims:
            progress.note(
                f"{shortened(names)}: {draw.positions.rows:,} rows for {dims} channels make any layers "
                f"look alike; {_AMPLE_ROWS * dims:,} would be ample. Read the scores against chance"
            )


def _groups(drawn: Sequence[Sequence[Draw]]) -> int:
    """So many groups of images that their sums stay within a gigabyte."""
    dims = [each.dims(name) for draw in drawn for each in draw for name in each.a]
    size = sum(8 * (mine**2 + its**2 + mine * its) for mine, its in dims)
    return int(np.clip(_STATE_BYTES // size, FEWEST_GROUPS, _MOST_GROUPS))


def _batches(
    images: LocatedImages | ImageArrays, order: np.ndarray, sizes: tuple[int, int], batch_size: int
) -> "Iterator[tuple[tf.Tensor, tf.Tensor]]":
    """The images in order, for each network in its size, (images, size, size, 3)."""
    if isinstance(images, ImageArrays):
        for start in range(0, len(images), batch_size):
            batch = images.pixels[order[start : start + batch_size]]
            yield batch, batch
        return
    from radtransfer.images.pipeline import make_batches

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
