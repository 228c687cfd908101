"""What an export format is: how to write a model, and how a stranger reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ExportFormat:
    """One way to take a model home.

    Attributes:
        suffix: Of the file; empty for a folder.
        write: Writes a float32 model at a path.
        read: Python, without this package, that makes `probabilities` of `images` (both NumPy arrays) from the
            export at `path`; `original` is the run's model.keras, for formats that hold no architecture.
    """

    suffix: str
    write: Callable[["keras.Model", Path], None]
    read: str
