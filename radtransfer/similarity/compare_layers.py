"""Which layers of two networks are compared, and at which positions and channels.

From sums to what is reported of a layer: its similarity, an interval over images, and what chance gives.

Which rows and channels of feature maps are compared: pure functions of a seed.

A row is the vector of channels at one position of one image's feature map. Two layers share rows when both are
read at the same places of the same images; places are cells of a grid, and a finer map is read where the middle
of the cell lies.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.errors import ConfigError, SimilarityError, UnknownNameError
from radtransfer.models.backbone import Backbone, resolve_layer
from radtransfer.process import derive_seed
from radtransfer.similarity import SIMILARITIES
from radtransfer.similarity.correlation import google_cca_of_sums
from radtransfer.similarity.jackknife import (
    FEWEST_GROUPS,
    jackknife_error,
    leaving_one_out,
    normal_interval,
    total_sums,
)
from radtransfer.similarity.measure import Measure, Similarity
from radtransfer.similarity.moments import CrossMoments

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


def similarity_value(measure: Measure, pair: CrossMoments | None) -> float | None:
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


def _chance(measure: Measure, found: Similarity, total: CrossMoments) -> float | None:
    if measure.chance_of_sums is not None:
        return measure.chance_of_sums(total)
    if measure.chance is None or (measure.fits and found.rows - 1 <= found.rank_x + found.rank_y):
        return None
    return measure.chance(found.rows, found.rank_x, found.rank_y)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


Grid = tuple[int, int]
"""Height and width of a feature map, or of what several maps have in common."""


@dataclass(frozen=True, eq=False)
class Positions:
    """The cells that are read of each image.

    Attributes:
        grid: The cells are numbered row by row in it.
        cells: int64 (rows,), image after image; no cell of an image twice.
        starts: int64 (images + 1,): those of image i are `cells[starts[i]:starts[i + 1]]`.
    """

    grid: Grid
    cells: np.ndarray
    starts: np.ndarray

    @property
    def rows(self) -> int:
        return self.cells.size

    @property
    def counts(self) -> np.ndarray:
        """How many cells are read of each image, int64 (images,)."""
        return np.diff(self.starts)

    def rolled(self) -> "Positions":
        """The cells of image i + 1 for image i, and of the first for the last."""
        return Positions(self.grid, np.roll(self.cells, -self.starts[1]), np.cumsum([0, *np.roll(self.counts, -1)]))

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of images `first` to `last` - 1, and the image of each, counted from `first`."""
        owners = np.repeat(np.arange(last - first), self.counts[first:last])
        return self.cells[self.starts[first] : self.starts[last]], owners


