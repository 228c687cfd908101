"""The weights of a PyTorch file, arranged for one of our networks: complete, or refused with the reason."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.pretrained.torch_layers import TORCH_BACKBONES, TorchLayer, current_name, torch_layers
from radtransfer.weight_formats.matching import Target
from radtransfer.weight_formats.pytorch import StateDict

TORCH_EPSILON = 1e-5
"""Of batch norm in PyTorch's ResNet and DenseNet."""

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

Module = dict[str, np.ndarray]
"""Leaf name to array."""


@dataclass(frozen=True)
class Converted:
    """What became of a file.

    Attributes:
        backbone: Our network.
        layers: Layer name to its arrays, in the order of the layer's `weights`.
        notes: What was changed, one sentence each.
        left_out: Modules that are not the backbone's: a head, auxiliary outputs.
    """

    backbone: str
    layers: dict[str, tuple[np.ndarray, ...]] = field(repr=False)
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def torch_backbone(file: StateDict, asked: str | None) -> str:
    """Which of our networks `file` holds.

    Args:
        file: The state dict.
        asked: The network that the user named, if any.

    Raises:
        WeightsMismatchError: None of those that can be converted, or not the one that was asked for.
    """
    modules = _modules(file)
    found = next((name for name in TORCH_BACKBONES if _placed(modules, torch_layers(name)) is not None), None)
    if found in ("resnet50", "resnet50_v1_5"):
        stem = _placed(modules, torch_layers(found))["conv1_conv"]
        # PyTorch's own ResNet has no biases beside batch norm; Keras' has.
        found = "resnet50" if "bias" in stem else "resnet50_v1_5"
    if found is None:
        raise WeightsMismatchError(
            f"{file.path} holds {len(modules)} modules that are not those of ResNet50, DenseNet121 or InceptionV3 as "
            f"torchvision builds them (first: {', '.join(list(modules)[:3])}). Only these can be converted."
        )
    if asked not in (None, found):
        raise WeightsMismatchError(f"{file.path} holds {found}; --backbone is {asked}. {_difference(found, asked)}")
    return found


def convert_torch(file: StateDict, backbone: str, targets: Sequence[Target], epsilon: float) -> Converted:
    """The arrays of `file` for the layers `targets` of `backbone`.

    Args:
        file: The state dict.
        backbone: From `torch_backbone`.
        targets: The layers of our network.
        epsilon: Of its batch norm.

    Raises:
        WeightsMismatchError: A module is missing or has another shape.
        WeightsError: Numbers that are not finite, or whole numbers of a quantised network.
    """
    modules, pairs = _modules(file), torch_layers(backbone)
    placed = _placed(modules, pairs)
    shapes = {target.name: target.shapes for target in targets}
    layers = {}
    for pair in pairs:
        module = placed[pair.layer]
        _check_numbers(file, pair, module)
        arrays = _convolution(module, shapes[pair.layer]) if pair.kind == "conv" else _norm(module, shapes[pair.layer])
        _check_shapes(file, pair, arrays, shapes[pair.layer])
        layers[pair.layer] = arrays
    notes = list(_NOTES.get(backbone, ()))
    if backbone in ("resnet50", "densenet121"):
        layers, note = _with_epsilon(layers, shapes, TORCH_EPSILON - epsilon)
        notes.append(note)
    left_out = _left_out(file, modules, placed)
    return Converted(backbone, layers, tuple(notes), left_out)


def _left_out(file: StateDict, modules: Mapping[str, Module], placed: Mapping[str, Module]) -> tuple[str, ...]:
    """What is not the backbone's: heads. Convolutions beside it would be a deeper network's."""
    used = {id(module) for module in placed.values()}
    rest = {name: module for name, module in modules.items() if id(module) not in used}
    deeper = [name for name, module in rest.items() if _kind(module) and "Aux" not in name]
    if deeper:
        raise WeightsMismatchError(
            f"{file.path} holds {len(deeper)} more convolutions and batch norms than the network has "
            f"(first: {deeper[0]}): it is a deeper one, which cannot be converted."
        )
    return tuple(rest)


_NOTES = {
    "resnet50_v1_5": (
        "The strides stand in the 3×3 convolutions, as in PyTorch; Keras' resnet50 has them in the 1×1, so the "
        "network is resnet50_v1_5.",
    ),
    "resnet50": (
        "The convolutions have biases, as in Keras' ResNet50: its strides, in the 1×1 convolutions, are assumed.",
    ),
    "inception_v3_torch": (
        "Batch norm has a scale and average pools count the padding, as in PyTorch: the network is inception_v3_torch.",
    ),
}


