"""What `radtransfer weights` does with one file: convert it, verify it, say what it holds.

The weights of a PyTorch file are arranged for one of our networks, completely, or refused with the reason. The layers
of both stand here side by side, in the order in which PyTorch defines and stores them, as in `torchvision.models`:
resnet, densenet, inception.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from radtransfer.errors import ConfigError, WeightsError, WeightsMismatchError
from radtransfer.files import atomic_write
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.match import (
    Arrays,
    Match,
    Target,
    assign,
    match_layers,
    match_network,
    recognize,
    weighted_layers,
)
from radtransfer.pretrained.read import WeightFile, read_weight_file, sha256_of
from radtransfer.pretrained.saved_model import is_saved_model, read_saved_model
from radtransfer.pretrained.source import WeightSource, card_of_file, weights_cards
from radtransfer.pretrained.torch_file import Tensors, is_pytorch, read_pytorch
from radtransfer.process import keras_defaults, require_keras

_SUFFIX = ".weights.h5"

_REASONS = {
    "run": "The run that made the file recorded it.",
    "assumed": "No card in the manifest; it is the backbone's own mode. --preprocessing overrides it.",
}

_TORCH_EPSILON = 1e-5
"""Of batch norm in PyTorch's ResNet and DenseNet."""

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

_NOTES = {
    "resnet50_v1_5": "The strides stand in the 3×3 convolutions, as in PyTorch; Keras' resnet50 has them in the 1×1, "
    "so the network is resnet50_v1_5.",
    "resnet50": "The convolutions have biases, as in Keras' ResNet50: its strides, in the 1×1 convolutions, are "
    "assumed.",
    "inception_v3_torch": "Batch norm has a scale and average pools count the padding, as in PyTorch: the network is "
    "inception_v3_torch.",
}
_DIFFERENCES = {
    ("resnet50_v1_5", "resnet50"): "PyTorch strides in the 3×3 convolutions, Keras' resnet50 in the 1×1, so the same "
    "weights would give other features. ",
    ("inception_v3_torch", "inception_v3"): "PyTorch's batch norm has a scale that Keras' inception_v3 lacks, and its "
    "average pools count the padding. ",
}
"""Between the network that was found and the one that was asked for."""

Module = dict[str, np.ndarray]
"""Leaf name to array."""


class TorchLayer(NamedTuple):
    """One pair: name in torchvision, before ".weight", and in our network."""

    module: str
    layer: str
    kind: Literal["conv", "norm"]


def convert_weights(
    source: Path, out: Path, *, backbone: str | None = None, overwrite: bool = False, ignore_lambda: bool = False
) -> dict[str, Any]:
    """Write the weights of `source` to `out`, a `.weights.h5` file, and read them back.

    `source` is a PyTorch state dict (`.pt`, `.pth`, `.safetensors`), a SavedModel folder, or any Keras file; without
    `backbone` its network is recognized.

    Returns:
        As in JSON. "layers" and "parameters" are those of the backbone, read back and found equal; "notes" says what
        differs from the source, "left_out" which parts are not the backbone's.

    Raises:
        ConfigError: `out` exists or is called otherwise.
        WeightsError: `source` cannot be read, or what was written differs.
        WeightsMismatchError: It is of no known network, or of another than `backbone`.
    """
    if not out.name.endswith(_SUFFIX):
        raise ConfigError(
            f"The converted weights are a Keras file: expected a name that ends with {_SUFFIX}. Received: {out}."
        )
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another name.")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent}.")
    if backbone is not None:
        BACKBONES.check(backbone)
    tensors = read_pytorch(source) if source.is_file() and is_pytorch(source) else None
    file = None
    if tensors is None and not source.is_dir():
        file = read_weight_file(source, ignore_lambda=ignore_lambda)
    elif tensors is None:
        if not is_saved_model(source):
            raise WeightsError(f"{source} is a folder without saved_model.pb and variables/: no SavedModel.")
        require_keras()
        file = read_saved_model(source)
    with keras_defaults():
        from keras.layers import BatchNormalization

        from radtransfer.models.architecture import build_architecture

        if file is not None:
            name, match = match_network(file, backbone)
            layers, notes, left_out = match.arrays, (file.lambda_note,) if file.lambdas else (), match.extra
        else:
            name = torch_backbone(source, tensors, backbone)
        model = build_architecture(name, image_size=None, pooling=None)
        targets = weighted_layers(model)
        if tensors is not None:
            epsilon = next(layer.epsilon for layer in model.layers if isinstance(layer, BatchNormalization))
            layers, notes, left_out = convert_torch(source, tensors, name, targets, epsilon)
        assign(model, layers)
        with atomic_write(out) as part:
            model.save_weights(part)
            written = match_layers(read_weight_file(part), targets)
            if written.missing or not all(
                all(map(np.array_equal, written.arrays[name], arrays)) for name, arrays in layers.items()
            ):
                raise WeightsError("The written file does not hold what was read. Nothing was kept; is the disk full?")
    return {
        "source": str(source),
        "out": str(out),
        "backbone": name,
        "layers": len(layers),
        "parameters": model.count_params(),
        "notes": notes,
        "left_out": left_out,
        "sha256": sha256_of(out),
    }