def spread_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """As many cells of every image, give or take one, `rows` in all or every one there is.

    The score varies much less between draws than with the same number of rows of few whole images.
    """
    cells = grid[0] * grid[1]
    rows = min(rows, images * cells)
    counts = np.full(images, rows // images)
    counts[rng.permutation(images)[: rows % images]] += 1
    return _positions(grid, [rng.choice(cells, count, replace=False, shuffle=False) for count in counts])


def whole_image_positions(grid: Grid, *, images: int, rows: int, rng: np.random.Generator) -> Positions:
    """Every cell of a few images, so many that images · height · width comes closest to `rows`.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion, Appendix C; rounded as in Juodelyte et al. 2023.
    """
    cells = grid[0] * grid[1]
    sizes = np.zeros(images, np.int64)
    sizes[rng.permutation(images)[: max(1, round(rows / cells))]] = cells
    return _positions(grid, [np.arange(size) for size in sizes])


SAMPLINGS = {"spread": spread_positions, "transfusion": whole_image_positions}
"""Name to how the positions are drawn."""


def sample_channels(width: int, dims: int, *, seed: int, side: str = "") -> np.ndarray:
    """`dims` of `width` channels in ascending order, or all there are.

    The draw depends on the seed, the width and the side alone, so that layers of one width are given the same
    channels unless their sides differ.
    """
    rng = np.random.default_rng(derive_seed(seed, "channels", width, side))
    return np.sort(rng.permutation(width)[:dims])


def places(cells: np.ndarray, grid: Grid, shape: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The row and column of a map of `shape`, at least as fine as `grid`, where the middle of each cell lies."""
    y, x = np.divmod(cells, grid[1])
    return (2 * y + 1) * shape[0] // (2 * grid[0]), (2 * x + 1) * shape[1] // (2 * grid[1])


def image_order(clusters: Sequence[str], *, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An order of the images in groups of about equal size, and the group of each place in it.

    Images of one cluster (a patient) are in one group, but not next to each other if the group has another.

    Args:
        clusters: That of each image.
        groups: At most as many.
        seed: Of the order.

    Returns:
        int64 (images,) each: which image comes where, and its group, ascending from 0.
    """
    rng = np.random.default_rng(derive_seed(seed, "images"))
    names, codes, sizes = np.unique(np.asarray(clusters, dtype=object), return_inverse=True, return_counts=True)
    shuffled = rng.permutation(names.size)
    group_of, filled = np.empty(names.size, np.int64), np.zeros(min(groups, names.size), np.int64)
    for code in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        group_of[code] = filled.argmin()
        filled[group_of[code]] += sizes[code]
    rank = np.empty(names.size, np.int64)
    rank[shuffled] = np.arange(names.size)
    order = np.lexsort((rank[codes], _repetition(codes), group_of[codes]))
    return order, group_of[codes][order]


def _repetition(codes: np.ndarray) -> np.ndarray:
    """How often each code has occurred before."""
    seen: dict[int, int] = {}
    before = np.empty(codes.size, np.int64)
    for place, code in enumerate(codes.tolist()):
        before[place] = seen.get(code, 0)
        seen[code] = before[place] + 1
    return before


def _positions(grid: Grid, cells: list[np.ndarray]) -> Positions:
    starts = np.cumsum([0, *map(len, cells)])
    return Positions(grid, np.concatenate(cells).astype(np.int64), starts)


if TYPE_CHECKING:
    import keras

    from radtransfer.similarity.activations import FeatureMaps, PairedReadings, Reading

CHANNELS = ("auto", "paired", "independent", "all")
"""The same channels in both networks where they have as many; the same; others in each; every one."""

_NOT_MAPS = ("InputLayer", "Rescaling", "Normalization", "ZeroPadding2D", "Dropout", "Reshape")


@dataclass(frozen=True)
class LayerPair:
    """Two layers that are compared: a name for both, and what each is called in its network."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class Sampling:
    """How rows and channels are drawn.

    Attributes:
        rows: Per layer, or as many as there are positions.
        dims: Channels per layer, or as many as there are.
        repeats: How often both are drawn.
        sampling: Key of `SAMPLINGS`.
        channels: One of `CHANNELS`.
        seed: Of everything drawn.
    """

    rows: int = 10_000
    dims: int = 64
    repeats: int = 5
    sampling: str = "spread"
    channels: str = "auto"
    seed: int = 0

    def dims_of(self, width: int) -> int:
        """How many of a layer's channels are read."""
        return width if self.channels == "all" else min(self.dims, width)

    def seed_of(self, repeat: int) -> int:
        """The seed of draw number `repeat`, from 0."""
        return derive_seed(self.seed, "draw", repeat)


def layer_pairs(
    a: "keras.Model", b: "keras.Model", cards: tuple[Backbone | None, Backbone | None], layers: Sequence[str]
) -> tuple[LayerPair, ...]:
    """The layers that `layers` means.

    Args:
        a: One network.
        b: The other.
        cards: Their backbones, where known.
        layers: "stages", "all" (every feature map that both have under one name), or names of stages or layers.

    Raises:
        ConfigError: No layers, stages of an unknown backbone, or nothing that both have.
        UnknownNameError: A name that is neither a stage nor a layer.
    """
    if not layers:
        raise ConfigError("Expected --layers stages, all or names. Received none.")
    if tuple(layers) == ("stages",):
        return _stages(cards)
    if tuple(layers) == ("all",):
        names = {layer.name for layer in b.layers}
        found = [layer.name for layer in a.layers if layer.name in names and _has_map(layer)]
        if not found:
            raise ConfigError("The networks have no feature map of one name. Use --layers stages.")
        return tuple(LayerPair(name, name, name) for name in found)
    return tuple(LayerPair(name, _resolved(a, cards[0], name), _resolved(b, cards[1], name)) for name in layers)


def unequal_widths(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], sampling: Sampling
) -> dict[str, str]:
    """Name of each pair whose channels cannot be the same, though `sampling` wants them to be, and why."""
    widths = {pair.name: (a.width(pair.a), b.width(pair.b)) for pair in pairs if sampling.channels == "paired"}
    return {
        name: f"{name}: --channels paired takes the same channels of both layers; received {mine} and {its} channels. "
        "Use --channels independent or all."
        for name, (mine, its) in widths.items()
        if mine != its
    }


def paired_readings(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], *, images: int, sampling: Sampling, repeat: int
) -> "list[PairedReadings]":
    """One draw for the pairs, a value for each grid that pairs have in common."""
    grids: dict[Grid, list[LayerPair]] = defaultdict(list)
    for pair in pairs:
        grids[common_grid(a.grid(pair.a), b.grid(pair.b))].append(pair)
    readings = []
    for grid, members in grids.items():
        mine = {pair.name: _reading(a, pair.a, sampling, repeat, "a") for pair in members}
        its = {pair.name: _reading(b, pair.b, sampling, repeat, "b") for pair in members}
        readings.append(_at_positions(grid, mine, its, images, sampling, repeat))
    return readings


