"""Loads the weights of a file into a network: all of them, or none.

Layers of the file are matched with layers of the network before anything is assigned. Names alone are not trusted:
Keras numbers unnamed layers by a global counter, so that `conv2d_1` in one file is `conv2d` in another, and loading by
name in Keras then silently loads the wrong layer or nothing. Here a match also needs arrays of the same shapes, and
numbers only give the order within a class.

The network of a file is recognized by trying: it is the one for which every layer finds its weights.
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
from radtransfer.models.vit import POSITIONS, resized_positions, tokens_before_patches
from radtransfer.pretrained.read import SavedLayer, WeightFile, read_weight_file, sha256_of
from radtransfer.pretrained.source import Certainty, WeightSource, fetch, resolve_weights
from radtransfer.pretrained.torch_file import is_pytorch
from radtransfer.process import keras_defaults

if TYPE_CHECKING:
    import keras

Arrays = tuple[np.ndarray, ...]
"""The weights of one layer, float32, in the order of the layer's `weights`."""

Shape = tuple[int | None, ...]
Pairs = dict[str, SavedLayer]
T = TypeVar("T")

_MAX_TRIED = 6
"""Networks that a file is compared with to recognize it."""


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights for every layer of one backbone."""

    layers: dict[str, Arrays] = field(repr=False)
    source: WeightSource
    sha256: str
    preprocessing: str
    preprocessing_origin: Certainty
    extra: tuple[str, ...] = field(repr=False)  # layers of the file that the network does not have, such as a head
    changed: int  # layers whose values differ from those in the network


@dataclass(frozen=True)
class Target:
    """A layer of the network that needs weights."""

    name: str
    kind: str  # class in snake case
    # Path, "kernel" or "query/kernel", to shape, in the order of the layer's `weights`; None fits any length.
    shapes: dict[str, Shape]
    # In a layer with sub-layers, the path of each to the paths of its own variables, in order.
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def number(self) -> int | None:
        """The number of a name that Keras chose: conv2d is 0, conv2d_7 is 7."""
        found = re.fullmatch(rf"{re.escape(self.kind)}(?:_(\d+))?", self.name)
        return int(found[1] or 0) if found else None


@dataclass(frozen=True)
class Match:
    """The weights in a file for the layers of a network."""

    arrays: dict[str, Arrays]  # by layer of the network
    missing: tuple[str, ...]  # layers of the network without weights in the file
    extra: tuple[str, ...]  # layers of the file that the network does not have: a head, another sub-model
    by: Literal["name", "order"] | None  # how the layers were matched; None if none were

    @property
    def channels(self) -> int:
        """The input channels of the first convolution; 3 if there is none."""
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
        WeightsError: The weights are not found, not usable, or of a different architecture.

    Example:
        >>> network = rt.build_backbone("cbr_tiny", weights="runs/first/fold_1", image_size=24)
        >>> network.output_shape
        (None, 256)
    """
    from radtransfer.models.architecture import build_architecture

    source = resolve_weights(weights, backbone=name)
    spec = BACKBONES[name] if source is None else source.network(name)
    model = build_architecture(spec, image_size=image_size, pooling=pooling, channels=channels)
    if source is not None:
        assign(model, load_pretrained(source, backbone=name, model=model).layers)
    return model


def read_weights(path: Path, requested: str | None = None, *, ignore_lambda: bool = False) -> WeightFile:
    """All weights in `path`, a Keras or PyTorch file; of the latter, those of the backbone that it holds.

    Raises WeightsError, or WeightsMismatchError for a PyTorch file of an unknown network, or not of `requested`.
    """
    if path.is_file() and is_pytorch(path):
        from radtransfer.pretrained.torch_weights import read_torch_weights

        return read_torch_weights(path, requested)
    return read_weight_file(path, ignore_lambda=ignore_lambda)


@keras_defaults()
def load_pretrained(
    source: WeightSource,
    *,
    backbone: str,
    model: "keras.Model",
    notify: Callable[[str], None] = lambda _: None,
    ignore_lambda: bool = False,
) -> PretrainedWeights:
    """The weights of `source` for `model`, the flat network `backbone`; `model` is not changed.

    `notify` gets a note before a download and about ignored Lambda layers. Raises WeightsError if the file cannot be
    used, WeightsMismatchError if the weights are of a different architecture or incomplete.
    """
    fetch(source, notify)
    file = read_weights(source.file, backbone, ignore_lambda=ignore_lambda)
    for note in (*file.notes, *([file.lambda_note] if file.lambdas else [])):
        notify(note)
    match = _complete_match(file, backbone, model)
    changed = [
        name
        for name, arrays in match.arrays.items()
        if not all(map(np.array_equal, model.get_layer(name).get_weights(), arrays))
    ]
    mode, sure = source.preprocessing_for(backbone)
    return PretrainedWeights(
        match.arrays, source, sha256_of(source.file), mode, sure, match.extra + file.left_out, len(changed)
    )