def verify_file(path: Path, *, ignore_lambda: bool = False) -> dict[str, Any]:
    """Read all of `path` and compare its hash with those in the manifest.

    Returns:
        As in JSON. "card" is the card that the file is of, found "by" its "hash", or by "name" only where no hash is
        known; "verdict" is "published" where a published hash is the file's, "unknown" where none could be compared.

    Raises:
        WeightsError: It cannot be read, holds numbers that are not finite, or has the name of a published file but
            not its hash.
    """
    if path.is_file() and is_pytorch(path):
        arrays = {name: array for name, array in read_pytorch(path).items() if array.dtype.kind == "f"}
    else:
        layers = read_weight_file(path, ignore_lambda=ignore_lambda).layers
        arrays = {f"{layer.label}/{leaf}": array for layer in layers for leaf, array in layer.arrays.items()}
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"{path} holds values that are not finite in {len(bad)} arrays (first: {bad[0]}).")
    sha256, named = sha256_of(path), card_of_file(path)
    with path.open("rb") as handle:
        md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    known = next((card for card in weights_cards().values() if {md5, sha256} & set(card.hashes)), None)
    if known is None and named is not None and named.hashes:
        raise WeightsError(
            f"{path} has the name of {named.name}, but not its published hash: it was changed or damaged. "
            f"Get it again from {named.origin}, or rename it if it is your own."
        )
    card = known or named
    return {
        "file": str(path),
        "size": path.stat().st_size,
        "sha256": sha256,
        "arrays": len(arrays),
        "parameters": sum(array.size for array in arrays.values()),
        "card": card.name if card else None,
        "by": "hash" if known else "name" if named else None,
        "verdict": "published" if known else "unknown",
    }


def inspect_weights(source: WeightSource, file: WeightFile) -> dict[str, Any]:
    """What `file`, which was read from `source`, holds, as in JSON. Builds networks to compare it with.

    "backbone" is the one whose every layer finds its weights here, None if there is none; "not_finite" has, for each
    variable with such values, its name and how many are NaN and how many infinite.
    """
    not_finite = []
    for layer in file.layers:
        # What Keras calls the arrays that some files only number, where the layer's kind tells.
        names = ()
        if layer.kind == "batch_normalization" and len(layer.arrays) == 4:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
        elif layer.kind is not None and re.search("conv.*d$|dense$", layer.kind) and "separable" not in layer.kind:
            names = ("kernel", "bias")
        for leaf, array in layer.arrays.items():
            nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            if nan or infinite:
                name = f"{layer.label}/{names[int(leaf)] if leaf.isdigit() and int(leaf) < len(names) else leaf}"
                not_finite.append({"variable": name, "nan": nan, "infinite": infinite})
    found = recognize(file)
    backbone, match = found or (None, Match({}, (), (), None))
    mode, sure = source.preprocessing_for(backbone) if found else (None, None)
    card = source.card if sure == "card" else None
    return {
        "file": str(file.path),
        "format": file.format,
        "keras_version": file.keras_version,
        "model_name": file.model_name,
        "layers": len(file.layers),
        "parameters": file.parameters,
        "sha256": sha256_of(file.path),
        "not_finite": not_finite,
        "lambdas": file.lambdas,
        "backbone": backbone,
        "backbone_layers": len(match.arrays) if found else None,
        "channels": match.channels if found else None,
        "matched_by": match.by,
        "matched": len(match.arrays) if found else None,
        "missing": match.missing,
        "extra": match.extra,
        "card": card and card.name,
        "preprocessing": mode,
        "preprocessing_sure": sure,
        "preprocessing_certainty": card and card.certainty,
        "reason": card.reason if card else _REASONS.get(sure),
        "terms": card and card.terms,
    }


