"""`.weights.h5` of Keras 3 and tf_keras.

    layers/
        conv2d/vars/0, 1 …              group: class and count; attribute name of vars: the layer's name
        functional/layers/conv2d/vars   a nested model
        time_distributed/layer/vars     a layer within a layer
    optimizer/, metrics/, vars/         not read

tf_keras writes no names, and before 2.14 says `_layer_checkpoint_dependencies` for `layers`. The
count is the layer's rank within its class, in the order of `model.layers`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.container import container_of
from radtransfer.weight_formats.hdf5 import Entry, read_layers, text
from radtransfer.weight_formats.weight_file import SavedLayer, WeightFile, WeightFormat

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NOT_THE_MODEL = ("optimizer", "metrics")
_DEEPEST = 32


def recognizes_weights_h5(path: Path) -> bool:
    if container_of(path) != "hdf5":
        return False
    with h5py.File(path) as file:
        return holds_weights(file)


def read_weights_h5(path: Path) -> WeightFile:
    with h5py.File(path) as file:
        return WeightFile(path, "weights_h5", layers_of(file))


def holds_weights(file: h5py.File) -> bool:
    return any(name in file for name in _CONTAINERS)


def layers_of(file: h5py.File) -> tuple[SavedLayer, ...]:
    """The layers of an open file.

    Raises:
        WeightsError: Groups are nested without end.
    """
    return read_layers(list(_entries(file, (), named="name" in _own(file).attrs)))


def _entries(
    group: h5py.Group,
    path: tuple[str, ...],
    names: tuple[str, ...] = (),
    *,
    named: bool,
    layer: bool = False,
    within: bool = False,
    depth: int = 0,
) -> Iterator[Entry]:
    """The layers in `group`.

    Args:
        group: Of a layer, a model or a list of layers.
        path: Groups that it stands in, its own the last, but for those that hold the layers of a model.
        names: Names of the models and layers that it stands in, its own the last.
        named: Whether the file keeps the name of every layer.
        layer: Whether it is a layer, and not the model itself or a list.
        within: Whether it stands in another layer.
        depth: How many groups it stands in.
    """
    if depth > _DEEPEST:
        raise WeightsError("nests its groups without end.")
    for key in sorted(group, key=_natural):
        item = group[key]
        if not isinstance(item, h5py.Group) or (not path and key in _NOT_THE_MODEL):
            continue
        state = {"named": named, "depth": depth + 1}
        if key == "vars":
            leaves = {leaf: item[leaf] for leaf in sorted(item, key=_natural)}
            if path and leaves:
                part, kind = "/".join(path[:-1]), re.sub(r"_\d+$", "", path[-1])
                yield SavedLayer(names[-1], {}, part=part, kind=kind, outer=names[:-1], within=within), leaves
        elif key in _CONTAINERS:
            yield from _entries(item, path, names, **state)
        elif named and "vars" not in item:  # a list of layers in a layer
            yield from _entries(item, (*path, key), names, layer=layer, within=within, **state)
        else:
            # Without a name, the group still tells one layer from another.
            name = text(_own(item).attrs.get("name", "")) or key
            yield from _entries(item, (*path, key), (*names, name), layer=True, within=layer, **state)


def _own(group: h5py.Group) -> h5py.Group:
    """Where a layer keeps its own weights and its name; the group itself, where it keeps none."""
    own = group.get("vars")
    return own if isinstance(own, h5py.Group) else group


def _natural(name: str) -> tuple[str, int]:
    """Sorts conv2d, conv2d_2, conv2d_10 by count, as no text order does."""
    stem, count = re.fullmatch(r"(.*?)_?(\d*)", name).groups()
    return stem, int(count or 0)


WEIGHTS_H5 = WeightFormat(
    name="weights_h5",
    description=".weights.h5 of Keras 3 and tf_keras",
    recognizes=recognizes_weights_h5,
    read=read_weights_h5,
)
