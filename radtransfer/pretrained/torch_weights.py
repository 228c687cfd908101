"""Reads PyTorch files as the weights of a backbone, layer by layer, complete or refused with the reason.

The layers of both stand side by side here, in the order of `torchvision.models`: resnet, densenet, inception. Vision
transformers are in `vit_weights`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.pretrained.match import Arrays, Target, weighted_layers
from radtransfer.pretrained.read import SavedLayer, WeightFile
from radtransfer.pretrained.torch_file import Tensors, read_pytorch
from radtransfer.pretrained.vit_weights import find_vit, vit_arrays
from radtransfer.process import keras_defaults

_TORCH_EPSILON = 1e-5
"""Epsilon of batch norm in PyTorch's ResNet and DenseNet."""

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

_NOTES = {
    "resnet50_v1_5": "PyTorch has the strides in the 3×3 convolutions, Keras' resnet50 in the 1×1, so the network is "
    "resnet50_v1_5.",
    "resnet50": "The convolutions have biases as in Keras' ResNet50, so its strides, in the 1×1 convolutions, are "
    "assumed.",
    "inception_v3_torch": "Batch norm has a scale and average pools count the padding, as in PyTorch: the network is "
    "inception_v3_torch.",
}
_DIFFERENCES = {
    (
        "resnet50_v1_5",
        "resnet50",
    ): "PyTorch has the strides in the 3×3 convolutions, Keras' resnet50 in the 1×1, so the "
    "same weights would give other features. ",
    ("inception_v3_torch", "inception_v3"): "PyTorch's batch norm has a scale that Keras' inception_v3 lacks, and its "
    "average pools count the padding. ",
}
"""The difference between the network that was found and the requested one."""

Module = dict[str, np.ndarray]
"""Variable name to array."""


class TorchLayer(NamedTuple):
    """The names of a layer in torchvision, before ".weight", and in our network."""

    module: str
    layer: str
    kind: Literal["conv", "norm"]


@keras_defaults()
def read_torch_weights(path: Path, requested: str | None = None) -> WeightFile:
    """The weights of the backbone in a PyTorch file, by our names of its layers.

    Raises:
        WeightsError: It cannot be read, or has NaN or infinite values.
        WeightsMismatchError: The network is unknown, incomplete, or is not `requested`.
    """
    tensors = read_pytorch(path)
    vit = find_vit(path, tensors)
    if vit is not None:
        name, options, left_out, notes = vit.spec.name, vit.options, vit.left_out, vit.notes
        if requested not in (None, name):
            raise WeightsMismatchError(f"{path} holds {name}; --backbone is {requested}. Use --backbone {name}.")
        layers = vit_arrays(path, vit)
    else:
        from keras.layers import BatchNormalization

        from radtransfer.models.architecture import build_architecture

        name, options = torch_backbone(path, tensors, requested), {}
        model = build_architecture(name, image_size=None, pooling=None)
        epsilon = next(layer.epsilon for layer in model.layers if isinstance(layer, BatchNormalization))
        targets = {target.name: target for target in weighted_layers(model)}
        found, notes, left_out = convert_torch(path, tensors, name, tuple(targets.values()), epsilon)
        layers = {layer: dict(zip(targets[layer].shapes, arrays, strict=True)) for layer, arrays in found.items()}
    return WeightFile(
        path,
        "pytorch",
        tuple(SavedLayer(layer, arrays) for layer, arrays in layers.items()),
        backbone=name,
        options=options,
        preprocessing=vit.preprocessing if vit else None,
        left_out=left_out,
        notes=notes,
    )


def torch_backbone(path: Path, tensors: Tensors, requested: str | None) -> str:
    """The network in the state dict of `path`; raises WeightsMismatchError if it is unknown or not `requested`."""
    modules = _modules(tensors)
    matched = {name: _match_modules(modules, torch_layers(name)) for name in TORCH_BACKBONES}
    found = next((name for name, by_layer in matched.items() if by_layer is not None), None)
    if found in ("resnet50", "resnet50_v1_5"):
        # Keras' ResNet has biases beside batch norm, PyTorch's has none.
        found = "resnet50" if "bias" in matched[found]["conv1_conv"] else "resnet50_v1_5"
    if found is None:
        raise WeightsMismatchError(
            f"{path} holds {len(modules)} modules that do not match ResNet50, DenseNet121 or InceptionV3, "
            f"nor a vision transformer (first: {', '.join(list(modules)[:3])}). Only these can be converted."
        )
    if requested not in (None, found):
        difference = _DIFFERENCES.get((found, requested), "")
        raise WeightsMismatchError(
            f"{path} holds {found}; --backbone is {requested}. {difference}Use --backbone {found}."
        )
    return found