def assign(model: "keras.Model", layers: Mapping[str, Arrays]) -> None:
    """Set the weights of layers by name, in `model` or in a classifier that contains it."""
    for name, arrays in layers.items():
        model.get_layer(name).set_weights(arrays)


def match_network(file: WeightFile, backbone: str | None = None) -> tuple[str, Match]:
    """The backbone in `file`, given or recognized, and a complete match for images of three channels.

    Raises:
        WeightsMismatchError: The network is unknown, is not `backbone`, or takes other than three channels.
        WeightsError: Values are not finite.
    """
    if backbone is not None:
        from radtransfer.models.architecture import build_architecture

        spec = BACKBONES[backbone].with_options(**file.options)
        model = build_architecture(spec, image_size=None, pooling=None)
        return backbone, _complete_match(file, backbone, model, resize=False)
    found = recognize(file)
    if found is None:
        raise WeightsMismatchError(
            f"{file.path} holds {len(file.layers)} layers with weights that do not match any known backbone. "
            "Name the network with --backbone to see what is missing."
        )
    if found[1].channels != 3:
        raise WeightsMismatchError(f"{file.path} is for images of {found[1].channels} channels; three are needed.")
    _check_finite(found[1], file.path)
    return found


def recognize(file: WeightFile) -> tuple[str, Match] | None:
    """The backbone of which `file` has all layers, and the match; None if there is no such backbone."""
    # Try the largest backbones first that have at most as many parameters as the file, which may contain a head;
    # 1 % allows for a stem with other than three channels.
    fitting = [spec for spec in BACKBONES.values() if spec.parameters <= file.parameters * 1.01]
    fitting = sorted(fitting, key=lambda spec: -spec.parameters)[:_MAX_TRIED]
    if file.backbone is not None:
        fitting = [BACKBONES[file.backbone].with_options(**file.options)]
    if not fitting:
        return None
    from radtransfer.models.architecture import build_architecture  # imports TensorFlow

    for spec in fitting:
        targets = with_any_positions(weighted_layers(build_architecture(spec, image_size=None, pooling=None)))
        match = match_layers(file, with_any_channels(targets))
        if not match.missing:
            return spec.name, match
    return None


def match_layers(file: WeightFile, targets: Sequence[Target]) -> Match:
    """The best match of `targets` with the layers in `file`; it may be incomplete, see `missing`.

    Each sub-model of the file is tried, the smallest first, so that a head with layers of the same kind does not
    interfere; each first by name, then by the order of all shapes.
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
    """The layers of a flat model that have weights, in the model's order."""
    from radtransfer.models.layers import layer_variables, own_variables, sub_layers

    targets = []
    for layer in model.layers:
        paths = {id(item.variable): path for path, item in layer_variables(layer).items()}
        parts = {
            path: tuple(paths[id(item)] for item in own_variables(part)) for path, part in sub_layers(layer).items()
        }
        parts = {path: names for path, names in parts.items() if names}
        shapes = {paths[id(weight)]: tuple(weight.shape) for weight in layer.weights}
        # Snake case as in the layer names of Keras: BatchNormalization is batch_normalization.
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        if shapes:
            targets.append(Target(layer.name, kind, shapes, parts=parts if any(parts) else {}))
    return tuple(targets)


