"""Networks for a comparison, by their names on the command line.

RUN, RUN/fold_K          a trained network; RUN@initial: before training; RUN@final: the same as RUN
random:NAME              a backbone with random weights
imagenet:NAME            a backbone with Keras' ImageNet weights
FILE.keras               any functional Keras model
FILE, or a known name    weights of the backbone given by --backbone
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from radtransfer.errors import ConfigError, RunError, WeightsError, WeightsNotFoundError, suggest_path
from radtransfer.exports.formats import read_from_zip
from radtransfer.images.preprocessing import RANDOM_PREPROCESSING, preprocess
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.pretrained.match import assign, load_pretrained
from radtransfer.pretrained.saved_model import layer_names, open_model, open_weights
from radtransfer.pretrained.source import WeightSource, resolve_weights
from radtransfer.process import derive_seed
from radtransfer.runs.folder import read_run, run_and_folds
from radtransfer.runs.read import run_file

if TYPE_CHECKING:
    from radtransfer.models.activations import Network

DEFAULT_SIZE = 224


@dataclass(frozen=True)
class NetworkSource:
    """A network that can be loaded.

    Attributes:
        load: `load(fold, image_size)` gives the `Network`; arguments without effect are ignored.
        spec: Its backbone, if known before loading.
        folds: The finished folds, or the named one; empty without folds.
        image_size: Image size of the network; None if it can be built for any.
    """

    given: str
    kind: Literal["run", "random", "imagenet", "file", "weights"]
    load: "Callable[[int | None, int], Network]"
    spec: Backbone | None = None
    run: Path | None = None
    folds: tuple[int, ...] = ()
    image_size: int | None = None


def find_network(
    given: str, *, backbone: str | None, seed: int, notify: Callable[[str], None] = lambda _: None
) -> NetworkSource:
    """The network named `given` (see the module), not yet loaded; `backbone` is needed for a weights file."""
    kind, _, name = given.partition(":")
    if kind in ("random", "imagenet") and name:
        BACKBONES.check(name)
        weights = resolve_weights(kind, backbone=name)  # raises an error without such weights
        return NetworkSource(given, kind, partial(_built, name, weights, seed, notify), BACKBONES[name])
    path, at, moment = given.rpartition("@")
    path, moment = (Path(path), moment) if at and moment in ("initial", "final") else (Path(given), None)
    if (path / "run.json").is_file() or (path.name.startswith("fold_") and (path.parent / "run.json").is_file()):
        run, folds = run_and_folds(path)
        record = read_run(run)
        load = partial(_trained, run, record, moment == "initial")
        return NetworkSource(given, "run", load, BACKBONES.get(record["backbone"]), run, folds, record["image_size"])
    if moment is not None:
        raise RunError(
            f"{given}: expected a run folder before @{moment}; there is no run.json in {path}.{suggest_path(path)}"
        )
    if path.suffix == ".keras":
        return _of_file(given, path, notify)
    if backbone is None:
        if Path(given).is_file():
            raise ConfigError(f"{given} is a weights file, which needs the name of its network: --backbone.")
        raise WeightsNotFoundError(
            f"Expected a run (RUN, RUN/fold_K, RUN@initial, RUN@final), a Keras file, a weights file with --backbone, "
            f"random:NAME or imagenet:NAME. Received: {given}, which does not exist.{suggest_path(given)}"
        )
    BACKBONES.check(backbone)
    weights = resolve_weights(given, backbone=backbone)
    return NetworkSource(given, "weights", partial(_built, backbone, weights, seed, notify), BACKBONES[backbone])


def find_networks(
    given: tuple[str | NetworkSource, str | NetworkSource],
    *,
    backbone: str | None,
    seed: int,
    notify: Callable[[str], None],
) -> tuple[NetworkSource, NetworkSource]:
    """Two networks, with different random weights; a Keras file, which has to be opened, is looked up last."""
    found: dict[str, NetworkSource] = {}
    for side, name in sorted(zip("ab", given, strict=True), key=lambda item: str(item[1]).endswith(".keras")):
        if isinstance(name, NetworkSource):
            found[side] = name
            continue
        drawn = derive_seed(seed, "network", side)
        found[side] = find_network(name, backbone=backbone, seed=drawn, notify=notify)
    return found["a"], found["b"]


def check_layers(sources: Sequence[NetworkSource], names: Sequence[str]) -> None:
    """Raise UnknownNameError, before loading, if a network has no such stages or layers."""
    for source in sources if tuple(names) not in (("stages",), ("all",)) else ():
        known = layer_names(run_file(source.run, f"fold_{source.folds[0]}/model.keras")) if source.run else ()
        for name in names if source.spec else ():
            if not source.run:
                source.spec.check_layer(name)
            elif known and name not in (*source.spec.stages, *known):
                raise source.spec.unknown_layer(name, known)


def folds_of(
    sources: tuple[NetworkSource, NetworkSource], chosen: Sequence[int] = ()
) -> list[tuple[int | None, int | None]]:
    """The folds of each network to compare (the same ones, if both have several); RunError without common folds."""
    a, b = (source.folds for source in sources)
    listed_a, listed_b = (", ".join(map(str, folds)) or "none" for folds in (a, b))
    if not chosen and (len(a) == 1 or len(b) == 1) and a and b and not {*a} & {*b}:
        if len(a) > 1 or len(b) > 1:
            raise RunError(f"Expected the same folds, received {listed_a} and {listed_b}. Name one of each.")
        return [(a[0], b[0])]  # two named folds with different numbers
    common = [k for k in a or b if k in (b or a)]
    missing = [k for k in chosen if k not in common]
    if missing or (a and b and not common):
        raise RunError(
            f"Expected fold {missing[0] if missing else 'numbers'} in both runs. {sources[0].given} has finished "
            f"{listed_a}, {sources[1].given} {listed_b}. Name one of each, as RUN/fold_K."
        )
    kept = [k for k in common if not chosen or k in chosen]
    return [(k if a else None, k if b else None) for k in kept] or [(None, None)]


def _trained(run: Path, record: dict, initial: bool, fold: int, _: int) -> "Network":
    from radtransfer.models.activations import Network

    model = open_model(run_file(run, f"fold_{fold}/model.keras"))
    if initial:
        open_weights(model, run_file(run, f"fold_{fold}/initial.weights.h5"))
    return Network(model, BACKBONES[record["backbone"]], record["preprocessing"])


def _built(
    backbone: str,
    weights: WeightSource | None,
    seed: int,
    notify: Callable[[str], None],
    _: int | None,
    image_size: int,
) -> "Network":
    """A backbone with random or pretrained weights, and their preprocessing."""
    from radtransfer.models.activations import Network
    from radtransfer.models.architecture import build_architecture
    from radtransfer.transfer.initialize import draw_random

    mode = weights.preprocessing_for(backbone)[0] if weights else RANDOM_PREPROCESSING
    prepare = partial(preprocess, mode=mode)
    spec = weights.network(backbone) if weights else BACKBONES[backbone]
    model = build_architecture(spec, image_size=image_size, prepare=prepare)
    if weights is None:
        draw_random(model, seed=seed)
    else:
        assign(model, load_pretrained(weights, backbone=backbone, model=model, notify=notify).layers)
    return Network(model, spec, mode)


def _of_file(given: str, path: Path, notify: Callable[[str], None]) -> NetworkSource:
    from radtransfer.models.activations import network_of

    if not path.is_file():
        raise WeightsNotFoundError(f"No file {path}. Expected a run, a Keras file, random:NAME or imagenet:NAME.")
    try:
        model, scaled = open_model(path), bool(read_from_zip(path))
        network = network_of(model, given=given, path=path, scaled=scaled, notify=notify)
    except ValueError as error:
        raise WeightsError(f"{path} cannot be flattened: {error} Give its layers unique names.") from None
    return NetworkSource(given, "file", lambda *_: network, image_size=network.model.inputs[0].shape[1])
