"""Gives a network the weights of a file: complete, or not at all.

Which layer of the file belongs to which layer of the network is planned before anything is assigned. Names alone are
never trusted. Keras numbers unnamed layers by a global count, so that `conv2d_1` of one file is `conv2d` of another;
Keras' own loading by name then loads the wrong layer, or nothing, without a word. Here a pair needs the same arrays in
the same shapes as well, and numbers only tell the order within a class.

Which network a file is for is found by trying: it is the one whose every layer finds its weights.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.read import SavedLayer, WeightFile, read_weight_file, sha256_of
from radtransfer.pretrained.source import Certainty, WeightSource, fetch, resolve_weights
from radtransfer.process import keras_defaults

if TYPE_CHECKING:
    import keras

Arrays = tuple[np.ndarray, ...]
"""Of one layer, float32, in the order of the layer's `weights`."""

Shape = tuple[int | None, ...]
Pairs = dict[str, SavedLayer]
T = TypeVar("T")

_MOST_TRIED = 6
"""Networks that a file is compared with to recognize it."""


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights for every layer of one backbone.

    Attributes:
        extra: Layers of the file that are not the network's, such as a head.
        changed: How many layers of the network had other values before.
    """

    layers: dict[str, Arrays] = field(repr=False)
    source: WeightSource
    sha256: str
    preprocessing: str
    preprocessing_sure: Certainty
    extra: tuple[str, ...] = field(repr=False)
    changed: int


@dataclass(frozen=True)
class Target:
    """A layer that wants weights.

    Attributes:
        shapes: Path to shape, in the order of the layer's `weights`; None fits any length. The path is a leaf name,
            such as "kernel", and "query/kernel" where there are layers within the layer.
        parts: Of such a layer, the path of each layer within it to the paths of what that holds, in its own order.
    """

    name: str
    kind: str  # class in snake case
    shapes: dict[str, Shape]
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def number(self) -> int | None:
        """Its number, if Keras chose the name: conv2d is 0, conv2d_7 is 7."""
        found = re.fullmatch(rf"{re.escape(self.kind)}(?:_(\d+))?", self.name)
        return int(found[1] or 0) if found else None


@dataclass(frozen=True)
class Match:
    """A plan.

    Attributes:
        arrays: Layer of the network to its arrays.
        extra: Layers of the file that are not the network's: a head, another sub-model.
        by: What the pairs were found by; None without any.
    """

    arrays: dict[str, Arrays]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    by: Literal["name", "order"] | None

    @property
    def channels(self) -> int:
        """Of the images that the first convolution takes; three where none sees the image."""
        kernels = (arrays[0] for arrays in self.arrays.values())
        return next((kernel.shape[-2] for kernel in kernels if kernel.ndim == 4), 3)


@keras_defaults()
def build_backbone(
    name: str,
    weights: str | None = None,
    image_size: int | None = 224,
    pooling: Literal["avg"] | None = "avg",
    channels: int = 3,
) -> "keras.Model":
    """A flat functional model without preprocessing and without head.

    Args:
        name: See `radtransfer backbones`.
        weights: None or "random"; "imagenet"; a name from `radtransfer weights list`; a Keras file,
            whose head is ignored; or a finished run, RUN or RUN/fold_K.
        image_size: In pixels; None for images of any size.
        pooling: "avg", or None for the feature map.
        channels: Of the input, which is float32 and already preprocessed.

    Raises:
        ConfigError: No such backbone, or the images are too small for it.
        WeightsError: The weights are not found, not usable, or another network's.

    Example:
        >>> network = rt.build_backbone("cbr_tiny", weights="runs/first/fold_1", image_size=24)
        >>> network.output_shape
        (None, 256)
    """
    from radtransfer.models.architecture import build_architecture

    model = build_architecture(name, image_size=image_size, pooling=pooling, channels=channels)
    source = resolve_weights(weights, backbone=name)
    if source is not None:
        assign(model, load_pretrained(source, backbone=name, model=model).layers)
    return model


@keras_defaults()
def load_pretrained(
    source: WeightSource,
    *,
    backbone: str,
    model: "keras.Model",
    notify: Callable[[str], None] = lambda _: None,
    ignore_lambda: bool = False,
) -> PretrainedWeights:
    """The weights of `source`, arranged for `model`, which is left as it is.

    `model` is the network `backbone`, flat; layers of the file that it lacks are ignored. `notify` gets one sentence
    before a download, and one about Lambda layers that were ignored.

    Raises:
        WeightsError: Not usable, or not downloadable.
        WeightsMismatchError: They are of a different architecture, or only part of this one's.
    """
    fetch(source, notify)
    file = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    if file.lambdas:
        notify(file.lambda_note)
    match = _complete_match(file, backbone, model)
    changed = [
        name
        for name, arrays in match.arrays.items()
        if not all(map(np.array_equal, model.get_layer(name).get_weights(), arrays))
    ]
    mode, sure = source.preprocessing_for(backbone)
    return PretrainedWeights(match.arrays, source, sha256_of(source.file), mode, sure, match.extra, len(changed))


def assign(model: "keras.Model", layers: Mapping[str, Arrays]) -> None:
    """Set the weights of the layers of `model`, or of a classifier around it, frozen or not."""
    for name, arrays in layers.items():
        model.get_layer(name).set_weights(arrays)


def match_network(file: WeightFile, backbone: str | None = None) -> tuple[str, Match]:
    """The network in `file`, `backbone` or recognized, and the plan for all its layers, for images of three channels.

    Raises:
        WeightsMismatchError: It is of no known network, of another than `backbone`, or for other channels.
        WeightsError: Its values are not finite.
    """
    if backbone is not None:
        from radtransfer.models.architecture import build_architecture

        return backbone, _complete_match(file, backbone, build_architecture(backbone, image_size=None, pooling=None))
    found = recognize(file)
    if found is None:
        raise WeightsMismatchError(
            f"{file.path} holds {len(file.layers)} weighted layers that are not those of a known backbone. "
            "Name the network with --backbone to see what is missing."
        )
    if found[1].channels != 3:
        raise WeightsMismatchError(f"{file.path} is for images of {found[1].channels} channels; three are needed.")
    _check_finite(found[1], file.path)
    return found


def recognize(file: WeightFile) -> tuple[str, Match] | None:
    """The backbone whose layers `file` holds, all of them, and the plan; or None."""
    # A file holds its backbone and perhaps a head: the largest backbones it has room for come first.
    # A stem for other than three channels changes the total by little.
    fitting = [card for card in BACKBONES.values() if card.parameters <= file.parameters * 1.01]
    if not fitting:
        return None
    # Imported late: it brings TensorFlow.
    from radtransfer.models.architecture import build_architecture

    for card in sorted(fitting, key=lambda card: -card.parameters)[:_MOST_TRIED]:
        targets = weighted_layers(build_architecture(card, image_size=None, pooling=None))
        match = match_layers(file, with_any_channels(targets))
        if not match.missing:
            return card.name, match
    return None


def match_layers(file: WeightFile, targets: Sequence[Target]) -> Match:
    """The best plan to give `targets` the weights in `file`; look at `missing` before using it.

    Each sub-model of the file is tried, the smallest first, so that a head with layers of the same kind does not
    interfere; first by name, then by the order of the whole sequence of shapes.
    """
    whole = _with_composites(file.layers, targets)
    best: tuple[Pairs, Literal["name", "order"]] | None = None
    for layers in _sub_models(whole):
        for by, find_pairs in (("name", _pairs_by_name), ("order", _pairs_by_order)):
            if best is None or len(best[0]) < len(targets):
                found = find_pairs(layers, targets)
                best = (found, by) if best is None or len(found) > len(best[0]) else best
    pairs, by = best
    used = {id(saved) for saved in pairs.values()}
    return Match(
        arrays={target.name: _arranged(pairs[target.name], target) for target in targets if target.name in pairs},
        missing=tuple(target.name for target in targets if target.name not in pairs),
        extra=tuple(saved.label for saved in whole if id(saved) not in used),
        by=by,
    )


def weighted_layers(model: "keras.Model") -> tuple[Target, ...]:
    """The layers of a flat model that hold weights, in the model's order."""
    from radtransfer.models.layers import layer_variables, own_variables, sub_layers

    targets = []
    for layer in model.layers:
        paths = {id(item.variable): path for path, item in layer_variables(layer).items()}
        parts = {
            path: tuple(paths[id(item)] for item in own_variables(part)) for path, part in sub_layers(layer).items()
        }
        held = {path: names for path, names in parts.items() if names}
        shapes = {paths[id(weight)]: tuple(weight.shape) for weight in layer.weights}
        # The class as Keras turns it into a layer's name: BatchNormalization is batch_normalization.
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        targets += [Target(layer.name, kind, shapes, parts=held if any(held) else {})] if shapes else []
    return tuple(targets)


