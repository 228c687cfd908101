"""Every layer of two networks, compared in one pass over the images.

Activations of any functional Keras model: every layer that is asked for, in one forward pass, in float32.

One draw of positions and channels: the sums of pairs of layers, of groups of images and of mismatched images.

Batches come in one order of images; what is measured does not depend on where they are cut.

A copy of a model in which every layer stands at the top and computes in float32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from radtransfer.errors import SimilarityError, UnknownNameError
from radtransfer.images.pipeline import make_batches
from radtransfer.models.layers import with_dtype
from radtransfer.process import Progress
from radtransfer.similarity.compare_images import ComparisonImages
from radtransfer.similarity.compare_layers import (
    DrawScore,
    Grid,
    LayerPair,
    Positions,
    Sampling,
    crossed_readings,
    image_order,
    no_score,
    paired_readings,
    places,
    sample_channels,
    score_draw,
    similarity_value,
    spread_positions,
    unequal_widths,
)
from radtransfer.similarity.measure import ROWS_PER_DIRECTION, Measure
from radtransfer.similarity.moments import CrossMoments, StreamedSums, check_finite


def flat_model(
    model: keras.Model, *, prepare: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None
) -> keras.Model:
    """A functional copy with the same weights and layer names, without sub-models, in float32.

    Args:
        model: Functional or Sequential, of one input; it is left as it is.
        prepare: Becomes the beginning of the graph; the input is then what `prepare` takes, of the same shape.

    Raises:
        ValueError: Layers of different sub-models share a name.
    """
    image = keras.Input(model.inputs[0].shape[1:], dtype="float32", name="image")
    copies: dict[int, keras.Operation] = {}

    def call(operation: keras.Operation, *inputs, **options):
        if isinstance(operation, keras.Sequential):
            x = inputs[0]
            for layer in operation.layers:
                x = call(layer, x)
            return x
        if isinstance(operation, keras.Model):
            return _walked(operation, image, inputs[0], call)
        if id(operation) not in copies:
            copies[id(operation)] = _copy(operation)
        output = copies[id(operation)](*inputs, **options)
        if isinstance(operation, keras.Layer):
            copies[id(operation)].set_weights(operation.get_weights())
            if isinstance(operation, keras.layers.Normalization):
                copies[id(operation)].finalize_state()  # else it computes with what it was built with
        return output

    return keras.Model(image, call(model, prepare(image) if prepare else image), name=model.name)


def is_flat(model: keras.Model) -> bool:
    """Whether the model needs no copy: no sub-models, all in float32."""
    return all(not isinstance(layer, keras.Model) and layer.compute_dtype == "float32" for layer in model.layers)


def _walked(
    model: keras.Model, image: keras.KerasTensor, tensor: keras.KerasTensor, call: Callable
) -> keras.KerasTensor:
    """The output of a functional model for `tensor`, `call` standing for each of its operations.

    Keras walks from an input layer only: `image` goes in, and `tensor` takes its place wherever it arrives.
    """

    def call_in_place(operation: keras.Operation, *inputs, **options):
        placed = keras.tree.map_structure(lambda x: tensor if x is image else x, inputs)
        return call(operation, *placed, **options)

    # Some applications are models of a list of inputs.
    inputs = [image] if isinstance(model.input, list) else image
    walked = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call_in_place
    )
    return walked.outputs[0]


def _copy(operation: keras.Operation) -> keras.Operation:
    config = operation.get_config()
    return type(operation).from_config(with_dtype(config, "float32") if isinstance(operation, keras.Layer) else config)


_MAP_BYTES = 256 << 20
_LARGEST_BATCH = 32


@dataclass(frozen=True, eq=False)
class Reading:
    """What is read of one layer: its name, and which of its channels, int64 (dims,)."""

    layer: str
    channels: np.ndarray


class FeatureMaps:
    """Gives the outputs of some layers of a network as maps, float32 (images, height, width, channels).

    Vectors are maps of one position, and sequences maps of one column. The network is run in float32, whatever
    precision it was trained with, and never compiled with XLA; layers of sub-models are found like all others.

    Args:
        model: Functional; its input is a batch of images, (images, height, width, channels).
        layers: Names of layers.
        image_size: In pixels, where the model takes images of any size.

    Raises:
        UnknownNameError: No such layer.
        SimilarityError: A layer whose output is not an array of 2 to 4 dimensions.
    """

    def __init__(self, model: keras.Model, layers: Sequence[str], *, image_size: int | None = None):
        model = model if is_flat(model) else flat_model(model)
        known = [layer.name for layer in model.layers]
        for name in layers:
            if name not in known:
                raise UnknownNameError("layer", name, known)
        self.layers = tuple(layers)
        extractor = keras.Model(model.inputs, [_output(model.get_layer(name)) for name in layers])
        height, width, channels = (size or image_size for size in model.inputs[0].shape[1:])
        self._function = tf.function(
            lambda images: _listed(extractor(images, training=False)),
            input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32)],
        )
        outputs = self._function.get_concrete_function().structured_outputs
        self._shapes = {name: _map_shape(name, output) for name, output in zip(layers, outputs, strict=True)}

    def grid(self, layer: str) -> Grid:
        """Height and width of a layer's map."""
        return self._shapes[layer][:2]

    def width(self, layer: str) -> int:
        """How many channels a layer has."""
        return self._shapes[layer][2]

    @property
    def batch_size(self) -> int:
        """So many images that their maps fit into a quarter of a gigabyte; results do not depend on it."""
        size = 4 * sum(int(np.prod(shape)) for shape in self._shapes.values())
        return int(np.clip(_MAP_BYTES // size, 1, _LARGEST_BATCH))

    def of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps of a batch of images, by layer."""
        with _exact_float32():
            outputs = self._function(images)
        return {
            name: tf.reshape(output, (-1, *self._shapes[name]))
            for name, output in zip(self.layers, outputs, strict=True)
        }


def read_rows(
    maps: tf.Tensor, cells: np.ndarray, images: np.ndarray, *, grid: Grid, channels: np.ndarray
) -> np.ndarray:
    """Some positions and channels of a batch of maps, float32 (rows, channels); gathered where the maps are.

    Args:
        maps: float32 (images, height, width, channels).
        cells: Of `grid`, int (rows,).
        images: Of the batch, int (rows,).
        grid: Not finer than the maps.
        channels: int (channels,).
    """
    _, height, width, depth = maps.shape
    y, x = places(cells, grid, (height, width))
    rows = tf.gather(tf.reshape(maps, (-1, depth)), (images * height + y) * width + x)
    return tf.gather(rows, channels, axis=1).numpy()


def collect_rows(
    model: keras.Model,
    images: np.ndarray,
    layers: Sequence[str],
    *,
    rows: int = 10_000,
    dims: int = 64,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of several layers of one network, spread over images in memory, float32 (rows, channels) by layer.

    Two networks give rows that can be compared layer by layer if images, layers' shapes and seed are the same.

    Args:
        model: As for `FeatureMaps`.
        images: As the model takes them, float (images, height, width, channels).
        layers: Names of layers.
        rows: How many, or as many as there are positions.
        dims: How many channels, or as many as there are.
        seed: Of positions and channels.
    """
    maps = FeatureMaps(model, layers, image_size=images.shape[1])
    order, _ = image_order([str(image) for image in range(len(images))], groups=1, seed=seed)
    drawn = {name: _spread(maps.grid(name), len(images), rows, seed) for name in layers}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    for first in range(0, len(images), maps.batch_size):
        batch = order[first : first + maps.batch_size]
        of_layer = maps.of(tf.constant(images[batch], tf.float32))
        for name, positions in drawn.items():
            cells, owners = positions.between(first, first + len(batch))
            channels = sample_channels(maps.width(name), dims, seed=seed)
            parts[name].append(read_rows(of_layer[name], cells, owners, grid=positions.grid, channels=channels))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


@contextmanager
def _exact_float32() -> Iterator[None]:
    """No TensorFloat-32, with which a GPU rounds the factors of a product to three digits."""
    switch = tf.config.experimental
    before = switch.tensor_float_32_execution_enabled()
    switch.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        switch.enable_tensor_float_32_execution(before)


def _spread(grid: Grid, images: int, rows: int, seed: int) -> Positions:
    return spread_positions(grid, images=images, rows=rows, rng=np.random.default_rng(seed))


def _output(layer: keras.Layer) -> keras.KerasTensor:
    output = layer.output
    if not isinstance(output, keras.KerasTensor) or not 2 <= len(output.shape) <= 4:
        raise SimilarityError(
            f"{layer.name}: expected a layer with one output of 2 to 4 dimensions, received "
            f"{getattr(output, 'shape', type(output).__name__)}. Leave it out of --layers."
        )
    return output


def _listed(outputs: tf.Tensor | list[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.cast(output, tf.float32) for output in (outputs if isinstance(outputs, list) else [outputs])]


def _map_shape(name: str, output: tf.Tensor) -> tuple[int, int, int]:
    """Height, width and channels."""
    shape = output.shape[1:]
    if None in shape:
        raise SimilarityError(f"{name}: expected a layer of known size, received {tuple(shape)}. Give --image-size.")
    *positions, channels = shape
    height, width = (*positions, 1, 1)[:2]
    return height, width, channels


Maps = Mapping[str, tf.Tensor]
Rows = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PairedReadings:
    """What is read of two networks at the same positions.

    Attributes:
        positions: Where.
        a: Name of each comparison to what is read of the first network for it.
        b: The same for the second.
        not_finite: "a" or "b" and the name of a comparison to what is wrong with the values that were read of it.
    """

    positions: Positions
    a: Mapping[str, Reading]
    b: Mapping[str, Reading]
    not_finite: dict[tuple[str, str], str] = field(default_factory=dict)

    def rows(self, side: str, maps: Maps, cells: np.ndarray, images: np.ndarray) -> Rows:
        """The rows of one network by name of the comparison; in messages the name tells the network and layer.

        A layer with values that are not finite is remembered, and read as zeros: the others can be compared.
        """
        found = {}
        for name, reading in (self.a if side == "a" else self.b).items():
            title = f"{name} of {side.upper()} ({reading.layer})"
            rows = read_rows(maps[reading.layer], cells, images, grid=self.positions.grid, channels=reading.channels)
            try:
                with np.errstate(invalid="ignore"):
                    check_finite(title, rows.sum(axis=0, dtype=np.float64))
            except SimilarityError as error:
                self.not_finite.setdefault((side, name), str(error))
                rows = np.zeros_like(rows)
            found[title] = rows
        return found

    def undefined(self, a: str, b: str) -> str:
        """Why the comparisons of these names in the two networks cannot be computed; empty where they can."""
        return self.not_finite.get(("a", a)) or self.not_finite.get(("b", b), "")


class GroupedSums:
    """Sums of the same-named layers for each group of images, for the value and its jackknife interval.

    Args:
        readings: What is read.
        groups: The group of each image, ascending, int (images,).
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, groups: np.ndarray, *, norms: bool):
        self.readings, self._groups, self._norms = readings, groups, norms
        self._sums: dict[int, StreamedSums] = {}

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        cells, images = self.readings.positions.between(first, last)
        x, y = self.readings.rows("a", a, cells, images), self.readings.rows("b", b, cells, images)
        of_row = self._groups[first:last][images]
        for group in np.unique(of_row).tolist():
            chosen = of_row == group
            self._of_group(group).add(_chosen(x, chosen), _chosen(y, chosen))

    @property
    def images(self) -> int:
        """How many images are read."""
        return int(np.count_nonzero(self.readings.positions.counts))

    def pairs(self) -> Iterator[tuple[str, list[CrossMoments]]]:
        """Each comparison with the sums of the groups that have rows."""
        sums = list(self._sums.values())
        for name, (x, y) in zip(self.readings.a, sums[0].names(), strict=True):
            yield name, [part.pair(x, y) for part in sums]

    def _of_group(self, group: int) -> StreamedSums:
        if group not in self._sums:
            like = next(iter(self._sums.values()), None)
            self._sums[group] = StreamedSums(pairs="same", norms=self._norms, like=like)
        return self._sums[group]


class MismatchedSums:
    """Sums of rows of A with rows of B at the same positions of the image before: what chance alone gives.

    Args:
        readings: What is read.
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, *, norms: bool):
        self._readings, self._following = readings, readings.positions.rolled()
        self._sums = StreamedSums(pairs="same", norms=norms)
        self._first: Rows | None = None
        self._waiting: Rows | None = None

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        x = self._readings.rows("a", a, *self._readings.positions.between(first, last))
        # Rows of B at the positions of the image that comes next; those of the last one wait for the next batch.
        y = self._readings.rows("b", b, *self._following.between(first, last))
        held = self._following.counts[last - 1]
        ready = {name: rows[: len(rows) - held] for name, rows in y.items()}
        if self._first is None:
            count = self._readings.positions.counts[first]
            self._first = {name: rows[:count] for name, rows in x.items()}
            x = {name: rows[count:] for name, rows in x.items()}
        else:
            ready = {name: np.concatenate([self._waiting[name], rows]) for name, rows in ready.items()}
        self._waiting = {name: rows[len(rows) - held :] for name, rows in y.items()}
        self._add(x, ready)

    def pairs(self) -> Iterator[tuple[str, CrossMoments]]:
        """Each comparison with its sums; call it once, after all images."""
        self._add(self._first, self._waiting)
        return zip(self._readings.a, (self._sums.pair(x, y) for x, y in self._sums.names()), strict=True)

    def _add(self, x: Rows, y: Rows) -> None:
        if len(next(iter(x.values()))):
            self._sums.add(x, y)


class CrossedSums:
    """Sums of every layer of A with every layer of B.

    Args:
        readings: What is read.
        norms: Whether debiased CKA is asked for.
    """

    def __init__(self, readings: PairedReadings, *, norms: bool):
        self.readings = readings
        self._sums = StreamedSums(pairs="all", norms=norms)

    def add(self, first: int, last: int, a: Maps, b: Maps) -> None:
        """Add the images `first` to `last` - 1, whose maps are given."""
        cells, images = self.readings.positions.between(first, last)
        if cells.size:
            self._sums.add(self.readings.rows("a", a, cells, images), self.readings.rows("b", b, cells, images))

    def pairs(self) -> Iterator[tuple[str, str, CrossMoments]]:
        """The names of each pair with its sums."""
        names = ((mine, its) for mine in self.readings.a for its in self.readings.b)
        for (mine, its), (x, y) in zip(names, self._sums.names(), strict=True):
            yield mine, its, self._sums.pair(x, y)


def _chosen(rows: Rows, which: np.ndarray) -> Rows:
    return {name: values[which] for name, values in rows.items()}


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