def crossed_readings(
    a: "FeatureMaps", b: "FeatureMaps", pairs: Sequence[LayerPair], *, images: int, sampling: Sampling, repeat: int
) -> "list[PairedReadings]":
    """One draw for every layer of A against every layer of B, a value for each pair of grids.

    A pair of layers is read as if it alone were compared.
    """
    mine = _by_grid(a, {pair.name: pair.a for pair in pairs})
    its = _by_grid(b, {pair.name: pair.b for pair in pairs})
    return [
        _at_positions(
            common_grid(grid_a, grid_b),
            {name: _reading(a, layer, sampling, repeat, "a") for name, layer in layers_a.items()},
            {name: _reading(b, layer, sampling, repeat, "b") for name, layer in layers_b.items()},
            images,
            sampling,
            repeat,
        )
        for grid_a, layers_a in mine.items()
        for grid_b, layers_b in its.items()
    ]


def common_grid(a: Grid, b: Grid) -> Grid:
    """The finest grid that is not finer than either map."""
    return min(a[0], b[0]), min(a[1], b[1])


def _at_positions(
    grid: Grid,
    mine: "Mapping[str, Reading]",
    its: "Mapping[str, Reading]",
    images: int,
    sampling: Sampling,
    repeat: int,
) -> "PairedReadings":
    from radtransfer.similarity.activations import PairedReadings

    rng = np.random.default_rng(derive_seed(sampling.seed_of(repeat), "positions", *grid))
    positions = SAMPLINGS[sampling.sampling](grid, images=images, rows=sampling.rows, rng=rng)
    return PairedReadings(positions, mine, its)


def _reading(maps: "FeatureMaps", layer: str, sampling: Sampling, repeat: int, side: str) -> "Reading":
    from radtransfer.similarity.activations import Reading

    width, seed = maps.width(layer), sampling.seed_of(repeat)
    side = side if sampling.channels == "independent" else ""
    return Reading(layer, sample_channels(width, sampling.dims_of(width), seed=seed, side=side))


def _by_grid(maps: "FeatureMaps", layers: Mapping[str, str]) -> dict[Grid, dict[str, str]]:
    found: dict[Grid, dict[str, str]] = defaultdict(dict)
    for name, layer in layers.items():
        found[maps.grid(layer)][name] = layer
    return found


def _stages(cards: tuple[Backbone | None, Backbone | None]) -> tuple[LayerPair, ...]:
    if None in cards:
        raise ConfigError("A network of an unknown backbone has no stages. Give --layers all or names of layers.")
    a, b = cards
    return tuple(LayerPair(stage, end, b.stages[stage]) for stage, end in a.stages.items() if stage in b.stages)


def _resolved(model: "keras.Model", card: Backbone | None, name: str) -> str:
    if card is not None:
        return resolve_layer(model, card, name)
    known = [layer.name for layer in model.layers]
    if name not in known:
        raise UnknownNameError("layer", name, known)
    return name


def _has_map(layer: "keras.Layer") -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and type(layer).__name__ not in _NOT_MAPS
