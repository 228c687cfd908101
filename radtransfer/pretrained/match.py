"""Which layer of a file belongs to which layer of a network: planned before anything is assigned.

Names alone are never trusted. Keras numbers unnamed layers by a global count, so that `conv2d_1` of
one file is `conv2d` of another; Keras' own loading by name then loads the wrong layer, or nothing,
without a word. Here a pair needs the same arrays in the same shapes as well, and numbers only tell
the order within a class.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from radtransfer.pretrained.weight_file import SavedLayer, WeightFile

if TYPE_CHECKING:
    import keras

Shape = tuple[int | None, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A layer that wants weights.

    Attributes:
        name: In the network.
        kind: Its class in snake case.
        shapes: Path to shape, in the order of the layer's `weights`; None fits any length. The path is a leaf name,
            such as "kernel", and "query/kernel" where there are layers within the layer.
        parts: Of such a layer, the path of each layer within it to the paths of what that holds, in its own order.
    """

    name: str
    kind: str
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
        arrays: Layer of the network to its arrays, in the order of the layer's `weights`.
        missing: Layers of the network that nothing in the file fits.
        extra: Layers of the file that are not the network's: a head, another sub-model.
        by: What the pairs were found by.
    """

    arrays: dict[str, tuple[np.ndarray, ...]]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    by: Literal["name", "order"]

    @property
    def complete(self) -> bool:
        return not self.missing


def match_layers(file: WeightFile, model: "keras.Model") -> Match:
    """The best plan to give `model` the weights in `file`; look at `complete` before using it.

    Each sub-model of the file is tried, the smallest first, so that a head with layers of the same
    kind is out of the way; first by name, then by the order of the whole sequence of shapes.
    """
    return match_targets(file, weighted_layers(model))


def match_targets(file: WeightFile, targets: Sequence[Target]) -> Match:
    """`match_layers` for targets."""
    whole = _with_composites(file.layers, targets)
    plans = (
        _plan(whole, targets, pairs(layers, targets), by)
        for layers in _sub_models(whole)
        for by, pairs in (("name", _pairs_by_name), ("order", _pairs_by_order))
    )
    best = next(plans)
    for plan in plans:
        if best.complete:
            break
        best = min(best, plan, key=lambda candidate: len(candidate.missing))
    return best


def weighted_layers(model: "keras.Model") -> tuple[Target, ...]:
    """The layers of a flat model that hold weights, in the model's order."""
    return tuple(_target(layer) for layer in model.layers if layer.weights)


def _target(layer: "keras.Layer") -> Target:
    from radtransfer.models.layers import layer_variables, own_variables, sub_layers

    paths = {id(item.variable): path for path, item in layer_variables(layer).items()}
    parts = {
        path: tuple(paths[id(variable)] for variable in own_variables(part)) for path, part in sub_layers(layer).items()
    }
    shapes = {paths[id(weight)]: tuple(weight.shape) for weight in layer.weights}
    held = {path: names for path, names in parts.items() if names}
    return Target(layer.name, _snake_case(type(layer).__name__), shapes, parts=held if any(held) else {})


