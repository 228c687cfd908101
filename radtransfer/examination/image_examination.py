"""One image, decoded once before training by the decoder that training will use: what has to be known about it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from radtransfer.environment import require_keras
from radtransfer.errors import BadImageError
from radtransfer.examination.near_identical import SIDE, miniature
from radtransfer.examination.retina import retina_box
from radtransfer.image_formats import ImageFacts, decode_outside, inspect_image
from radtransfer.image_formats.pillow_images import kind_of_jpeg, stored_values
from radtransfer.image_place import ImagePlace, read_contents
from radtransfer.intensity_window import SIGNED_SIXTEEN_BITS, SIXTEEN_BITS, parse_window, span
from radtransfer.settings import ImageSettings


def examine_images(places: Sequence[ImagePlace], reading: ImageSettings) -> tuple[ImageFacts, ...]:
    """How images that were checked before are stored; they are decoded only where the way of reading asks for it.

    Raises:
        BadImageError: One cannot be read.
    """
    facts = tuple(map(inspect_image, places))
    if reading.fundus_crop or any(fact.deep for fact in facts):
        require_keras()
        return tuple(examine_image(place, reading)[0] for place in places)
    return facts


def read_pixels(
    place: ImagePlace, facts: ImageFacts, *, window: str = "auto", ratio: int = 1, notes: list[str] | None = None
) -> np.ndarray:
    """The pixels of an image by the decoder that training uses, not turned.

    Args:
        place: Where it lies.
        facts: From `inspect_image`.
        window: The setting `images.window`.
        ratio: A JPEG is decoded at 1/ratio of its size: 1, 2, 4 or 8.
        notes: Gets in what header and pixels disagree.

    Returns:
        (height, width, 3), RGB: uint8; uint16 for a 16-bit PNG; float32, 0–255, for what TensorFlow does not read.

    Raises:
        BadImageError: Damaged or truncated.
    """
    if facts.decoder == "pixels":
        return np.frombuffer(image_contents(place), np.uint8).reshape(facts.height, facts.width, 3)
    if facts.decoder not in ("jpeg", "png8", "png16"):
        return decode_outside(place, facts, window, notes=notes)
    import tensorflow as tf

    data = image_contents(place)
    # TensorFlow refuses such a file too, but its JPEG library then writes to the terminal.
    if facts.decoder == "jpeg" and b"\xff\xd9" not in data:
        raise BadImageError(place, "truncated")
    try:
        if facts.decoder == "jpeg":
            return tf.io.decode_jpeg(data, channels=3, ratio=ratio).numpy()
        return tf.io.decode_png(data, channels=3, dtype=tf.uint16 if facts.decoder == "png16" else tf.uint8).numpy()
    except tf.errors.InvalidArgumentError as error:
        end = b"\xff\xd9" if facts.decoder == "jpeg" else b"IEND\xaeB`\x82"
        whole = data.rstrip(b"\0").endswith(end)
        raise BadImageError(place, kind_of_jpeg(place) or ("damaged" if whole else "truncated")) from error


def examine_image(
    place: ImagePlace, reading: ImageSettings
) -> tuple[ImageFacts, tuple[float, float] | None, np.ndarray | None]:
    """The facts of an image that is decoded once; a JPEG at an eighth, which reads all of the file as well.

    Returns:
        The facts, the smallest and largest value of an image that is taken at the full range of 16 bits, and the
        miniature by which nearly identical images are found.

    Raises:
        BadImageError: It cannot be read.
    """
    facts = inspect_image(place)
    ratio = 1
    if facts.decoder == "jpeg":  # the miniature needs its pixels; a disc is looked for in an eighth, whatever the size
        ratio = (
            8
            if reading.fundus_crop
            else max(r for r in (8, 4, 2, 1) if r == 1 or min(facts.height, facts.width) >= r * SIDE)
        )
    stored = facts.deep and facts.decoder == "pillow"
    notes: list[str] = []
    pixels = (
        stored_values(place) if stored else read_pixels(place, facts, window=reading.window, ratio=ratio, notes=notes)
    )
    if pixels.shape != (-(-facts.height // ratio), -(-facts.width // ratio), 3):
        raise BadImageError(place, f"damaged: {pixels.shape} pixels, its header says {facts.width}×{facts.height}")
    facts, values = replace(facts, notes=tuple(notes)), None
    if stored or facts.decoder == "png16":
        values = float(pixels.min()), float(pixels.max())
        facts = replace(facts, levels=_levels(facts, values, reading))
    if reading.fundus_crop and (box := retina_box(pixels)):
        facts = replace(facts, disc=_whole_box(box, ratio, facts))
    noted = reading.window == "auto" and facts.levels in (SIXTEEN_BITS, SIGNED_SIXTEEN_BITS)
    return facts, values if noted else None, miniature(pixels)


def _levels(facts: ImageFacts, values: tuple[float, float], reading: ImageSettings) -> tuple[float, float]:
    """What becomes 0 and 255; by itself what the format has, or all that is there where it is more."""
    low, high = facts.levels
    auto = facts.levels if low <= values[0] and values[1] <= high else span(*values)
    return parse_window(reading.window).levels(*values, auto=auto)


def _whole_box(box: tuple[int, int, int, int], ratio: int, facts: ImageFacts) -> tuple[int, int, int, int]:
    """A box in an image decoded at 1/ratio, in pixels of the whole."""
    top, left, height, width = (ratio * value for value in box)
    return top, left, min(height, facts.height - top), min(width, facts.width - left)


def image_contents(place: ImagePlace) -> bytes:
    """The bytes of an image.

    Raises:
        BadImageError: They cannot be read, or not any more.
    """
    try:
        return read_contents(place)
    except OSError as error:
        raise BadImageError(place, f"cannot be read ({error.strerror})") from None
