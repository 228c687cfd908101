"""PyTorch files (`.pt`, `.pth`) since 1.6: a zip of a pickle and a block of numbers per tensor. Nothing is unpickled.

    archive/data.pkl     the state dict, see `state_pickle.py`
    archive/data/0, 1 …  its numbers

and `.safetensors`: a length, a header in JSON, the numbers.

The weights of a PyTorch file, arranged for one of our networks: complete, or refused with the reason.

Which module of a PyTorch network is which layer of ours, in the order in which PyTorch defines and stores them.

References:
    `torchvision.models`: resnet, densenet, inception.
"""

import json
import math
import re
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.pretrained.hdf5 import check_content, container_of, damage
from radtransfer.pretrained.match import Target
from radtransfer.pretrained.torch_pickle import LARGEST, MOST_DIMENSIONS, StoredBlock, StoredTensor, read_state_pickle

LARGEST_FILE = 16 * 2**30
"""Bytes of all tensors together; the networks here have less than 1 GB."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "backbone")
_DEEPEST = 8
"""Dictionaries, one in the other, in which a state dict is looked for."""

_SAFE_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_SAFE_DTYPES |= {"I8": "i1", "U8": "u1", "BOOL": "?"}
_DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class StateDict:
    """The tensors of a PyTorch file.

    Attributes:
        path: The file.
        tensors: Name to array, in the file's order; floats become float32, whole numbers stay as they are.
    """

    path: Path
    tensors: Mapping[str, np.ndarray] = field(repr=False)


def is_pytorch(path: Path) -> bool:
    """Whether the content is a PyTorch zip or safetensors."""
    if container_of(path) == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        except _DAMAGED:
            return False  # another reader says what is wrong with it
    return _safetensors_header_size(path) is not None


def read_pytorch(path: Path) -> StateDict:
    """All tensors of the state dict in `path`.

    Raises:
        WeightsError: Not such a file, damaged, of the format before PyTorch 1.6, or a whole pickled model; says which.
    """
    check_content(path)
    if not is_pytorch(path):
        raise WeightsError(f"{path} is neither a PyTorch file (a whole zip with data.pkl) nor safetensors.")
    try:
        tensors = _read_zip(path) if zipfile.is_zipfile(path) else _read_safetensors(path)
    except WeightsError as error:
        raise WeightsError(f"weights file {path} {error}") from None
    except _DAMAGED as error:
        raise WeightsError(damage(path, error)) from None
    return StateDict(path, tensors)


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        if archive.getinfo(pickled).file_size > LARGEST:
            raise WeightsError("holds a pickle far larger than that of a state dict. Nothing was read.")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            with archive.open(f"{folder}byteorder") as order:
                if order.read(16) != b"little":
                    raise WeightsError("was written on a big-endian machine. Save it again on another.")
        found = dict(_state_dict(read_state_pickle(archive.read(pickled))))
        _check_sizes(archive, folder, found.values())
        blocks = {
            block: _numbers(archive.read(f"{folder}data/{block.key}"), block)
            for block in {tensor.block for tensor in found.values()}
        }
        return {name: _array(tensor, blocks[tensor.block]) for name, tensor in found.items()}


def _state_dict(content: Any, depth: int = 0) -> Iterator[tuple[str, StoredTensor]]:
    """The names and tensors of a state dict, alone or beside an epoch, an optimizer and the like."""
    if isinstance(content, dict):
        if any(isinstance(value, StoredTensor) for value in content.values()):
            return ((str(name), value) for name, value in content.items() if isinstance(value, StoredTensor))
        for name in _CONTAINERS:
            if isinstance(content.get(name), dict) and depth < _DEEPEST:
                return _state_dict(content[name], depth + 1)
        held = ", ".join(f"{name!s:.40}" for name in list(content)[:6]) or "nothing"
        raise WeightsError(f"holds no state dict (it holds {held}). Save model.state_dict().")
    name = getattr(content, "name", type(content).__name__)
    raise WeightsError(
        f"holds a pickled {str(name).replace(' ', '.')}, not a state dict; making it would run its code, so it is not "
        "opened. Where it is trusted, save torch.save(model.state_dict(), …) and convert that."
    )


def _check_sizes(archive: zipfile.ZipFile, folder: str, tensors: Any) -> None:
    """Before anything is allocated: every block is as long as it says, and no tensor reaches beyond its block."""
    total = 0
    for block in {tensor.block for tensor in tensors}:
        size = archive.getinfo(f"{folder}data/{block.key}").file_size
        if size != block.length * _itemsize(block.dtype):
            raise WeightsError(f"declares {block.length} numbers in a block of {size} bytes. Download it again.")
        total += size
    if total > min(LARGEST_FILE, 4 * Path(archive.filename).stat().st_size + 2**20):
        raise WeightsError(f"declares {total / 1e6:,.0f} MB, which cannot be. Nothing was read.")
    if sum(math.prod(tensor.shape) for tensor in tensors) * 4 > 4 * total + 2**20:
        raise WeightsError("declares tensors larger than the numbers it holds. Nothing was read.")


def _array(tensor: StoredTensor, numbers: np.ndarray) -> np.ndarray:
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= len(numbers):
        raise WeightsError(f"declares a tensor of shape {shape} beyond its {len(numbers)} numbers. Download it again.")
    steps = tuple(step * numbers.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps).copy()


def _numbers(content: bytes, block: StoredBlock) -> np.ndarray:
    if block.dtype == "bfloat16":
        # The upper half of a float32; NumPy has no such type.
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    numbers = np.frombuffer(content, block.dtype)
    return numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _safetensors_header_size(path: Path) -> int | None:
    """Bytes of the header, or None if the file does not begin as safetensors do."""
    with path.open("rb") as handle:
        length, brace = int.from_bytes(handle.read(8), "little"), handle.read(1)
    return length if brace == b"{" and 2 <= length <= min(LARGEST, path.stat().st_size - 8) else None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    length = _safetensors_header_size(path)
    with path.open("rb") as handle:
        handle.seek(8)
        header = json.loads(handle.read(length))
        content = handle.read()
    declared = {
        name: _declared(name, entry, size=len(content)) for name, entry in header.items() if name != "__metadata__"
    }
    if not declared:
        raise WeightsError("holds no tensors.")
    end = 0
    for block, _, start in sorted(declared.values(), key=lambda entry: entry[2]):
        if block.length and start < end:
            raise WeightsError(f"declares {block.key!r:.80} in bytes that belong to another tensor. Download it again.")
        end = max(end, start + block.length * _itemsize(block.dtype))
    return {
        name: _numbers(content[start : start + block.length * _itemsize(block.dtype)], block).reshape(shape)
        for name, (block, shape, start) in declared.items()
    }


def _declared(name: str, entry: Any, *, size: int) -> tuple[StoredBlock, tuple[int, ...], int]:
    """Of a tensor in a safetensors header its block, its shape, and where it begins in the `size` bytes of numbers."""
    dtype, shape, offsets = (
        (entry.get(key) for key in ("dtype", "shape", "data_offsets")) if isinstance(entry, dict) else (None, 0, 0)
    )
    if not isinstance(dtype, str) or dtype not in _SAFE_DTYPES:
        raise WeightsError(f"holds {name!r:.80} of the type {dtype!r:.80}, which is not read.")
    whole = all(
        isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        for numbers in (shape, offsets)
    )
    if not whole or len(shape) > MOST_DIMENSIONS or len(offsets) != 2:
        raise WeightsError(
            f"declares {name!r:.80} of shape {shape!r:.80} in bytes {offsets!r:.80}: expected a list of up to "
            f"{MOST_DIMENSIONS} whole numbers from 0 on, and a list of two. Download it again."
        )
    block, (start, end) = StoredBlock(name, _SAFE_DTYPES[dtype], math.prod(shape)), offsets
    if end - start != block.length * _itemsize(block.dtype) or end > size:
        raise WeightsError(f"declares {name!r:.80} of shape {shape!r:.80} in bytes {start} to {end} of {size}.")
    return block, tuple(shape), start


@dataclass(frozen=True)
class TorchLayer:
    """One pair.

    Attributes:
        module: Name in torchvision, before ".weight".
        layer: Name in our network.
        kind: Of both.
    """

    module: str
    layer: str
    kind: Literal["conv", "norm"]


def torch_layers(backbone: str) -> tuple[TorchLayer, ...]:
    """All pairs of `backbone`, a key of `TORCH_BACKBONES`."""
    return tuple(TORCH_BACKBONES[backbone]())


def current_name(name: str) -> str:
    """Names of DenseNet before torchvision 0.2, `denselayer1.norm.1`, as they are today."""
    return re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)", r"\1.\2\3", name)


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
    "5b": _INCEPTION_A,
    "5c": _INCEPTION_A,
    "5d": _INCEPTION_A,
    "6a": _INCEPTION_B,
    "6b": _INCEPTION_C,
    "6c": _INCEPTION_C,
    "6d": _INCEPTION_C,
    "6e": _INCEPTION_C,
    "7a": _INCEPTION_D,
    "7b": _INCEPTION_E,
    "7c": _INCEPTION_E,
}


def _inception_v3() -> Iterator[TorchLayer]:
    for name in _INCEPTION_STEM:
        yield from _conv_and_norm(f"Conv2d_{name}", f"stem_{name.partition('_')[0]}")
    for number, (block, branches) in enumerate(_INCEPTION_BLOCKS.items()):
        for branch in branches:
            yield from _conv_and_norm(f"Mixed_{block}.branch{branch}", f"mixed{number}_branch{branch}")


def _conv_and_norm(module: str, layer: str) -> Iterator[TorchLayer]:
    yield TorchLayer(f"{module}.conv", f"{layer}_conv", "conv")
    yield TorchLayer(f"{module}.bn", f"{layer}_bn", "norm")


TORCH_BACKBONES = {
    "resnet50_v1_5": _resnet50,
    "resnet50": _resnet50,
    "densenet121": _densenet121,
    "inception_v3_torch": _inception_v3,
}
"""Our name of a network to the pairs. `resnet50` is for files that were made from Keras' own weights."""


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
