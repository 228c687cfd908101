"""Networks run over batches of images, in pieces as large as memory lets them be."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.environment import keras_defaults
from radtransfer.errors import TrainingError

if TYPE_CHECKING:
    import tensorflow as tf

    from radtransfer.predictions.trained_model import Member


class Forward:
    """Runs every network on a batch; where memory runs out, on half of it from then on.

    Args:
        members: The networks; what they give is joined along a new first axis.
        batch_size: Images at a time, at most.
        notify: Hears once of each halving.
    """

    def __init__(self, members: Sequence["Member"], *, batch_size: int, notify: Callable[[str], None] = lambda _: None):
        self.members, self.batch_size, self._notify = members, batch_size, notify

    @keras_defaults()
    def __call__(self, images: "tf.Tensor") -> np.ndarray:
        """float32 (networks, images, …).

        Raises:
            TrainingError: A single image does not fit, or an output is not finite.
        """
        import tensorflow as tf

        parts, start = [], 0
        while start < len(images):
            piece = images[start : start + self.batch_size]
            try:
                parts.append(np.stack([np.asarray(member(piece), np.float32) for member in self.members]))
            except (tf.errors.ResourceExhaustedError, MemoryError):
                self._halve(len(piece))
                continue
            start += len(piece)
        outputs = np.concatenate(parts, axis=1)
        if not np.isfinite(outputs).all():
            raise TrainingError("The network gives outputs that are not finite numbers: its training diverged.")
        return outputs

    def _halve(self, failed: int) -> None:
        if failed == 1:
            raise TrainingError(
                "Out of memory with a single image. Close other programs, or name one fold with --fold."
            )
        self.batch_size = failed // 2
        self._notify(f"out of memory at {failed} images at a time; {self.batch_size} from here on")


def run_all(forward: Forward, batches: Iterable, *, images: int, count: Callable[[int, int], None]) -> np.ndarray:
    """What the networks give for the images of one pass, float32 (networks, images, …).

    Args:
        forward: Runs them.
        batches: (images, targets, weights); a row of weight 0 only fills the batch.
        images: How many there are.
        count: Hears how many are done.
    """
    parts, done = [], 0
    for batch, _, weights in batches:
        kept = int(weights.numpy().sum())
        parts.append(forward(batch[:kept]))
        done += kept
        count(done, images)
    return np.concatenate(parts, axis=1)
