"""Compare the layers of networks on the same images."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radtransfer.api.progress import shown
from radtransfer.api.settings import ConfigLike, PathLike, checked_images, is_array, numbers, paths, settings_of
from radtransfer.errors import ConfigError
from radtransfer.files import check_new
from radtransfer.process import Progress, keras_defaults

if TYPE_CHECKING:
    import keras

    from radtransfer.similarity.compare_layers import Comparison, ComparisonSettings
    from radtransfer.similarity.networks import NetworkSource
    from radtransfer.similarity.population import Population


def compare(
    a: Any,
    b: Any,
    *,
    images: Any = None,
    layers: str | Sequence[str] | None = None,
    image_size: int | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    data: Any = None,
    config: ConfigLike | None = None,
    similarity: str | Sequence[str] = "cca",
    rows: int = 10_000,
    dims: int = 64,
    repeats: int = 5,
    sampling: Literal["spread", "transfusion"] | None = None,
    channels: Literal["auto", "paired", "independent", "all"] | None = None,
    cross: bool = False,
    batch_norm: Literal["own", "shared"] = "own",
    compat: Literal["juodelyte"] | None = None,
    fold: int | Sequence[int] | None = None,
    backbone: str | None = None,
    seed: int = 0,
    **settings: Any,
) -> "Comparison":
    """Compare every layer of two networks on the same images; the command `radtransfer compare-cca`.

    Other arguments are described in `radtransfer.api`; of the settings, those about reading data apply.

    Args:
        a: A `Run`, a Keras model, or what the command takes: RUN@initial, a file, "random:resnet50".
        b: The other network, likewise.
        images: An array (n, height, width, 3), 0–255, passed to Keras models unchanged; or a list of files.
        layers: "stages", "all", or names. By default stages; for networks without stages, every layer with weights.
        image_size: In pixels, for networks that can be built for any size.
        out: Folder for CSV, JSON and figures, listed in `files` of the result.
        data: A data set instead of `images`; without both, the test images of the run.
        similarity: One or several of `radtransfer.similarity.SIMILARITIES`.
        rows: Number of positions per layer.
        dims: Number of channels per layer.
        repeats: Number of random draws of positions and channels; the result is their mean.
        sampling: "spread": positions of all images (the default); "transfusion": all positions of a few images.
        channels: "auto": the same channels of both layers if they have the same number; "paired", "independent", "all".
        cross: Also compare every layer of A with every layer of B.
        batch_norm: "shared": B uses the batch-norm statistics of A.
        compat: "juodelyte": CCA as Juodelyte et al. 2023 computed it.
        backbone: Network of a weights file.
        seed: Seed of all random draws.

    Returns:
        A result with `to_frame()`, one row per layer and measure, and `plot()`.

    Raises:
        SimilarityError: No layer can be compared.

    Example:
        >>> pixels = np.random.default_rng(0).uniform(0, 255, (40, 24, 24, 3))
        >>> found = rt.compare(model, source, images=pixels, similarity=["cca", "cka"], repeats=1, quiet=True)
        >>> found.to_frame()["layer"].tolist()
        ['conv1', 'conv1', 'conv2', 'conv2', 'head', 'head']
    """
    with shown(progress, quiet) as progress:
        in_memory = [side for side in (a, b) if not isinstance(side, (str, os.PathLike))]
        pixels = checked_images(images) if is_array(images) else None
        if pixels is not None:
            image_size = image_size or pixels.shape[1]
        with keras_defaults() if in_memory else nullcontext():
            a_source, b_source = (
                _model_source(side, image_size) if side in in_memory else os.fspath(side) for side in (a, b)
            )
            if layers is None:
                stages = all(_stages_of(side) is not None for side in in_memory)
                layers = "stages" if stages else _weighted_in_both(in_memory)
        chosen = _settings(
            layers=layers,
            similarity=similarity,
            rows=rows,
            dims=dims,
            repeats=repeats,
            sampling=sampling,
            channels=channels,
            cross=cross,
            batch_norm=batch_norm,
            compat=compat,
            files=() if images is None or pixels is not None else paths(images),
            data=settings_of(data, config=config, settings=settings).data,
            fold=fold,
            backbone=backbone,
            image_size=image_size,
            seed=seed,
        )
        from radtransfer.data.run_data import ImageArrays
        from radtransfer.similarity import compare_layers as comparing

        if out is not None:
            check_new(Path(out), comparing.COMPARISON_FILES, overwrite=overwrite)
        arrays = None if pixels is None else ImageArrays(pixels)
        found = comparing.compare(a_source, b_source, chosen, progress=progress, images=arrays)
        return found if out is None else replace(found, files=tuple(comparing.write_comparison(found, Path(out))))


def compare_pairs(
    runs: Sequence[PathLike],
    *,
    images: Sequence[PathLike] | None = None,
    config: ConfigLike | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> "Population":
    """Compare every pair of several runs, before and after training; the command `radtransfer compare-cca --pairs`.

    `options` are those of `compare`.
    """
    with shown(progress, quiet) as progress:
        chosen = _settings(files=paths(images or ()), data=settings_of(config=config).data, **options)
        from radtransfer.similarity.population import POPULATION_FILES, compare_population, write_population

        if out is not None:
            check_new(Path(out), POPULATION_FILES, overwrite=overwrite)
        found = compare_population([os.fspath(run) for run in runs], chosen, progress=progress)
        return found if out is None else replace(found, files=tuple(write_population(found, Path(out))))


def _settings(
    *,
    layers: str | Sequence[str],
    similarity: str | Sequence[str],
    compat: str | None,
    sampling: str | None,
    channels: str | None,
    fold: int | Sequence[int] | None,
    rows: int,
    dims: int,
    repeats: int,
    seed: int,
    files: Sequence[str],
    **others: Any,
) -> "ComparisonSettings":
    if compat and (sampling or channels):
        raise ConfigError("--compat juodelyte decides --sampling and --channels itself; leave them out.")
    from radtransfer.similarity.compare_layers import ComparisonSettings
    from radtransfer.similarity.layer_rows import Sampling

    default, kind = ("transfusion", "paired") if compat == "juodelyte" else ("spread", "auto")
    drawn = Sampling(rows=rows, dims=dims, repeats=repeats, seed=seed)
    return ComparisonSettings(
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        similarity=(similarity,) if isinstance(similarity, str) else tuple(similarity),
        sampling=replace(drawn, sampling=sampling or default, channels=channels or kind),
        compat=compat,
        files=tuple(files),
        folds=numbers(fold),
        **others,
    )


def _model_source(model: "keras.Model", size: int | None) -> "NetworkSource":
    """The source of a Keras model, which gets images unchanged."""
    from radtransfer.models.activations import Network, flat_model
    from radtransfer.similarity.networks import NetworkSource

    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ConfigError(f"{model.name}: expected a functional model of one image.")
    network = Network(flat_model(model), _stages_of(model), None)
    own = model.inputs[0].shape[1]
    return NetworkSource(model.name, "file", lambda *_: network, network.spec, image_size=own or size)


def _stages_of(model: "keras.Model") -> Any:
    from radtransfer.models.activations import flat_model, known_backbone

    return known_backbone(flat_model(model))


def _weighted_in_both(models: "Sequence[keras.Model]") -> Sequence[str]:
    """Layers with weights and the same name in both models; "all" if one is not a model in memory."""
    from radtransfer.models.activations import flat_model

    if len(models) < 2:
        return ("all",)
    mine, its = ([layer.name for layer in flat_model(model).layers if layer.weights] for model in models)
    shared = [name for name in mine if name in its]
    if not shared:
        names = " and ".join(model.name for model in models)
        raise ConfigError(f"{names} share no layer with weights by name. Give layers=[…].")
    return shared