def with_any_channels(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The same layers, the first convolution taking images of any number of channels."""
    firsts = ((target, *next(iter(target.shapes.items()))) for target in targets)
    stem, leaf, shape = next((first for first in firsts if len(first[2]) == 4), (None, "", ()))
    if stem is None:
        return tuple(targets)
    *sides, _, filters = shape
    open_stem = replace(stem, shapes=stem.shapes | {leaf: (*sides, None, filters)})
    return tuple(open_stem if target is stem else target for target in targets)


def _complete_match(file: WeightFile, backbone: str, model: "keras.Model") -> Match:
    targets = weighted_layers(model)
    match = match_layers(file, targets)
    if not match.missing:
        _check_finite(match, file.path)
        return match
    other_stem = match_layers(file, with_any_channels(targets))
    if not other_stem.missing:
        raise WeightsMismatchError(
            f"{file.path.name} holds {backbone} for images of {other_stem.channels} channels; "
            f"the network is built for {model.inputs[0].shape[-1]}. Use weights for as many channels."
        )
    holds = f"{file.path.name} holds {len(file.layers)} weighted layers"
    needs = f"--backbone is {backbone} ({len(targets)} weighted layers)"
    found = recognize(file)
    if found is not None:
        raise WeightsMismatchError(f"{holds} (looks like {found[0]}); {needs}. Use --backbone {found[0]}.")
    shapes = next(target.shapes for target in targets if target.name == match.missing[0])
    listed = ", ".join(leaf + " " + "×".join(map(str, shape)) for leaf, shape in shapes.items())
    raise WeightsMismatchError(
        f"{holds} that are not those of a known backbone; {needs}. Nothing was loaded: {len(match.missing)} "
        f"layers find no weights of their name and shape, first {match.missing[0]} ({listed})."
    )


def _check_finite(match: Match, path: Path) -> None:
    bad = [name for name, arrays in match.arrays.items() if not all(np.isfinite(array).all() for array in arrays)]
    if bad:
        raise WeightsError(
            f"{path} holds values that are not finite in {len(bad)} layers (first: {bad[0]}): "
            "its training diverged or the file is damaged. Use another checkpoint."
        )


def _arranged(saved: SavedLayer, target: Target) -> Arrays | None:
    """The arrays of `saved` in the order `target` wants, or None if they do not fit."""
    arrays, shapes = saved.arrays, target.shapes
    if target.parts:
        arrays = _by_path(arrays, target)
    if len(arrays) != len(shapes):
        return None
    if len(arrays) == 1:
        # The leaf of a layer with one array was renamed more than once (depthwise_kernel, Variable),
        # and a channel scale is (n,) in Keras' own layer but (1, 1, n, 1) as a convolution.
        (array,), (shape,) = arrays.values(), shapes.values()
        if array.ndim == 1 and sorted(shape) == [*[1] * (len(shape) - 1), array.size]:
            array = array.reshape(shape)
        ordered = (array,)
    elif all(leaf.isdigit() for leaf in arrays):
        ordered = tuple(arrays[leaf] for leaf in sorted(arrays, key=int))
    elif set(arrays) == set(shapes):
        ordered = tuple(arrays[leaf] for leaf in shapes)
    else:
        return None
    for array, shape in zip(ordered, shapes.values(), strict=True):
        if array.ndim != len(shape) or any(b not in (None, a) for a, b in zip(array.shape, shape, strict=True)):
            return None
    return ordered


def _by_path(arrays: dict[str, np.ndarray], target: Target) -> dict[str, np.ndarray]:
    """The arrays of a layer that has layers within it, by the paths of `target`; none where these differ."""
    if all(path.rpartition("/")[2].isdigit() for path in arrays):
        held: dict[str, list[np.ndarray]] = defaultdict(list)
        for path in sorted(arrays, key=lambda path: int(path.rpartition("/")[2])):
            held[path.rpartition("/")[0]].append(arrays[path])
        ours, theirs = _by_rank(target.parts), _by_rank(held)
        if {path: len(paths) for path, paths in ours.items()} != {path: len(given) for path, given in theirs.items()}:
            return {}
        return {leaf: array for path in ours for leaf, array in zip(ours[path], theirs[path], strict=True)}
    # Keras leaves names out that stand around a model within a layer, or around the only layer within it.
    ours, theirs = _by_rank({path: path for path in target.shapes}), _by_rank(arrays)
    ends = {path: [end for end in theirs if f"/{path}".endswith(f"/{end}")] for path in ours}
    longest = {path: max(found, key=len) for path, found in ends.items() if found}
    one_each = len(set(longest.values())) == len(ours) == len(theirs)
    return {ours[path]: theirs[end] for path, end in longest.items()} if one_each else {}


def _by_rank(paths: Mapping[str, T]) -> dict[str, T]:
    """The same values, every numbered name in their paths replaced by its rank among those beside it."""
    beside: dict[tuple[str, str], set[tuple[int, str]]] = defaultdict(set)
    for path in paths:
        for before, name in _steps(path):
            base, number = _base(name)
            beside[before, base].add((number, name))

    def ranked(before: str, name: str) -> str:
        base, number = _base(name)
        rank = sorted(beside[before, base]).index((number, name))
        return f"{base}_{rank}" if rank else base

    return {"/".join(ranked(before, name) for before, name in _steps(path)): value for path, value in paths.items()}


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Each name of a path with the path before it."""
    names = path.split("/")
    return (("/".join(names[:place]), name) for place, name in enumerate(names))


def _base(name: str) -> tuple[str, int]:
    base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return base, int(number or 0)


def _with_composites(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> list[SavedLayer]:
    """The layers of a file; those that stand in a layer of `targets` as that one layer, by path."""
    layers, composite = list(layers), [target for target in targets if target.parts]
    if not composite:
        return layers
    paths = {id(layer): "/".join((*layer.outer, layer.name)) if layer.outer else layer.label for layer in layers}
    for prefix in sorted({before for path in paths.values() for before, _ in _steps(path) if before}, key=len):
        members = [layer for layer in layers if f"{paths.get(id(layer), '')}/".startswith(f"{prefix}/")]
        distinct = len({paths[id(layer)] for layer in members}) == len(members)
        arrays = {
            f"{paths[id(layer)].removeprefix(prefix)}/{leaf}".lstrip("/"): array
            for layer in members
            for leaf, array in layer.arrays.items()
        }
        *before, name = prefix.split("/")
        part = "/".join(members[0].part.split("/")[: len(before)]) if members else ""
        whole = SavedLayer(name, arrays, part=part, kind="")
        if distinct and any(_arranged(whole, target) is not None for target in composite):
            first, others = id(members[0]), {id(layer) for layer in members[1:]}
            layers = [whole if id(layer) == first else layer for layer in layers if id(layer) not in others]
    return layers


def _sub_models(whole: Sequence[SavedLayer]) -> list[list[SavedLayer]]:
    """The layers of each sub-model with all that is nested in it, the smallest sub-model first.

    A layer around a sub-model may carry a number that one of its own layers has too, and a shape that fits. So may
    one within another layer: these are left out at first.
    """
    members: dict[str, list[SavedLayer]] = {"": list(whole)}
    for layer in whole:
        for part in accumulate(layer.part.split("/"), "{}/{}".format):
            if part:
                members.setdefault(part, []).append(layer)
    nested = sorted(members.values(), key=len)
    plain = [[layer for layer in layers if not layer.within] for layers in nested]
    return plain + [layers for layers in nested if any(layer.within for layer in layers)]


def _pairs_by_name(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """Pairs of the same name, slashes or not, and fitting arrays; unnamed layers by their rank in the class."""
    numbered: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        if target.number is not None:
            numbered[target.kind].append(target)
    named = {target.name.replace("/", "_"): target for target in targets if target.number is None}
    pairs: Pairs = {}
    counted: dict[str, list[tuple[tuple[int, ...], SavedLayer]]] = defaultdict(list)
    for layer in layers:
        scopes = layer.name.split("/")
        base, numbers = re.fullmatch(r"(.*?)((?:_\d+)*)", scopes[-1]).groups()
        if base in numbered:  # conv2d_1_2, where TensorFlow numbered anew what had a number, is conv2d (1, 2)
            counted[base].append((tuple(map(int, numbers.split("_")[1:])), layer))
            continue
        spellings = ("_".join(scopes[start:]) for start in range(len(scopes)))
        target = named.get(next((name for name in spellings if name in named), ""))
        if target is not None and target.name not in pairs and _arranged(layer, target) is not None:
            pairs[target.name] = layer
    for kind, members in numbered.items():
        in_order = [layer for _, layer in sorted(counted[kind], key=lambda item: item[0])]
        pairs |= _aligned(in_order, sorted(members, key=lambda target: target.number))
    return pairs


def _pairs_by_order(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """Pairs of the same place in the sequence; within each class, where the file keeps no other order."""
    if any(layer.kind is None for layer in layers):
        return _aligned(layers, targets)
    pairs: Pairs = {}
    for kind in dict.fromkeys(target.kind for target in targets):
        pairs |= _aligned([x for x in layers if x.kind == kind], [x for x in targets if x.kind == kind])
    return pairs


def _aligned(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """The first unbroken run of layers that fits all targets in order, or nothing.

    Layers of a head come after the backbone's, those of an adapter in front before them.
    """
    for start in range(len(layers) - len(targets) + 1):
        run = layers[start : start + len(targets)]
        if all(_arranged(layer, target) is not None for layer, target in zip(run, targets, strict=True)):
            return {target.name: layer for layer, target in zip(run, targets, strict=True)}
    return {}
