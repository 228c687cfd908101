"""Compare two networks layer by layer, on the same rows of their feature maps.

Files of a comparison: similarity.csv .json .png, and cross_KIND.png for all pairs of layers. Those of an earlier
comparison are replaced or deleted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.config.schema import DataSettings, ImageSettings
from radtransfer.data.readers import check_source
from radtransfer.data.run_data import (
    ImageArrays,
    LocatedImages,
    given_images,
    note_changes,
    run_images,
    tested_images,
    tested_paths,
)
from radtransfer.errors import ConfigError, SimilarityError, UnknownNameError
from radtransfer.files import atomic_folder, decimal, interval, printable
from radtransfer.models.backbone import resolve_layer
from radtransfer.models.vit import CLASS_TOKEN, patch_grid
from radtransfer.process import Progress, keras_defaults
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import SimilarityCurve, similarity_curve, similarity_heat_map
from radtransfer.runs.folder import write_json, write_rows
from radtransfer.similarity import SIMILARITIES
from radtransfer.similarity.correlation import google_cca_of_sums
from radtransfer.similarity.layer_rows import CHANNELS, SAMPLINGS, LayerPair, Sampling
from radtransfer.similarity.layer_scores import LayerScores, LayerSimilarity, combine, mean, score_layers
from radtransfer.similarity.measure import Measure
from radtransfer.similarity.moments import check_choice
from radtransfer.similarity.networks import DEFAULT_SIZE, NetworkSource, check_layers, find_networks, folds_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from radtransfer.models.activations import Network

COMPARISON_FILES = ("similarity.csv", "similarity.json", "similarity.png", "cross_*.png")

JUODELYTE_EPSILON = 1e-12  # the epsilon of Juodelyte et al. 2023 for google/svcca

_MOST_NOTES = 5
_NOT_MAPS = ("InputLayer", "Rescaling", "Normalization", "ZeroPadding2D", "Dropout", "Reshape")
Sources = tuple[NetworkSource, NetworkSource]
Folds = tuple[int | None, int | None]
"""The fold of each network; None if it is not a run."""


@dataclass(frozen=True)
class ComparisonSettings:
    """How two networks are compared.

    Attributes:
        batch_norm: "own", or "shared": B uses the batch-norm statistics of A.
        compat: "juodelyte" computes CCA as in Juodelyte et al. 2023; None is exact.
        data: Images for the comparison; without a source, the test images of the runs.
        folds: Folds of the runs; empty for all common ones.
        files: Images, folders and tables without labels, instead of `data`.
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
        """The given images; empty for the test images of the run."""
        return self.files or ((self.data.source,) if self.data.source is not None else ())


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        layers: One entry per layer and kind, the layers in order.
        cross: Kind to the mean similarity of every layer of A (rows) with every layer of B (columns), float64; NaN if
            undefined.
        draws: Layer and kind to the similarity in each draw, mean over folds; None if undefined.
        few_rows: Layers with too few rows for this number of channels.
        files: The written files.
    """

    layers: tuple[LayerSimilarity, ...]
    settings: dict[str, Any]
    cross: dict[str, np.ndarray] = field(default_factory=dict)
    draws: dict[tuple[str, str], tuple[float | None, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    few_rows: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.layer for item in self.layers))

    def lines(self) -> list[str]:
        """A table of the layers, and what its chance is."""
        width = max(len(name) for name in ("layer", *self.names)) + 2
        lines = [
            f"{'layer':<{width}}{'kind':<12}{'similarity':>10}  {'95 % interval':<16}{'chance':<15}"
            f"{'ranks':<9}{'rows':>8}{'images':>8}"
        ]
        for item in self.layers:
            chance = f"{decimal(item.null.closed_form)} / {decimal(item.null.permuted)}"
            lines.append(
                f"{item.layer:<{width}}{item.kind:<12}{decimal(item.similarity):>10}  {interval(item.ci95):<16}"
                f"{chance:<15}{f'{item.rank_a}, {item.rank_b}':<9}{item.rows:>8}{item.images:>8}"
            )
        folds = self.settings["folds"]
        over = f", mean over {len(folds)} folds" if len(folds) > 1 else ""
        repeats = self.settings["repeats"]
        return [*lines, f"mean of {repeats} draws{over}; chance: by formula / of exchanged images"]

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.lines()))

    def to_frame(self) -> "pd.DataFrame":
        """A row per layer and kind: `layer`, `kind`, `similarity`, `ci95_low`, `ci95_high`, chance, ranks, counts."""
        import pandas as pd

        return pd.DataFrame(map(_row, self.layers)).replace("", None)

    def plot(self) -> "Figure":
        """Similarity by layer with intervals and chance."""
        kinds = self.settings["similarity"]
        curves = {kind: _curve([item for item in self.layers if item.kind == kind]) for kind in kinds}
        return similarity_curve(self.names, curves, measure=_measure(self))

    def to_dict(self) -> dict[str, Any]:
        cross = {kind: np.where(np.isnan(matrix), None, matrix).tolist() for kind, matrix in self.cross.items()}
        plain = {"layers": [dataclasses.asdict(item) for item in self.layers], "settings": self.settings}
        plain["left_out"] = list(self.left_out)
        return plain | ({"cross": {"layers": list(self.names), **cross}} if cross else {})


def compare(
    a: str | NetworkSource,
    b: str | NetworkSource,
    settings: ComparisonSettings,
    *,
    progress: Progress | None = None,
    images: ImageArrays | None = None,
) -> Comparison:
    """Compare two networks layer by layer; fold k of one run is compared with fold k of the other.

    `a` and `b` are each a run, `RUN/fold_K`, `RUN@initial`, `RUN@final`, a Keras file, weights, `random:NAME` or
    `imagenet:NAME`. `images` in memory, passed to the networks unchanged, replace those of `settings`.
    """
    progress = progress or Progress()
    check_choice("sampling", settings.sampling.sampling, SAMPLINGS)
    check_choice("channels", settings.sampling.channels, CHANNELS)
    check_choice("batch norm", settings.batch_norm, ("own", "shared"))
    kinds = _measures(settings.similarity, compat=settings.compat)
    check_source(settings.data.source)
    sources = find_networks((a, b), backbone=settings.backbone, seed=settings.sampling.seed, notify=progress.note)
    folds = folds_of(sources, settings.folds)
    check_layers(sources, settings.layers)
    runs, given = [source.run for source in sources if source.run is not None], images
    if settings.given:
        reading = run_images(runs[0]).images if runs else ImageSettings()
        given = given_images(settings.files, settings.data, reading, progress)
    elif images is None and not runs:
        raise ConfigError("Expected images: neither A nor B is a run with test images. Give images with --data.")
    elif images is None:
        note_changes(runs, progress)
    found = []
    for number, fold in enumerate(folds, start=1):
        if len(folds) > 1:
            progress.note(f"fold {fold[0] or fold[1]}, {number} of {len(folds)}")
        shown = _tested_images(sources, fold, progress) if given is None else given
        with keras_defaults():
            found.append(_compare_fold(sources, fold, shown, kinds, settings, progress))
    networks, pairs, _ = found[0]
    scores = [each for _, _, each in found]
    left_out = _left_out(scores)
    for note in left_out[:_MOST_NOTES]:
        progress.note(note)
    if len(left_out) > _MOST_NOTES:
        progress.note(f"left out: {len(left_out) - _MOST_NOTES} more")
    by_layer = {(pair.name, kind): [each.draws[pair.name, kind] for each in scores] for pair in pairs for kind in kinds}
    cross = {}
    for kind in kinds if settings.cross else ():
        cells = [[[each.crossed.get((x.name, y.name, kind)) for each in scores] for y in pairs] for x in pairs]
        cross[kind] = np.array([[np.mean(np.array(cell, float)) for cell in row] for row in cells])
    return Comparison(
        tuple(combine(*names, draws, same_images=given is not None) for names, draws in by_layer.items()),
        _record(sources, folds, pairs, networks, settings) | ({} if images is None else {"images": "an array"}),
        cross,
        {
            names: tuple(mean([draw.value for draw in draws]) for draws in zip(*of_folds, strict=True))
            for names, of_folds in by_layer.items()
        },
        left_out,
        tuple(dict.fromkeys(name for each in scores for name in each.few_rows)),
    )


def _measures(kinds: Sequence[str], *, compat: str | None) -> dict[str, Measure]:
    """The measures with these names; they have to work on moments."""
    if not kinds:
        raise ConfigError(f"Expected at least one --similarity of {', '.join(SIMILARITIES)}. Received none.")
    found = {kind: SIMILARITIES[kind] for kind in kinds}
    whole = [kind for kind, measure in found.items() if measure.of_sums is None]
    if whole:
        raise ConfigError(
            f"{', '.join(whole)} needs all rows in memory and cannot be streamed. Use another --similarity, or "
            f"radtransfer.similarity.{whole[0]} on arrays."
        )
    if compat is None:
        return found
    if compat != "juodelyte" or list(found) != ["cca"]:
        raise ConfigError(f"--compat juodelyte expects --similarity cca. Received: {', '.join(found)} with {compat!r}.")
    return {"cca": dataclasses.replace(found["cca"], of_sums=partial(google_cca_of_sums, epsilon=JUODELYTE_EPSILON))}


def _compare_fold(
    sources: Sources,
    fold: Folds,
    images: LocatedImages,
    kinds: dict[str, Measure],
    settings: ComparisonSettings,
    progress: Progress,
) -> "tuple[tuple[Network, Network], tuple[LayerPair, ...], LayerScores]":
    from radtransfer.models.activations import FeatureMaps, check_input
    from radtransfer.training.step import copy_statistics

    sizes = _image_sizes(sources, settings)
    a, b = (source.load(k, size) for source, k, size in zip(sources, fold, sizes, strict=True))
    for source, network in zip(sources, (a, b), strict=True):
        check_input(source.given, network.model.inputs[0].shape[1:])
    if settings.batch_norm == "shared":
        copy_statistics(a.model, b.model)
    pairs = _layer_pairs(a, b, settings.layers)
    scores = score_layers(
        FeatureMaps(a.model, list(dict.fromkeys(pair.a for pair in pairs)), image_size=sizes[0]),
        FeatureMaps(b.model, list(dict.fromkeys(pair.b for pair in pairs)), image_size=sizes[1]),
        pairs,
        images,
        sizes=sizes,
        kinds=kinds,
        sampling=settings.sampling,
        cross=settings.cross,
        progress=progress,
    )
    return (a, b), pairs, scores


def _layer_pairs(a: "Network", b: "Network", layers: Sequence[str]) -> tuple[LayerPair, ...]:
    """The layers for "stages", "all" (feature maps with the same name in both networks), or names."""
    if not layers:
        raise ConfigError("Expected --layers stages, all or names. Received none.")
    if tuple(layers) == ("stages",):
        if a.spec is None or b.spec is None:
            raise ConfigError("--layers stages expects known backbones. Use --layers all or names of layers.")
        shared = [stage for stage in a.spec.stages if stage in b.spec.stages]
        pairs = [LayerPair(stage, a.spec.stages[stage], b.spec.stages[stage]) for stage in shared]
        if a.spec.patch and b.spec.patch:
            pairs.append(LayerPair(CLASS_TOKEN, CLASS_TOKEN, CLASS_TOKEN))
        return tuple(pairs)
    if tuple(layers) == ("all",):
        names = {layer.name for layer in b.model.layers}
        found = [
            layer.name
            for layer in a.model.layers
            if layer.name in names
            and (len(getattr(layer.output, "shape", ())) == 4 or patch_grid(a.model, layer.output))
            and type(layer).__name__ not in _NOT_MAPS
        ]
        if not found:
            raise ConfigError("The networks have no feature maps with the same name. Use --layers stages.")
        return tuple(LayerPair(name, name, name) for name in found)
    found = []
    for name in layers:
        resolved = []
        for network in (a, b):
            known = [layer.name for layer in network.model.layers]
            if name == CLASS_TOKEN and network.spec is not None and network.spec.patch:
                resolved.append(name)
            elif network.spec is not None:
                resolved.append(resolve_layer(network.model, network.spec, name))
            elif name in known:
                resolved.append(name)
            else:
                raise UnknownNameError("layer", name, known)
        found.append(LayerPair(name, *resolved))
    return tuple(found)


def _tested_images(sources: Sources, fold: Folds, progress: Progress) -> LocatedImages:
    """The test images of the first run's fold."""
    runs = [(source.run, k) for source, k in zip(sources, fold, strict=True) if source.run is not None]
    images, unseen = tested_images(*runs[0]), set(tested_paths(*runs[-1]))
    seen = sum(path not in unseen for path in images.paths)
    if seen:
        progress.note(
            f"{seen} of {len(images)} test images of A are not test images of B, which may have been trained on them"
        )
    return images


