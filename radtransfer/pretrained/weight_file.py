"""What every format gives: named layers of arrays, whatever the file looked like inside."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class SavedLayer:
    """One layer with weights, as a file holds it.

    Attributes:
        name: As saved; "" where the file keeps none.
        arrays: Leaf name ("kernel", "moving_mean") to float array; "0", "1" … in the layer's own order
            where the file keeps no leaf names. Of a layer with layers within it, path to array ("query/kernel").
        part: Path of the sub-model, or layer, that it stands in, "" for the model itself.
        kind: Layer class in snake case ("conv2d"), where the file tells it.
        outer: Names of the models and layers that it stands in, where the file keeps them.
        within: Whether it is known to stand in another layer, not in a sub-model.
    """

    name: str
    arrays: dict[str, np.ndarray]
    part: str = ""
    kind: str | None = None
    outer: tuple[str, ...] = ()
    within: bool = False

    def leaf_name(self, leaf: str) -> str:
        """What Keras calls an array that the file only numbers, where the layer's kind tells; else `leaf`."""
        if self.kind == "batch_normalization" and len(self.arrays) == 4:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
        elif self.kind is not None and re.search("conv.*d$|dense$", self.kind) and "separable" not in self.kind:
            names = ("kernel", "bias")
        else:
            return leaf
        return names[int(leaf)] if leaf.isdigit() and int(leaf) < len(names) else leaf

    @property
    def label(self) -> str:
        """What to call it in messages: unique within its file."""
        return "/".join(piece for piece in (self.part, self.name) if piece)


@dataclass(frozen=True)
class WeightFile:
    """All weights of one file.

    Attributes:
        path: The file.
        format: Key in `FORMATS`.
        layers: In the file's order; within one kind only, where `kind` is told.
        keras_version: Of the writer, where recorded.
        model_name: Name of the saved model, where recorded.
        lambdas: Names of its Lambda layers, whose effect is unknown.
    """

    path: Path
    format: str
    layers: tuple[SavedLayer, ...] = field(repr=False)
    keras_version: str | None = None
    model_name: str | None = None
    lambdas: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(array.size for layer in self.layers for array in layer.arrays.values())

    @property
    def lambda_note(self) -> str:
        """What the user should know of its Lambda layers; "" where there are none."""
        if not self.lambdas:
            return ""
        shown = ", ".join(self.lambdas[:4]) + (", …" if len(self.lambdas) > 4 else "")
        layers = f"{len(self.lambdas)} Lambda layer" + ("s" if len(self.lambdas) > 1 else "")
        return f"{self.path.name} holds {layers} ({shown}), ignored: the effect on the images is unknown"


@dataclass(frozen=True)
class WeightFormat:
    """The card of one format.

    Attributes:
        name: Key in `FORMATS`.
        description: One line for the user.
        recognizes: Whether a file's content, never its suffix, is of this format.
        read: All its weights; may raise anything that h5py, zipfile or json raise on a damaged file.
    """

    name: str
    description: str
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], WeightFile]
