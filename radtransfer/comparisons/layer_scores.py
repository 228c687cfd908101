"""From sums to what is reported of a layer: its similarity, an interval over images, and what chance gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from radtransfer.errors import ConfigError, SimilarityError
from radtransfer.similarity import SIMILARITIES
from radtransfer.similarity.canonical_correlation import google_cca_of_sums
from radtransfer.similarity.jackknife import (
    FEWEST_GROUPS,
    jackknife_error,
    leaving_one_out,
    normal_interval,
    total_sums,
)
from radtransfer.similarity.measure import Measure, Similarity
from radtransfer.similarity.pair_sums import PairSums

JUODELYTE_EPSILON = 1e-12
"""What Juodelyte et al. 2023 passed to google/svcca."""


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


@dataclass(frozen=True)
class LayerSimilarity:
    """How similar a layer is in two networks, by one kind of similarity.

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


@dataclass(frozen=True, eq=False)
class DrawScore:
    """The same of a single draw.

    Attributes:
        value: The similarity; None where it is not defined.
        left_out: The similarities without each group, float64 (groups,); None where not defined.
        undefined: Why the value is None.
    """

    value: float | None
    left_out: np.ndarray | None
    null: Null
    rank_a: int
    rank_b: int
    rows: int
    images: int
    dims: int
    undefined: str = ""


def measures(kinds: Sequence[str], *, compat: str | None) -> dict[str, Measure]:
    """The measures of these names, that work on sums.

    Raises:
        UnknownNameError: No such similarity.
        ConfigError: None is named, one needs all rows at once, or `compat` knows another one only.
    """
    if not kinds:
        raise ConfigError(f"Expected at least one --similarity of {', '.join(SIMILARITIES)}. Received none.")
    found = {kind: SIMILARITIES[kind] for kind in kinds}
    whole = [kind for kind, measure in found.items() if measure.of_sums is None]
    if whole:
        raise ConfigError(
            f"{', '.join(whole)} compares rows with rows and cannot be streamed. Use radtransfer.similarity.{whole[0]} "
            "on arrays, or another --similarity."
        )
    if compat is None:
        return found
    if compat != "juodelyte" or list(found) != ["cca"]:
        raise ConfigError(f"--compat juodelyte computes cca only. Received: {', '.join(found)} with {compat!r}.")
    of_sums = partial(google_cca_of_sums, epsilon=JUODELYTE_EPSILON)
    return {"cca": Measure(SIMILARITIES["cca"].title, found["cca"].of_rows, of_sums, found["cca"].chance)}


def score_draw(
    groups: Sequence[PairSums],
    mismatched: PairSums | None,
    kinds: Mapping[str, Measure],
    *,
    images: int,
    undefined: str = "",
    few_rows: str = "",
) -> dict[str, DrawScore]:
    """What one draw says of a layer, by kind; rests without a group are formed once for all kinds.

    Args:
        groups: Sums of groups of images.
        mismatched: Sums of A on one image with B on another.
        kinds: The measures.
        images: How many are read.
        undefined: Why no kind can be computed; empty where that is not known.
        few_rows: The same of the kinds that fit directions.
    """
    total = total_sums(groups)
    rest = list(leaving_one_out(groups)) if len(groups) >= FEWEST_GROUPS else []
    dims = min(total.x.channels, total.y.channels)
    scores = {}
    for kind, measure in kinds.items():
        reason = undefined or (few_rows if measure.fits else "")
        try:
            found = None if reason else measure.of_sums(total)
        except SimilarityError as error:
            found, reason = None, str(error)
        if found is None:
            scores[kind] = no_score(reason, rows=total.rows, images=images, dims=dims)
            continue
        left_out = [similarity_value(measure, part) for part in rest]
        scores[kind] = DrawScore(
            found.value,
            None if None in left_out or not left_out else np.array(left_out),
            Null(_chance(measure, found, total), similarity_value(measure, mismatched)),
            found.rank_x,
            found.rank_y,
            found.rows,
            images,
            dims,
        )
    return scores


def no_score(reason: str, *, rows: int, images: int, dims: int) -> DrawScore:
    """Of a layer that cannot be computed."""
    return DrawScore(None, None, Null(None, None), 0, 0, rows, images, dims, reason)


def similarity_value(measure: Measure, pair: PairSums | None) -> float | None:
    """The similarity; None where it is not defined, as of a layer that is constant but for one group of images."""
    if pair is None:
        return None
    try:
        return measure.of_sums(pair).value
    except SimilarityError:
        return None


def combine(
    layer: str, kind: str, folds: Sequence[Sequence[DrawScore]], *, same_images: bool = False
) -> LayerSimilarity:
    """One result from the draws of each fold; `same_images`: the folds saw the same ones, in the same groups."""
    draws = [draw for fold in folds for draw in fold]
    value = _mean([draw.value for draw in draws])
    fewest = min(draws, key=lambda draw: draw.rows)
    return LayerSimilarity(
        layer,
        kind,
        value,
        _interval(value, [draws] if same_images else folds),
        Null(_mean([draw.null.closed_form for draw in draws]), _mean([draw.null.permuted for draw in draws])),
        min(draw.rank_a for draw in draws),
        min(draw.rank_b for draw in draws),
        fewest.rows,
        fewest.images,
        fewest.dims,
        len(folds[0]),
    )


def over_folds(folds: Sequence[Sequence[DrawScore]]) -> tuple[float | None, ...]:
    """The similarity in each draw, mean over folds."""
    return tuple(_mean([draw.value for draw in draws]) for draws in zip(*folds, strict=True))


def _interval(value: float, folds: Sequence[Sequence[DrawScore]]) -> tuple[float, float] | None:
    counts = [{0 if draw.left_out is None else draw.left_out.size for draw in fold} for fold in folds]
    if any(len(sizes) > 1 or 0 in sizes for sizes in counts):
        return None
    # A group is left out of all draws of a fold at once: their errors are those of the same images.
    errors = [jackknife_error(np.mean([draw.left_out for draw in fold], axis=0)) for fold in folds]
    return normal_interval(value, float(np.sqrt(np.sum(np.square(errors)))) / len(folds))


def _chance(measure: Measure, found: Similarity, total: PairSums) -> float | None:
    if measure.chance_of_sums is not None:
        return measure.chance_of_sums(total)
    if measure.chance is None or (measure.fits and found.rows - 1 <= found.rank_x + found.rank_y):
        return None
    return measure.chance(found.rows, found.rank_x, found.rank_y)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))
