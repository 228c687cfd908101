"""Independent random streams from one seed, the same on every platform."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A 31-bit seed that depends on `seed` and every name, and on nothing else."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
