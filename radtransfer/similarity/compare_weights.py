"""Compare the weights of two networks layer by layer, and the filters of their first convolution."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.data.run_data import note_changes
from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.files import atomic_folder, decimal, printable
from radtransfer.images.preprocessing import preprocessing_mode
from radtransfer.process import Progress, keras_defaults
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import filter_change, layer_change
from radtransfer.runs.folder import write_json, write_records
from radtransfer.similarity.networks import DEFAULT_SIZE, find_networks, folds_of

if TYPE_CHECKING:
    import keras

    from radtransfer.models.activations import Network
    from radtransfer.models.layers import LayerVariable

WEIGHT_FILES = ("weights.csv", "weights.json", "weights.png", "filters.png")


@dataclass(frozen=True)
class WeightChange:
    """The change from the weights of one layer to those of the same layer in another network.

    Attributes:
        layer: Its name; `outer/inner` for a nested layer.
        kind: Its Keras class.
        parameters: Number of trainable parameters, without moving statistics.
        relative_change: Norm of the difference over the norm of the first; None if that is 0.
        cosine: Cosine similarity, -1–1; None if a norm is 0.
        norm_a, norm_b: Euclidean norms.
    """

    layer: str
    kind: str
    parameters: int
    relative_change: float | None
    cosine: float | None
    norm_a: float
    norm_b: float


@dataclass(frozen=True, eq=False)
class Filters:
    """The kernels of the first convolution in both networks, float32 (height, width, channels, filters)."""

    layer: str
    a: np.ndarray
    b: np.ndarray


@dataclass(frozen=True, eq=False)
class WeightComparison:
    """The result of a comparison.

    Attributes:
        layers: The layers of A, in order, with weights of the same shape in B; means over folds.
        left_out: The names of the other layers with weights.
        filters: Of the first fold; None if the first convolutions differ in shape.
    """

    layers: tuple[WeightChange, ...]
    left_out: tuple[str, ...]
    filters: Filters | None
    settings: dict[str, Any]

    def lines(self) -> Iterator[str]:
        """A table of the layers."""
        width = max(len(name) for name in ("layer", *(layer.layer for layer in self.layers))) + 2
        yield f"{'layer':<{width}}{'parameters':>12}{'change':>9}{'cosine':>9}{'length A':>11}{'length B':>11}"
        for layer in self.layers:
            yield (
                f"{layer.layer:<{width}}{layer.parameters:>12,}{decimal(layer.relative_change):>9}"
                f"{decimal(layer.cosine):>9}{layer.norm_a:>11.3f}{layer.norm_b:>11.3f}"
            )
        if self.left_out:
            shown = ", ".join(self.left_out[:6]) + (", …" if len(self.left_out) > 6 else "")
            yield f"of other shape or in one network only: {shown}"

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.lines()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "left_out": list(self.left_out),
            "settings": self.settings,
        }


def compare_weights(
    a: str,
    b: str,
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    folds: Sequence[int] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> WeightComparison:
    """Compare the weights of two networks, named as in `compare_layers.compare`, with at least some layers in common.

    `image_size` builds networks that take any size and affects no weight. Without `folds`, all common folds are used.
    """
    progress = progress or Progress()
    sources = find_networks((a, b), backbone=backbone, seed=seed, notify=progress.note)
    chosen, networks, per_fold = folds_of(sources, folds), None, []
    note_changes([source.run for source in sources if source.run is not None], progress)
    for number, fold in enumerate(chosen, start=1):
        with keras_defaults():
            pair = tuple(
                source.load(k, source.image_size or image_size or DEFAULT_SIZE)
                for source, k in zip(sources, fold, strict=True)
            )
        networks = networks or pair
        per_fold.append(_changes(*(network.model for network in pair)))
        progress.count("folds", number, len(chosen))
    layers = tuple(mean_change([changes[name] for changes in per_fold]) for name in per_fold[0])
    if not layers:
        raise WeightsMismatchError(
            f"Expected networks with common layers; {a} and {b} have no layer of the same name and shape. Use others."
        )
    (stem, mine), (_, its) = map(_first_kernel, networks)
    comparable = mine is not None and its is not None and mine.shape == its.shape
    return WeightComparison(
        layers=layers,
        left_out=tuple(sorted({name for network in networks for name in _learned(network.model)} - per_fold[0].keys())),
        filters=Filters(stem, mine, its) if comparable else None,
        settings={"a": a, "b": b, "folds": [k for k in (x or y for x, y in chosen) if k is not None], "seed": seed},
    )


def weight_change(layer: str, kind: str, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> WeightChange:
    """The change from arrays `a` to `b`, each taken as one vector; WeightsError if not finite."""
    x, y = (np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64) for arrays in (a, b))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise WeightsError(f"{layer} has weights that are not finite: training diverged. Use another checkpoint.")
    norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    return WeightChange(
        layer,
        kind,
        x.size,
        float(np.linalg.norm(y - x)) / norms[0] if norms[0] else None,
        float(np.clip(x @ y / (norms[0] * norms[1]), -1, 1)) if all(norms) else None,
        *norms,
    )


def mean_change(changes: Sequence[WeightChange]) -> WeightChange:
    """The mean over folds of one layer's changes; None if undefined in one of them."""

    def mean(name: str) -> float | None:
        values = [getattr(change, name) for change in changes]
        return None if None in values else float(np.mean(values))

    names = ("relative_change", "cosine", "norm_a", "norm_b")
    return WeightChange(changes[0].layer, changes[0].kind, changes[0].parameters, *map(mean, names))