def with_any_channels(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The same layers, with a first convolution that fits any number of input channels."""
    firsts = ((target, *next(iter(target.shapes.items()))) for target in targets)
    stem, leaf, shape = next((first for first in firsts if len(first[2]) == 4), (None, "", ()))
    if stem is None:
        return tuple(targets)
    *sides, _, filters = shape
    open_stem = replace(stem, shapes=stem.shapes | {leaf: (*sides, None, filters)})
    return tuple(open_stem if target is stem else target for target in targets)


def with_any_positions(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The same layers, with a position table that fits any number of tokens, of a vision transformer."""
    return tuple(
        replace(target, shapes={leaf: (None, shape[1]) for leaf, shape in target.shapes.items()})
        if target.name == POSITIONS
        else target
        for target in targets
    )


def _complete_match(file: WeightFile, backbone: str, model: "keras.Model", *, resize: bool = True) -> Match:
    """All weights of `model`; its position table is resized to its image size, unless not `resize`."""
    targets = with_any_positions(weighted_layers(model))
    match = match_layers(file, targets)
    if not match.missing:
        _check_finite(match, file.path)
        if POSITIONS in match.arrays and resize:
            (table,), layer = match.arrays[POSITIONS], model.get_layer(POSITIONS)
            if len(table) != layer.input_dim:
                table = resized_positions(table, rows=layer.input_dim, before=tokens_before_patches(model))
                match = replace(match, arrays=match.arrays | {POSITIONS: (table,)})
        return match
    other_stem = match_layers(file, with_any_channels(targets))
    if not other_stem.missing:
        raise WeightsMismatchError(
            f"{file.path.name} holds {backbone} for images of {other_stem.channels} channels; "
            f"the network takes {model.inputs[0].shape[-1]}. Use weights for the same number of channels."
        )
    holds = f"{file.path.name} holds {len(file.layers)} layers with weights"
    needs = f"--backbone is {backbone} ({len(targets)} layers with weights)"
    found = recognize(file)
    if found is not None:
        raise WeightsMismatchError(f"{holds} (looks like {found[0]}); {needs}. Use --backbone {found[0]}.")
    shapes = next(target.shapes for target in targets if target.name == match.missing[0])
    listed = ", ".join(leaf + " " + "×".join(map(str, shape)) for leaf, shape in shapes.items())
    raise WeightsMismatchError(
        f"{holds} that do not match any known backbone; {needs}. Nothing was loaded: the file has no weights of "
        f"matching name and shape for {len(match.missing)} layers, first {match.missing[0]} ({listed})."
    )


def _check_finite(match: Match, path: Path) -> None:
    bad = [name for name, arrays in match.arrays.items() if not all(np.isfinite(array).all() for array in arrays)]
    if bad:
        raise WeightsError(
            f"{path} contains NaN or infinite values in {len(bad)} layers (first: {bad[0]}): "
            "its training diverged or the file is damaged. Use another checkpoint."
        )


def _arranged(saved: SavedLayer, target: Target) -> Arrays | None:
    """The arrays of `saved` in the order of `target`, or None if they do not fit."""
    arrays, shapes = saved.arrays, target.shapes
    if target.parts:
        arrays = _by_path(arrays, target)
    if len(arrays) != len(shapes):
        return None
    if len(arrays) == 1:
        # Keras versions name a single array differently (depthwise_kernel, Variable), and the scale of a channel is
        # (n,) in Keras' own layer but (1, 1, n, 1) as a convolution.
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
    """The arrays of a layer with sub-layers by the paths of `target`; empty if the paths differ."""
    if all(path.rpartition("/")[2].isdigit() for path in arrays):
        saved: dict[str, list[np.ndarray]] = defaultdict(list)
        for path in sorted(arrays, key=lambda path: int(path.rpartition("/")[2])):
            saved[path.rpartition("/")[0]].append(arrays[path])
        ours, theirs = _by_rank(target.parts), _by_rank(saved)
        if {path: len(paths) for path, paths in ours.items()} != {path: len(given) for path, given in theirs.items()}:
            return {}
        return {leaf: array for path in ours for leaf, array in zip(ours[path], theirs[path], strict=True)}
    # Keras omits the name of a model in a layer, and of a single sub-layer: match by the longest ending.
    ours, theirs = _by_rank({path: path for path in target.shapes}), _by_rank(arrays)
    ends = {path: [end for end in theirs if f"/{path}".endswith(f"/{end}")] for path in ours}
    longest = {path: max(found, key=len) for path, found in ends.items() if found}
    one_each = len(set(longest.values())) == len(ours) == len(theirs)
    return {ours[path]: theirs[end] for path, end in longest.items()} if one_each else {}


def _by_rank(paths: Mapping[str, T]) -> dict[str, T]:
    """The same values, with the number of every name in the paths replaced by its rank among its siblings."""
    siblings: dict[tuple[str, str], set[tuple[int, str]]] = defaultdict(set)
    for path in paths:
        for parent, name in _steps(path):
            base, number = _base(name)
            siblings[parent, base].add((number, name))

    def ranked(parent: str, name: str) -> str:
        base, number = _base(name)
        rank = sorted(siblings[parent, base]).index((number, name))
        return f"{base}_{rank}" if rank else base

    return {"/".join(ranked(parent, name) for parent, name in _steps(path)): value for path, value in paths.items()}


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Each name in a path with its parent path."""
    names = path.split("/")
    return (("/".join(names[:i]), name) for i, name in enumerate(names))


def _base(name: str) -> tuple[str, int]:
    base, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return base, int(number or 0)


def _with_composites(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> list[SavedLayer]:
    """The layers of a file, with the sub-layers of a composite layer of `targets` joined to one layer."""
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
    """The layers of each sub-model with everything nested in it, the smallest sub-model first.

    First without layers inside other layers, whose numbers and shapes may agree with those of a wrong layer.
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
    """Match by name, with or without slashes, and fitting arrays; unnamed layers by their rank in their class."""
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
        if base in numbered:  # conv2d_1_2, a numbered name that TensorFlow numbered again, is conv2d (1, 2)
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
    """Match by position in the file; within each class, if the file keeps no order across classes."""
    if any(layer.kind is None for layer in layers):
        return _aligned(layers, targets)
    pairs: Pairs = {}
    for kind in dict.fromkeys(target.kind for target in targets):
        pairs |= _aligned([x for x in layers if x.kind == kind], [x for x in targets if x.kind == kind])
    return pairs


def _aligned(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """Match the first consecutive layers that fit all targets in order; an adapter may precede, a head follow them."""
    for start in range(len(layers) - len(targets) + 1):
        run = layers[start : start + len(targets)]
        if all(_arranged(layer, target) is not None for layer, target in zip(run, targets, strict=True)):
            return {target.name: layer for layer, target in zip(run, targets, strict=True)}
    return {}
