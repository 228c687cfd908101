"""Compare every layer of two networks: load both, read the same rows of each, and say how alike they are."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.config.schema import DataSettings, ImageSettings
from radtransfer.data.readers import check_source
from radtransfer.errors import ConfigError, SimilarityError
from radtransfer.process import Progress, keras_defaults
from radtransfer.similarity.compare_images import (
    ComparisonImages,
    check_input,
    given_images,
    note_changes,
    run_images,
    tested_images,
    tested_paths,
)
from radtransfer.similarity.compare_layers import (
    CHANNELS,
    SAMPLINGS,
    LayerPair,
    LayerSimilarity,
    Sampling,
    combine,
    layer_pairs,
    measures,
    over_folds,
)
from radtransfer.similarity.measure import Measure
from radtransfer.similarity.moments import check_choice
from radtransfer.similarity.networks import DEFAULT_SIZE, Network, NetworkSource, check_layers, find_networks, folds_of

if TYPE_CHECKING:
    from radtransfer.similarity.activations import LayerScores

_MOST_NOTES = 5
Sources = tuple[NetworkSource, NetworkSource]


@dataclass(frozen=True)
class ComparisonSettings:
    """How two networks are compared.

    Attributes:
        layers: "stages", "all", or names of stages or layers.
        similarity: Keys of `SIMILARITIES`.
        sampling: Of rows and channels.
        cross: Also every layer of A against every layer of B.
        batch_norm: "own", or "shared": B computes with the batch-norm statistics of A.
        compat: "juodelyte" computes CCA as Juodelyte et al. 2023 did; None exactly.
        data: Images to compare on; without a source the test images of the runs.
        backbone: Of weights files.
        image_size: For networks that are built for any size.
        folds: Which folds of the runs; empty for all that both have.
        files: Images, folders and tables without labels, in place of the source of `data`.
    """

    layers: tuple[str, ...] = ("stages",)
    similarity: tuple[str, ...] = ("cca",)
    sampling: Sampling = Sampling()
    cross: bool = False
    batch_norm: str = "own"
    compat: str | None = None
    data: DataSettings = DataSettings()
    backbone: str | None = None
    image_size: int | None = None
    folds: tuple[int, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """What was named to compare on; empty for the run's own test images."""
        return self.files or ((self.data.source,) if self.data.source is not None else ())


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        layers: One entry per layer and kind, the layers in order.
        cross: Kind to the mean similarity of every layer of A (rows) with every layer of B (columns), float64;
            NaN where it is not defined.
        settings: How it was found.
        draws: Layer and kind to the similarity in each draw, mean over folds; None where it is not defined.
        left_out: What has no similarity, and why.
        few_rows: The layers of these that lack rows, of which fewer channels could be compared.
    """

    layers: tuple[LayerSimilarity, ...]
    settings: dict[str, Any]
    cross: dict[str, np.ndarray] = field(default_factory=dict)
    draws: dict[tuple[str, str], tuple[float | None, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    few_rows: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The layers, in order."""
        return tuple(dict.fromkeys(item.layer for item in self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        cross = {kind: np.where(np.isnan(matrix), None, matrix).tolist() for kind, matrix in self.cross.items()}
        plain = {"layers": [dataclasses.asdict(item) for item in self.layers], "settings": self.settings}
        plain["left_out"] = list(self.left_out)
        return plain | ({"cross": {"layers": list(self.names), **cross}} if cross else {})


def compare(a: str, b: str, settings: ComparisonSettings, *, progress: Progress | None = None) -> Comparison:
    """Compare two networks layer by layer.

    Args:
        a: A run, `RUN/fold_K`, `RUN@initial`, `RUN@final`, a Keras file, weights, `random:NAME` or `imagenet:NAME`.
        b: Another; fold k of one run is compared with fold k of the other.
        settings: How.
        progress: Hears what happens.

    Raises:
        ConfigError: A setting or name cannot be used.
        WeightsError: A network cannot be loaded.
        DataError: The images cannot be used.
        SimilarityError: None of the layers can be compared.
    """
    progress = progress or Progress()
    check_choice("sampling", settings.sampling.sampling, SAMPLINGS)
    check_choice("channels", settings.sampling.channels, CHANNELS)
    check_choice("batch norm", settings.batch_norm, ("own", "shared"))
    kinds = measures(settings.similarity, compat=settings.compat)
    sources, folds, given = find_compared(a, b, settings, progress)
    if not settings.given:
        note_changes([source.run for source in sources if source.run is not None], progress)
    found = []
    for number, fold in enumerate(folds, start=1):
        if len(folds) > 1:
            progress.note(f"fold {fold[0] or fold[1]}, {number} of {len(folds)}")
        images = _tested_images(sources, fold, progress) if given is None else given
        with keras_defaults():
            found.append(_compare_fold(sources, fold, images, kinds, settings, progress))
    pairs, same_images = found[0].pairs, bool(settings.given)
    left_out = _left_out(found)
    for note in left_out[:_MOST_NOTES]:
        progress.note(note)
    if len(left_out) > _MOST_NOTES:
        progress.note(f"left out: {len(left_out) - _MOST_NOTES} more")
    by_layer = {
        (pair.name, kind): [each.scores.draws[pair.name, kind] for each in found] for pair in pairs for kind in kinds
    }
    return Comparison(
        tuple(combine(*names, draws, same_images=same_images) for names, draws in by_layer.items()),
        _record(sources, folds, found[0], settings),
        _crossed(pairs, kinds, [each.scores for each in found]) if settings.cross else {},
        {names: over_folds(draws) for names, draws in by_layer.items()},
        left_out,
        tuple(dict.fromkeys(name for each in found for name in each.scores.few_rows)),
    )


@dataclass(frozen=True)
class _FoldComparison:
    networks: tuple[Network, Network]
    pairs: tuple[LayerPair, ...]
    scores: "LayerScores"


def find_compared(
    a: str, b: str, settings: ComparisonSettings, progress: Progress
) -> tuple[Sources, list[tuple[int | None, int | None]], ComparisonImages | None]:
    """Two networks that can be loaded, the folds that are compared, and the images that were given for it, if any.

    Errors as of `compare`.
    """
    check_source(settings.data.source)
    sources = find_networks((a, b), backbone=settings.backbone, seed=settings.sampling.seed, notify=progress.note)
    folds = folds_of(sources, settings.folds)
    check_layers(sources, settings.layers)
    runs = [source.run for source in sources if source.run is not None]
    if settings.given:
        reading = run_images(runs[0]).images if runs else ImageSettings()
        return sources, folds, given_images(settings.files, settings.data, reading, progress)
    if not runs:
        raise ConfigError("Neither A nor B is a run, so there are no test images. Give images with --data.")
    return sources, folds, None


def _compare_fold(
    sources: Sources,
    fold: tuple[int | None, int | None],
    images: ComparisonImages,
    kinds: dict[str, Measure],
    settings: ComparisonSettings,
    progress: Progress,
) -> _FoldComparison:
    from radtransfer.similarity.activations import FeatureMaps, compare_layers
    from radtransfer.training.batch_norm import share_statistics

    sizes = _image_sizes(sources, settings)
    a, b = (source.load(k, size) for source, k, size in zip(sources, fold, sizes, strict=True))
    for source, network in zip(sources, (a, b), strict=True):
        check_input(source.given, network.model.inputs[0].shape[1:])
    if settings.batch_norm == "shared":
        share_statistics(a.model, b.model)
    pairs = layer_pairs(a.model, b.model, (a.card, b.card), settings.layers)
    scores = compare_layers(
        FeatureMaps(a.model, _unique(pair.a for pair in pairs), image_size=sizes[0]),
        FeatureMaps(b.model, _unique(pair.b for pair in pairs), image_size=sizes[1]),
        pairs,
        images,
        sizes=sizes,
        kinds=kinds,
        sampling=settings.sampling,
        cross=settings.cross,
        progress=progress,
    )
    return _FoldComparison((a, b), pairs, scores)


def _tested_images(sources: Sources, fold: tuple[int | None, int | None], progress: Progress) -> ComparisonImages:
    """The test images of the first run's fold."""
    runs = [(source.run, k) for source, k in zip(sources, fold, strict=True) if source.run is not None]
    images = tested_images(*runs[0])
    unseen = set(tested_paths(*runs[-1]))
    seen = sum(path not in unseen for path in images.paths)
    if seen:
        progress.note(
            f"{seen} of {len(images)} test images of A were not test images of B: it may have trained on them"
        )
    return images


def _image_sizes(sources: Sources, settings: ComparisonSettings) -> tuple[int, int]:
    """Of each network its own; else the one that was asked for, that of the other network, or the default."""
    fixed = [source.image_size for source in sources if source.image_size]
    free = settings.image_size or (fixed or [DEFAULT_SIZE])[0]
    return tuple(source.image_size or free for source in sources)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _left_out(found: Sequence[_FoldComparison]) -> tuple[str, ...]:
    """What has no similarity, and why: a sentence for each reason, naming the kinds.

    Raises:
        SimilarityError: Nothing has one.
    """
    kinds_of: dict[str, dict[str, None]] = {}
    scores = [(kind, draw) for each in found for (_, kind), draws in each.scores.draws.items() for draw in draws]
    for kind, draw in scores:
        if draw.value is None:
            kinds_of.setdefault(draw.undefined, {})[kind] = None
    if all(draw.value is None for _, draw in scores):
        raise SimilarityError(next(iter(kinds_of)))
    return tuple(f"left out ({', '.join(kinds)}): {reason}" for reason, kinds in kinds_of.items())


def _crossed(pairs: Sequence[LayerPair], kinds: Sequence[str], found: "Sequence[LayerScores]") -> dict[str, np.ndarray]:
    return {
        kind: np.array(
            [
                [np.mean(np.array([s.crossed.get((a.name, b.name, kind)) for s in found], float)) for b in pairs]
                for a in pairs
            ]
        )
        for kind in kinds
    }


def _record(
    sources: Sources,
    folds: Sequence[tuple[int | None, int | None]],
    found: _FoldComparison,
    settings: ComparisonSettings,
) -> dict[str, Any]:
    """Everything that decides the numbers, as plain values."""
    sampling = settings.sampling
    return {
        "a": sources[0].given,
        "b": sources[1].given,
        "folds": [k for k in (a or b for a, b in folds) if k is not None],
        "layers": {pair.name: [pair.a, pair.b] for pair in found.pairs},
        "similarity": list(settings.similarity),
        **dataclasses.asdict(sampling),
        "seeds": [sampling.seed_of(repeat) for repeat in range(sampling.repeats)],
        "cross": settings.cross,
        "batch_norm": settings.batch_norm,
        "compat": settings.compat,
        "images": ", ".join(settings.given) or "test images of the run",
        "image_size": list(_image_sizes(sources, settings)),
        "preprocessing": [network.preprocessing for network in found.networks],
    }
