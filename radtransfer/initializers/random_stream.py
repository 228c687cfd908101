"""Random numbers that depend on a seed and on nothing else."""

import operator

import numpy as np


def checked_seed(seed: int) -> int:
    """`seed` as a plain Python integer, which a config can hold.

    Raises:
        ValueError: `seed` is not an integer, or is negative.
    """
    if not isinstance(seed, bool) and hasattr(seed, "__index__") and operator.index(seed) >= 0:
        return operator.index(seed)
    raise ValueError(f"Expected a non-negative integer as seed. Received: {seed!r}. Give every layer its own.")


def random_stream(seed: int) -> np.random.Generator:
    """A new generator at the start of the stream of `seed`.

    NumPy on the host rather than operations of the backend: TensorFlow's may differ between devices, JAX's and
    PyTorch's differ from TensorFlow's, and not all have a permutation. PCG64 is named because `default_rng` may
    get another generator one day. NumPy promises that of PCG64's own bits, not of what it makes of them; that is
    unchanged since 1.17, and a test with stored draws tells when it is not.
    """
    return np.random.Generator(np.random.PCG64(seed))
