"""Which image stands where in an epoch, and the seed of its augmentation: pure functions, no state.

An epoch follows from (seed, fold, epoch) alone, never from the epochs before it, so that a resumed run
sees the very batches of an uninterrupted one.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from radtransfer.seeds import derive_seed


def epoch_order(images: int, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """The order in which a training epoch visits `images` images, a permutation."""
    return np.random.default_rng(derive_seed(seed, "order", fold, epoch)).permutation(images)


def path_keys(paths: Sequence[str]) -> np.ndarray:
    """A number for each path, uint64, the same on every platform."""
    digests = b"".join(blake2b(path.encode(), digest_size=8).digest() for path in paths)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def image_seeds(keys: np.ndarray, *, seed: int, fold: int, epoch: int) -> np.ndarray:
    """The augmentation seed of every image, int32 (images, 2), from its key and the epoch.

    References:
        Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators, Fig. 16 (the mixing).
    """
    start = (derive_seed(seed, "augmentation", fold, epoch) * 0x9E3779B97F4A7C15) % 2**64
    mixed = keys ^ np.uint64(start)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed.astype("<u8").view("<i4").reshape(-1, 2).astype(np.int32)


def filled_rows(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`order` as whole batches, begun anew to fill the last, and weights, 0 for the filling.

    Both are (steps, batch_size): int32 and float32.
    """
    steps = -(-len(order) // batch_size)
    rows = np.resize(order, (steps, batch_size)).astype(np.int32)
    weights = np.arange(steps * batch_size) < len(order)
    return rows, weights.reshape(steps, batch_size).astype(np.float32)
