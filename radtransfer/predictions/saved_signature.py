"""The network in a SavedModel: its function of float images. The graph is looked at before TensorFlow loads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.saved_graph import check_graph


def image_signature(path: Path) -> tuple[Any, Any, str]:
    """A SavedModel, its function of float images that gives one output, and the name of that function's input.

    Raises:
        WeightsError: It cannot be loaded, does more than compute, or has no such function.
    """
    check_graph(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow raises what it meets in a damaged graph
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise WeightsError(f"{path} is not a SavedModel that TensorFlow can load: {reason}") from error
    for function in loaded.signatures.values():
        inputs = function.structured_input_signature[1]
        specs, outputs = list(inputs.values()), function.structured_outputs
        if len(specs) == 1 and specs[0].dtype == tf.float32 and specs[0].shape.rank == 4 and len(outputs) == 1:
            return loaded, function, next(iter(inputs))
    raise WeightsError(f"{path}: expected a signature that takes float images (batch, height, width, 3); it has none.")


def saved_member(path: Path) -> tuple[Callable[[tf.Tensor], tf.Tensor], int | None, int]:
    """The network in a SavedModel, the image size that it takes, and how many classes it gives.

    Raises:
        WeightsError: As `image_signature`.
    """
    loaded, function, name = image_signature(path)

    # The loaded object must outlive its functions, whose variables it holds.
    def member(images: tf.Tensor, loaded: Any = loaded) -> tf.Tensor:
        return next(iter(function(**{name: images}).values()))

    (output,) = function.structured_outputs.values()
    return member, function.structured_input_signature[1][name].shape[1], output.shape[-1]