def torch_backbone(path: Path, tensors: Tensors, asked: str | None) -> str:
    """The network in the state dict of `path`; raises WeightsMismatchError if it is unknown or not `asked`."""
    modules = _modules(tensors)
    placed = {name: _placed(modules, torch_layers(name)) for name in TORCH_BACKBONES}
    found = next((name for name, modules_of in placed.items() if modules_of is not None), None)
    if found in ("resnet50", "resnet50_v1_5"):
        # PyTorch's own ResNet has no biases beside batch norm; Keras' has.
        found = "resnet50" if "bias" in placed[found]["conv1_conv"] else "resnet50_v1_5"
    if found is None:
        raise WeightsMismatchError(
            f"{path} holds {len(modules)} modules that are not those of ResNet50, DenseNet121 or InceptionV3 as "
            f"torchvision builds them (first: {', '.join(list(modules)[:3])}). Only these can be converted."
        )
    if asked not in (None, found):
        difference = _DIFFERENCES.get((found, asked), "")
        raise WeightsMismatchError(f"{path} holds {found}; --backbone is {asked}. {difference}Use --backbone {found}.")
    return found


def convert_torch(
    path: Path, tensors: Tensors, backbone: str, targets: Sequence[Target], epsilon: float
) -> tuple[dict[str, Arrays], tuple[str, ...], tuple[str, ...]]:
    """The arrays of a state dict for the layers of one of our networks.

    Returns:
        Layer name to its arrays; what was changed, one sentence each; modules that are not the backbone's: a head,
        auxiliary outputs.

    Raises:
        WeightsMismatchError: A module is missing or has another shape.
        WeightsError: Numbers that are not finite, or whole numbers of a quantised network.
    """
    modules, pairs = _modules(tensors), torch_layers(backbone)
    placed = _placed(modules, pairs)
    shapes = {target.name: target.shapes for target in targets}
    notes = [_NOTES[backbone]] if backbone in _NOTES else []
    added = np.float32(_TORCH_EPSILON - epsilon)  # so that variance + epsilon stays what it was
    changes = backbone in ("resnet50", "densenet121")
    if changes:
        notes += [f"Variances of batch norm changed by {added:.0e}, for an epsilon of {_TORCH_EPSILON:g} in PyTorch."]
    layers = {}
    for pair in pairs:
        module, wanted = placed[pair.layer], shapes[pair.layer]
        for leaf, array in module.items():
            if array.dtype.kind != "f":
                raise WeightsError(
                    f"{path} holds whole numbers ({array.dtype}) in {pair.module}.{leaf}, as a quantised network. "
                    "Convert the float network instead."
                )
            if not np.isfinite(array).all():
                raise WeightsError(
                    f"{path} holds values that are not finite in {pair.module}.{leaf}: its training diverged or the "
                    "file is damaged. Use another checkpoint."
                )
        leaves = _keras_arrays(module, wanted, pair.kind)
        for leaf, shape in wanted.items():
            if leaves[leaf].shape != shape:
                raise WeightsMismatchError(
                    f"{path} holds another network: {pair.module} gives a {leaf} of shape {leaves[leaf].shape}, "
                    f"{shape} is needed for {pair.layer}."
                )
        if changes and pair.kind == "norm":
            leaves["moving_variance"] = np.maximum(leaves["moving_variance"] + added, 0)
        layers[pair.layer] = tuple(leaves[leaf] for leaf in wanted)
    used = {id(module) for module in placed.values()}
    rest = {name: module for name, module in modules.items() if id(module) not in used}
    deeper = [name for name, module in rest.items() if _kind(module) and "Aux" not in name]
    if deeper:  # a head has no convolutions
        raise WeightsMismatchError(
            f"{path} holds {len(deeper)} more convolutions and batch norms than the network has "
            f"(first: {deeper[0]}): it is a deeper one, which cannot be converted."
        )
    return layers, tuple(notes), tuple(rest)


def torch_layers(backbone: str) -> tuple[TorchLayer, ...]:
    return tuple(TORCH_BACKBONES[backbone]())


def _modules(tensors: Tensors) -> dict[str, Module]:
    """The tensors by module, in the file's order; counters of batches are no weights."""
    modules: dict[str, Module] = defaultdict(dict)
    for name, array in tensors.items():
        # Names of DenseNet before torchvision 0.2: denselayer1.norm.1.
        name = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)", r"\1.\2\3", name)
        module, _, leaf = name.rpartition(".")
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
    """The arrays of a PyTorch module by the leaf names of Keras."""
    if kind == "conv":
        kernel = np.transpose(module["weight"], (2, 3, 1, 0)) if module["weight"].ndim == 4 else module["weight"]
        bias = {"bias": module.get("bias", np.zeros(kernel.shape[-1], np.float32))} if "bias" in shapes else {}
        return {"kernel": kernel} | bias
    missing = [_NORM[leaf] for leaf in shapes if _NORM[leaf] not in module]
    if missing:
        raise WeightsMismatchError(f"A batch norm of the file lacks {', '.join(missing)}; all its numbers are needed.")
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
"""Our name of a network to the pairs. `resnet50` is for files that were made from Keras' own weights."""