def _image_sizes(sources: Sources, settings: ComparisonSettings) -> tuple[int, int]:
    """The image size of each network; if it takes any, the requested one, that of the other network, or the default."""
    fixed = [source.image_size for source in sources if source.image_size]
    free = settings.image_size or (fixed or [DEFAULT_SIZE])[0]
    return tuple(source.image_size or free for source in sources)


def _left_out(found: Sequence[LayerScores]) -> tuple[str, ...]:
    """The reasons for undefined similarities; SimilarityError if all are undefined."""
    kinds_of: dict[str, dict[str, None]] = {}
    scores = [(kind, draw) for each in found for (_, kind), draws in each.draws.items() for draw in draws]
    for kind, draw in scores:
        if draw.value is None:
            kinds_of.setdefault(draw.undefined, {})[kind] = None
    if all(draw.value is None for _, draw in scores):
        raise SimilarityError(next(iter(kinds_of)))
    return tuple(f"left out ({', '.join(kinds)}): {reason}" for reason, kinds in kinds_of.items())


def _record(
    sources: Sources,
    folds: Sequence[Folds],
    pairs: Sequence[LayerPair],
    networks: "tuple[Network, Network]",
    settings: ComparisonSettings,
) -> dict[str, Any]:
    sampling = settings.sampling
    return {
        "a": sources[0].given,
        "b": sources[1].given,
        "folds": [k for k in (a or b for a, b in folds) if k is not None],
        "layers": {pair.name: [pair.a, pair.b] for pair in pairs},
        "similarity": list(settings.similarity),
        **dataclasses.asdict(sampling),
        "seeds": [sampling.seed_of(repeat) for repeat in range(sampling.repeats)],
        "cross": settings.cross,
        "batch_norm": settings.batch_norm,
        "compat": settings.compat,
        "images": ", ".join(settings.given) or "test images of the run",
        "image_size": list(_image_sizes(sources, settings)),
        "preprocessing": [network.preprocessing for network in networks],
    }


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write similarity.csv, .json and .png and, for all pairs of layers, a heat map per kind."""
    names = ["similarity.csv", "similarity.json", "similarity.png"]
    with atomic_folder(out, COMPARISON_FILES, last="similarity.json") as folder:
        rows = [_row(item) for item in comparison.layers]
        write_rows(folder / names[0], list(rows[0]), (row.values() for row in rows), for_people=True)
        write_json(folder / names[1], comparison.to_dict())
        save_figure(comparison.plot(), folder / names[2])
        for kind, matrix in comparison.cross.items():
            figure = similarity_heat_map(
                matrix,
                rows=comparison.names,
                columns=comparison.names,
                row_title=Path(comparison.settings["a"]).name,
                column_title=Path(comparison.settings["b"]).name,
                title=kind,
            )
            names.append(f"cross_{kind}.png")
            save_figure(figure, folder / names[-1])
    return [out / name for name in names]


def _row(item: LayerSimilarity) -> dict[str, Any]:
    low, high = item.ci95 or (None, None)
    row = {"layer": item.layer, "kind": item.kind, "similarity": item.similarity, "ci95_low": low, "ci95_high": high}
    row |= {"null_closed_form": item.null.closed_form, "null_permuted": item.null.permuted}
    row |= {name: getattr(item, name) for name in ("rank_a", "rank_b", "rows", "images", "dims", "repeats")}
    return {name: "" if value is None else value for name, value in row.items()}


def _measure(comparison: Comparison) -> str:
    """The axis label: the measure, if there is only one, and whether the networks are one before and after training."""
    kinds, (a, b) = comparison.settings["similarity"], (comparison.settings[side].partition("@") for side in "ab")
    what = f"similarity ({SIMILARITIES[kinds[0]].title})" if len(kinds) == 1 else "similarity"
    of_itself = a[0] == b[0] and a[2] == "initial" and b[2] in ("", "final")
    return f"{what},\nbefore and after training" if of_itself else what


def _curve(items: Sequence[LayerSimilarity]) -> SimilarityCurve:
    # The larger of the known values; NaN if none is known.
    chance = np.fmax(*np.array([[item.null.closed_form, item.null.permuted] for item in items], float).T)
    intervals = np.array([item.ci95 or (np.nan, np.nan) for item in items])
    return SimilarityCurve(
        values=[np.nan if item.similarity is None else item.similarity for item in items],
        low=intervals[:, 0].tolist(),
        high=intervals[:, 1].tolist(),
        chance=chance.tolist(),
    )