def with_any_channels(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The same layers, the first convolution taking images of any number of channels."""
    stem = next((target for target in targets if len(_first(target.shapes)) == 4), None)
    if stem is None:
        return tuple(targets)
    leaf = next(iter(stem.shapes))
    *sides, _, filters = stem.shapes[leaf]
    open_stem = replace(stem, shapes=stem.shapes | {leaf: (*sides, None, filters)})
    return tuple(open_stem if target is stem else target for target in targets)


def arranged(saved: SavedLayer, target: Target) -> tuple[np.ndarray, ...] | None:
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
    fits = all(_fits(array.shape, shape) for array, shape in zip(ordered, shapes.values(), strict=True))
    return ordered if fits else None


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
        if distinct and any(arranged(whole, target) is not None for target in composite):
            first, others = id(members[0]), {id(layer) for layer in members[1:]}
            layers = [whole if id(layer) == first else layer for layer in layers if id(layer) not in others]
    return layers


def _fits(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or found == size for found, size in zip(shape, wanted, strict=True)
    )


Pairs = dict[str, SavedLayer]


def _plan(layers: Sequence[SavedLayer], targets: Sequence[Target], pairs: Pairs, by: Literal["name", "order"]) -> Match:
    used = {id(saved) for saved in pairs.values()}
    found = [target for target in targets if target.name in pairs]
    return Match(
        arrays={target.name: arranged(pairs[target.name], target) for target in found},
        missing=tuple(target.name for target in targets if target.name not in pairs),
        extra=tuple(saved.label for saved in layers if id(saved) not in used),
        by=by,
    )


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
    """Pairs of the same canonical name and fitting arrays; unnamed layers by their rank in the class."""
    numbered: dict[str, list[tuple[int, Target]]] = defaultdict(list)
    named: dict[str, Target] = {}
    for target in targets:
        if target.number is None:
            named[_canonical(target.name)] = target
        else:
            numbered[target.kind].append((target.number, target))
    pairs: Pairs = {}
    counted: dict[str, list[tuple[tuple[int, ...], SavedLayer]]] = defaultdict(list)
    for layer in layers:
        base, numbers = _split_number(layer.name, numbered)
        target = named.get(next((name for name in _spellings(layer.name) if name in named), ""))
        if base is not None:
            counted[base].append((numbers, layer))
        elif target is not None and target.name not in pairs and arranged(layer, target) is not None:
            pairs[target.name] = layer
    for kind, members in numbered.items():
        in_order = [target for _, target in sorted(members, key=lambda member: member[0])]
        pairs |= _aligned([layer for _, layer in sorted(counted[kind], key=lambda item: item[0])], in_order)
    return pairs


def _pairs_by_order(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """Pairs of the same place in the sequence; within each class, where the file keeps no other order."""
    if any(layer.kind is None for layer in layers):
        return _aligned(layers, targets)
    pairs: Pairs = {}
    for kind in dict.fromkeys(target.kind for target in targets):
        pairs |= _aligned(
            [layer for layer in layers if layer.kind == kind],
            [target for target in targets if target.kind == kind],
        )
    return pairs


def _aligned(layers: Sequence[SavedLayer], targets: Sequence[Target]) -> Pairs:
    """The first unbroken run of layers that fits all targets in order, or nothing.

    Layers of a head come after the backbone's, those of an adapter in front before them.
    """
    for start in range(len(layers) - len(targets) + 1):
        run = layers[start : start + len(targets)]
        if all(arranged(layer, target) is not None for layer, target in zip(run, targets, strict=True)):
            return {target.name: layer for layer, target in zip(run, targets, strict=True)}
    return {}


def _split_number(name: str, kinds: dict) -> tuple[str | None, tuple[int, ...]]:
    """`conv2d_1_2` is ("conv2d", (1, 2)) if conv2d is among `kinds`, else (None, ())."""
    base, numbers = re.fullmatch(r"(.*?)((?:_\d+)*)", name.rpartition("/")[2]).groups()
    if base not in kinds:
        return None, ()
    return base, tuple(int(number) for number in numbers.split("_")[1:])


def _spellings(name: str) -> Iterator[str]:
    """The canonical name, then without the scopes that TensorFlow put in front of it."""
    pieces = name.split("/")
    for start in range(len(pieces)):
        yield _canonical("/".join(pieces[start:]))


def _canonical(name: str) -> str:
    return name.replace("/", "_")


def _snake_case(class_name: str) -> str:
    """As Keras turns a class into a layer's name: BatchNormalization is batch_normalization."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", class_name)).lower()


def _first(shapes: dict[str, Shape]) -> Shape:
    return next(iter(shapes.values()))