def convert_torch(
    path: Path, tensors: Tensors, backbone: str, targets: Sequence[Target], epsilon: float
) -> tuple[dict[str, Arrays], tuple[str, ...], tuple[str, ...]]:
    """Convert the arrays of a state dict for the layers of one of our networks.

    Returns:
        Layer name to its arrays; notes on changed values; the names of modules that do not belong to the backbone, such
        as a head or auxiliary outputs.

    Raises:
        WeightsMismatchError: A module is missing or has another shape.
        WeightsError: Values are NaN, infinite, or integers of a quantized network.
    """
    modules, pairs = _modules(tensors), torch_layers(backbone)
    matched = _match_modules(modules, pairs)
    shapes = {target.name: target.shapes for target in targets}
    notes = [_NOTES[backbone]] if backbone in _NOTES else []
    added = np.float32(_TORCH_EPSILON - epsilon)  # keeps variance + epsilon unchanged
    changes = backbone in ("resnet50", "densenet121")
    if changes:
        notes += [f"Variances of batch norm changed by {added:.0e}, for an epsilon of {_TORCH_EPSILON:g} in PyTorch."]
    layers = {}
    for pair in pairs:
        module, expected = matched[pair.layer], shapes[pair.layer]
        for name, array in module.items():
            if array.dtype.kind != "f":
                raise WeightsError(
                    f"{path} holds integers ({array.dtype}) in {pair.module}.{name}, as in a quantized network. "
                    "Convert the float network instead."
                )
            if not np.isfinite(array).all():
                raise WeightsError(
                    f"{path} contains NaN or infinite values in {pair.module}.{name}: its training diverged or the "
                    "file is damaged. Use another checkpoint."
                )
        arrays = _keras_arrays(module, expected, pair.kind)
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise WeightsMismatchError(
                    f"{path} holds a different network: {pair.module} has a {name} of shape {arrays[name].shape}, "
                    f"but {pair.layer} needs {shape}."
                )
        if changes and pair.kind == "norm":
            arrays["moving_variance"] = np.maximum(arrays["moving_variance"] + added, 0)
        layers[pair.layer] = tuple(arrays[name] for name in expected)
    used = {id(module) for module in matched.values()}
    rest = {name: module for name, module in modules.items() if id(module) not in used}
    deeper = [name for name, module in rest.items() if _kind(module) and "Aux" not in name]
    if deeper:  # a head has no convolutions
        raise WeightsMismatchError(
            f"{path} holds {len(deeper)} more convolutions and batch norms than {backbone} "
            f"(first: {deeper[0]}): it is a deeper network, which cannot be converted."
        )
    return layers, tuple(notes), tuple(rest)


def torch_layers(backbone: str) -> tuple[TorchLayer, ...]:
    return tuple(TORCH_BACKBONES[backbone]())


def _modules(tensors: Tensors) -> dict[str, Module]:
    """The tensors by module, in the order of the file, without batch counters."""
    modules: dict[str, Module] = defaultdict(dict)
    for name, array in tensors.items():
        # DenseNet before torchvision 0.2: denselayer1.norm.1.
        name = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)", r"\1.\2\3", name)
        module, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            modules[module][leaf] = array
    return dict(modules)


def _match_modules(modules: Mapping[str, Module], pairs: Sequence[TorchLayer]) -> dict[str, Module] | None:
    """Our layer to its module: by torchvision's names after any prefix, else by the order of all modules."""
    first = pairs[0].module
    for name in modules:
        if name == first or name.endswith(f".{first}"):
            prefix = name.removesuffix(first)
            if all(prefix + pair.module in modules for pair in pairs):
                return {pair.layer: modules[prefix + pair.module] for pair in pairs}
    ends = {"conv1": (64, 2048), "features.conv0": (64, 1024), "Conv2d_1a_3x3.conv": (32, 192)}[first]
    weighted = [module for name, module in modules.items() if _kind(module) and "Aux" not in name]
    for start in range(len(weighted) - len(pairs) + 1):
        run = weighted[start : start + len(pairs)]
        kinds_fit = all(_kind(module) == pair.kind for module, pair in zip(run, pairs, strict=True))
        if kinds_fit and (run[0]["weight"].shape[0], run[-1]["weight"].shape[0]) == ends:
            return {pair.layer: module for module, pair in zip(run, pairs, strict=True)}
    return None


