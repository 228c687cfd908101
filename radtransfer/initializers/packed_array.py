"""Arrays as short text, for the configs of initializers.

A packed array is `{"shape": [7, 7, 3, 64], "float32": "eAFsm…"}`: base64 of zlib of the four bytes of every
little-endian float32, first all lowest bytes, then all second ones, and so on. Neighbouring weights share their high
bytes, so these planes compress best: a sorted 3×3×512×512 kernel, 9.4 MB of float32,
becomes 4.3 MB of text, and 53 MB as a list of numbers.
"""

import base64
import math
import operator
import zlib
from typing import Any

import keras
import numpy as np

LARGEST = 2**27
"""Values, at most: half a gigabyte, and more than the largest dense kernel of VGG16."""

_PREFER_SPEED = 1  # zlib's level: six takes six times as long for a tenth less text


def finite_float32(array: np.ndarray) -> np.ndarray:
    """A float32 copy of a NumPy array, tensor, variable or list of numbers.

    Raises:
        ValueError: It is empty or too large, or some value is NaN or infinite as float32.
    """
    array = np.asarray(keras.ops.convert_to_numpy(array))
    _check_size(array.shape)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        wrong = np.count_nonzero(~np.isfinite(array))
        raise ValueError(f"Expected finite float32 values. Received {wrong} of {array.size} that are not.")
    return array


def pack(array: np.ndarray) -> dict[str, Any]:
    """`array` as a dictionary that JSON can hold; exact for float32."""
    planes = array.astype("<f4").reshape(-1, 1).view(np.uint8).T
    compressed = zlib.compress(planes.tobytes(), _PREFER_SPEED)
    return {"shape": list(array.shape), "float32": base64.b64encode(compressed).decode("ascii")}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """The float32 array that `pack` was given.

    Memory is bounded by `LARGEST` and the length of the text, whatever `packed` says.

    Raises:
        ValueError: `packed` is damaged, or holds another number of values than its shape says.
    """
    try:
        return _unpacked(packed)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(
            'Expected a packed array, {"shape": […], "float32": "…"}, in the config of an initializer. '
            f"Received a damaged one ({error}). Save the model again, or build the initializer from its array."
        ) from error


def _unpacked(packed: dict[str, Any]) -> np.ndarray:
    shape = tuple(operator.index(length) for length in packed["shape"])
    _check_size(shape)
    compressed = base64.b64decode(packed["float32"], validate=True)
    planes = np.frombuffer(_inflate(compressed, 4 * math.prod(shape)), np.uint8)
    return planes.reshape(4, -1).T.copy().view("<f4").astype(np.float32).reshape(shape)


def _check_size(shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    if not 0 < size <= LARGEST or min(shape, default=1) < 0:
        received = f"{size:,} in shape {list(shape)[:8]}"
        raise ValueError(f"Expected an array of 1 to {LARGEST:,} values. Received: {received}.")


def _inflate(compressed: bytes, size: int) -> bytes:
    """The `size` bytes in `compressed`; stops one byte after them, so that no text can fill the memory."""
    stream = zlib.decompressobj()
    inflated = stream.decompress(compressed, size + 1)
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"the text does not hold the {size:,} bytes of its shape, and no more")
    return inflated
