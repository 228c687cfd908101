"""Small pictures of images for a page, of damaged ones what can still be seen."""

import base64
import contextlib
import io

import numpy as np
from PIL import Image

from radtransfer.errors import BadImageError
from radtransfer.examination.image_examination import examine_image, read_pixels
from radtransfer.image_formats import ImageFacts
from radtransfer.image_place import ImagePlace, read_contents
from radtransfer.intensity_window import scaled
from radtransfer.settings import ImageSettings

SIDE = 144
"""Longer side of a thumbnail, pixels."""

_PIXELS = 50_000_000
"""Above so many a damaged image is not shown: its header may be what is damaged."""

# How Pillow turns an image for each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def thumbnail(place: ImagePlace | None, facts: ImageFacts | None, *, window: str = "auto") -> str | None:
    """A picture as a data URI, upright; None where nothing of the image can be seen.

    Args:
        place: Where it lies.
        facts: How it is stored; None for a damaged image.
        window: The setting `images.window`.
    """
    if place is None:
        return None
    if facts is None:
        image = _remains(place)
        return None if image is None else _data_uri(image)
    try:
        if facts.deep:
            facts = examine_image(place, ImageSettings(window=window))[0]
        pixels = read_pixels(place, facts, window=window)
    except BadImageError:
        return None
    if pixels.dtype == np.uint16:
        pixels = scaled(pixels.astype("float32"), facts.levels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return _data_uri(image, turn=_TURNS.get(facts.orientation))


def _remains(place: ImagePlace) -> Image.Image | None:
    """What Pillow decodes of a damaged PNG or JPEG before it meets the damage."""
    try:
        image = Image.open(io.BytesIO(read_contents(place)), formats=("PNG", "JPEG"))
        if image.width * image.height > _PIXELS:
            return None
        with contextlib.suppress(Exception):  # whatever a damaged file makes Pillow raise
            image.load()
        image.tile = []  # nothing left to load: what was decoded stands
        return image.convert("RGB")
    except Exception:
        return None


def _data_uri(image: Image.Image, *, turn: Image.Transpose | None = None) -> str:
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    if turn is not None:
        image = image.transpose(turn)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