def _kind(module: Module) -> str | None:
    if "running_mean" in module:
        return "norm"
    return "conv" if "weight" in module and module["weight"].ndim == 4 else None


def _keras_arrays(module: Module, shapes: Mapping[str, tuple], kind: str) -> Module:
    """The arrays of a PyTorch module by their names in Keras."""
    if kind == "conv":
        kernel = np.transpose(module["weight"], (2, 3, 1, 0)) if module["weight"].ndim == 4 else module["weight"]
        bias = {"bias": module.get("bias", np.zeros(kernel.shape[-1], np.float32))} if "bias" in shapes else {}
        return {"kernel": kernel} | bias
    missing = [_NORM[leaf] for leaf in shapes if _NORM[leaf] not in module]
    if missing:
        raise WeightsMismatchError(f"A batch norm in the file lacks {', '.join(missing)}. Save a complete state dict.")
    return {leaf: module[_NORM[leaf]] for leaf in shapes}


def _resnet50() -> Iterator[TorchLayer]:
    yield TorchLayer("conv1", "conv1_conv", "conv")
    yield TorchLayer("bn1", "conv1_bn", "norm")
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            module, layer = f"layer{stage}.{block}", f"conv{stage + 1}_block{block + 1}"
            for number in (1, 2, 3):
                yield TorchLayer(f"{module}.conv{number}", f"{layer}_{number}_conv", "conv")
                yield TorchLayer(f"{module}.bn{number}", f"{layer}_{number}_bn", "norm")
            if block == 0:
                yield TorchLayer(f"{module}.downsample.0", f"{layer}_0_conv", "conv")
                yield TorchLayer(f"{module}.downsample.1", f"{layer}_0_bn", "norm")


def _densenet121() -> Iterator[TorchLayer]:
    yield TorchLayer("features.conv0", "conv1_conv", "conv")
    yield TorchLayer("features.norm0", "conv1_bn", "norm")
    for stage, blocks in enumerate((6, 12, 24, 16), start=1):
        for block in range(1, blocks + 1):
            module, layer = f"features.denseblock{stage}.denselayer{block}", f"conv{stage + 1}_block{block}"
            for number in (1, 2):
                yield TorchLayer(f"{module}.norm{number}", f"{layer}_{number - 1}_bn", "norm")
                yield TorchLayer(f"{module}.conv{number}", f"{layer}_{number}_conv", "conv")
        if stage < 4:
            yield TorchLayer(f"features.transition{stage}.norm", f"pool{stage + 1}_bn", "norm")
            yield TorchLayer(f"features.transition{stage}.conv", f"pool{stage + 1}_conv", "conv")
    yield TorchLayer("features.norm5", "bn", "norm")


_INCEPTION_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
_INCEPTION_A = ("1x1", "5x5_1", "5x5_2", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", "_pool")
_INCEPTION_B = ("3x3", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
_INCEPTION_C = ("1x1", "7x7_1", "7x7_2", "7x7_3", *(f"7x7dbl_{number}" for number in range(1, 6)), "_pool")
_INCEPTION_D = ("3x3_1", "3x3_2", *(f"7x7x3_{number}" for number in range(1, 5)))
_INCEPTION_E = ("1x1", "3x3_1", "3x3_2a", "3x3_2b", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3a", "3x3dbl_3b", "_pool")
_INCEPTION_BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), _INCEPTION_A),
    "6a": _INCEPTION_B,
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _INCEPTION_C),
    "7a": _INCEPTION_D,
    **dict.fromkeys(("7b", "7c"), _INCEPTION_E),
}


def _inception_v3() -> Iterator[TorchLayer]:
    pairs = [(f"Conv2d_{name}", f"stem_{name.partition('_')[0]}") for name in _INCEPTION_STEM]
    for number, (block, branches) in enumerate(_INCEPTION_BLOCKS.items()):
        pairs += [(f"Mixed_{block}.branch{branch}", f"mixed{number}_branch{branch}") for branch in branches]
    for module, layer in pairs:
        yield TorchLayer(f"{module}.conv", f"{layer}_conv", "conv")
        yield TorchLayer(f"{module}.bn", f"{layer}_bn", "norm")


TORCH_BACKBONES = {
    "resnet50_v1_5": _resnet50,
    "resnet50": _resnet50,
    "densenet121": _densenet121,
    "inception_v3_torch": _inception_v3,
}
"""Network to its pairs of layers; `resnet50` is for files made from Keras' own weights."""
