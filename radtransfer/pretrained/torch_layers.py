"""Which module of a PyTorch network is which layer of ours, in the order in which PyTorch defines and stores them.

References:
    `torchvision.models`: resnet, densenet, inception.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


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
