"""What an export format is: how to write a model, how a stranger reads it, and where its description stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Exportable:
    """A model to be taken home.

    Attributes:
        model: float32 RGB images 0–255, (batch, size, size, 3) → float32 (batch, outputs).
        metadata: What is written into the file about it; plain values, for JSON.
        from_bytes: An encoded JPEG or PNG, a string scalar, to one such image; None where that is not possible in a
            graph.
    """

    model: "keras.Model"
    metadata: Mapping[str, Any]
    from_bytes: Callable[["tf.Tensor"], "tf.Tensor"] | None = None


@dataclass(frozen=True)
class ExportFormat:
    """One way to take a model home.

    Attributes:
        suffix: Of the file; empty for a folder.
        write: Writes a model, and what is said about it, at a path.
        read_metadata: What was written about the model at a path.
        read: Python, without this package, that makes `probabilities` of `images` (both NumPy arrays) from the
            export at `path`; `original` is the run's model.keras, for formats that hold no architecture.
        read_bytes: Goes on from there with the same of `encoded`, a list of the bytes of JPEGs and PNGs; None where
            images have to be decoded by the caller.
        usage: One sentence: how it is used.
        needs: Packages of the extra `export` that it takes.
    """

    suffix: str
    write: Callable[[Exportable, Path], None]
    read_metadata: Callable[[Path], dict[str, Any]]
    read: str
    usage: str
    read_bytes: str | None = None
    needs: tuple[str, ...] = ()