def _difference(found: str, asked: str) -> str:
    if (found, asked) == ("resnet50_v1_5", "resnet50"):
        return (
            "PyTorch strides in the 3×3 convolutions, Keras' resnet50 in the 1×1, so the same weights would give other "
            "features. Use --backbone resnet50_v1_5."
        )
    if (found, asked) == ("inception_v3_torch", "inception_v3"):
        return (
            "PyTorch's batch norm has a scale that Keras' inception_v3 lacks, and its average pools count the padding. "
            "Use --backbone inception_v3_torch."
        )
    return f"Use --backbone {found}."


def _modules(file: StateDict) -> dict[str, Module]:
    """The tensors by module, in the file's order; counters of batches are no weights."""
    modules: dict[str, Module] = defaultdict(dict)
    for name, array in file.tensors.items():
        module, _, leaf = current_name(name).rpartition(".")
        if leaf != "num_batches_tracked":
            modules[module][leaf] = array
    return dict(modules)


def _placed(modules: Mapping[str, Module], pairs: Sequence[TorchLayer]) -> dict[str, Module] | None:
    """Our layer to its module: by torchvision's names behind any prefix, else by the order of the whole sequence."""
    first = pairs[0].module
    for name in modules:
        if name == first or name.endswith(f".{first}"):
            prefix = name.removesuffix(first)
            if all(prefix + pair.module in modules for pair in pairs):
                return {pair.layer: modules[prefix + pair.module] for pair in pairs}
    weighted = [module for name, module in modules.items() if _kind(module) and "Aux" not in name]
    for start in range(len(weighted) - len(pairs) + 1):
        run = weighted[start : start + len(pairs)]
        if all(_kind(module) == pair.kind for module, pair in zip(run, pairs, strict=True)) and _chained(run, pairs):
            return {pair.layer: module for module, pair in zip(run, pairs, strict=True)}
    return None


def _kind(module: Module) -> str | None:
    if "running_mean" in module:
        return "norm"
    return "conv" if "weight" in module and module["weight"].ndim == 4 else None


def _chained(run: Sequence[Module], pairs: Sequence[TorchLayer]) -> bool:
    """Whether the first and last modules have the widths of the network, and each kernel its size."""
    widths = [module["weight"].shape[0] for module in run]
    ends = {"conv1": (64, 2048), "features.conv0": (64, 1024), "Conv2d_1a_3x3.conv": (32, 192)}[pairs[0].module]
    return (widths[0], widths[-1]) == ends


def _convolution(module: Module, shapes: Mapping[str, tuple]) -> tuple[np.ndarray, ...]:
    kernel = np.transpose(module["weight"], (2, 3, 1, 0)) if module["weight"].ndim == 4 else module["weight"]
    if "bias" in shapes:
        return kernel, module.get("bias", np.zeros(kernel.shape[-1], np.float32))
    return (kernel,)


def _norm(module: Module, shapes: Mapping[str, tuple]) -> tuple[np.ndarray, ...]:
    missing = [_NORM[leaf] for leaf in shapes if _NORM[leaf] not in module]
    if missing:
        raise WeightsMismatchError(f"A batch norm of the file lacks {', '.join(missing)}; all its numbers are needed.")
    return tuple(module[_NORM[leaf]] for leaf in shapes)


def _check_numbers(file: StateDict, pair: TorchLayer, module: Module) -> None:
    for leaf, array in module.items():
        if array.dtype.kind != "f":
            raise WeightsError(
                f"{file.path} holds whole numbers ({array.dtype}) in {pair.module}.{leaf}, as a quantised network. "
                "Convert the float network instead."
            )
        if not np.isfinite(array).all():
            raise WeightsError(
                f"{file.path} holds values that are not finite in {pair.module}.{leaf}: its training diverged or the "
                "file is damaged. Use another checkpoint."
            )


def _check_shapes(file: StateDict, pair: TorchLayer, arrays: Sequence[np.ndarray], shapes: Mapping[str, tuple]) -> None:
    for array, (leaf, shape) in zip(arrays, shapes.items(), strict=True):
        if array.shape != shape:
            raise WeightsMismatchError(
                f"{file.path} holds another network: {pair.module} gives a {leaf} of shape {array.shape}, "
                f"{shape} is needed for {pair.layer}."
            )


def _with_epsilon(layers: dict, shapes: Mapping[str, Mapping], difference: float) -> tuple[dict, str]:
    """The variances so that variance + epsilon stays what it was."""
    changed = {}
    for name, arrays in layers.items():
        place = list(shapes[name]).index("moving_variance") if "moving_variance" in shapes[name] else None
        changed[name] = tuple(
            np.maximum(array + np.float32(difference), 0) if number == place else array
            for number, array in enumerate(arrays)
        )
    return (
        changed,
        f"Variances of batch norm changed by {difference:.0e}, for an epsilon of {TORCH_EPSILON:g} in PyTorch.",
    )