def _learned(model: "keras.Model") -> "dict[str, dict[str, LayerVariable]]":
    """The weights, frozen or not, by layer; a nested layer is called `outer/inner`."""
    from radtransfer.models.layers import model_variables

    found: dict[str, dict[str, LayerVariable]] = {}
    for layer, variables in model_variables(model).items():
        for path, item in variables.items():
            if item.learned:
                inner, _, name = path.rpartition("/")
                found.setdefault(f"{layer}/{inner}".rstrip("/"), {})[name] = item
    return found


def _changes(a: "keras.Model", b: "keras.Model") -> dict[str, WeightChange]:
    others, changes = _learned(b), {}
    for name, variables in _learned(a).items():
        mine, its = (
            {key: np.array(item.variable) for key, item in side.items()} for side in (variables, others.get(name, {}))
        )
        if {key: array.shape for key, array in mine.items()} == {key: array.shape for key, array in its.items()}:
            kind = type(next(iter(variables.values())).owner).__name__
            changes[name] = weight_change(name, kind, list(mine.values()), [its[key] for key in mine])
    return changes


def _first_kernel(network: "Network") -> tuple[str, np.ndarray | None]:
    """The kernel of the first convolution, its channels in RGB order."""
    from radtransfer.models.layers import convolution_kernels

    for layer, _, variable in convolution_kernels(network.model):
        kernel = np.array(variable)
        reverse = network.preprocessing and preprocessing_mode(network.preprocessing).order == "BGR"
        return layer, kernel[:, :, ::-1] if reverse else kernel
    return "", None


def write_weights(comparison: WeightComparison, out: Path) -> list[Path]:
    """Write weights.csv, .json and .png and, if comparable, filters.png."""
    names, layers = [f"weights.{suffix}" for suffix in ("csv", "json", "png")], comparison.layers
    changes = [layer.relative_change for layer in layers]
    with atomic_folder(out, WEIGHT_FILES, last="weights.json") as folder:
        write_records(folder / names[0], layers)
        write_json(folder / names[1], comparison.to_dict())
        figure = layer_change([layer.layer for layer in layers], [layer.kind for layer in layers], changes)
        save_figure(figure, folder / names[2])
        if comparison.filters is not None:
            titles = {f"title_{side}": f"{side.upper()}: {Path(comparison.settings[side]).name}" for side in "ab"}
            names.append("filters.png")
            save_figure(filter_change(comparison.filters.a, comparison.filters.b, **titles), folder / names[-1])
    return [out / name for name in names]
