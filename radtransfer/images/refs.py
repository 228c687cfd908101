"""References to images (a file, or a part of one), the setting `images.window`, and addresses such as `gs://BUCKET`."""

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from radtransfer.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class FilePart:
    """An image in a file that holds several."""

    path: Path
    offset: int = 0  # first byte of the image, itself a whole JPEG, PNG or block of pixels
    length: int | None = None  # its bytes; None where the image is not a range of bytes but a frame
    frame: int = 0  # number of the frame in the file, from 0
    # Height and width of plain RGB values, uint8 (height, width, 3); None for an encoded image
    pixels: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.length is None:
            return f"{self.path}, frame {self.frame + 1}"
        return f"{self.path}, bytes {self.offset} to {self.offset + self.length}"


ImageRef = Path | FilePart


def is_frame(place: ImageRef) -> bool:
    """Whether the image is one of the frames of a file, and not a file, or a range of bytes."""
    return isinstance(place, FilePart) and place.length is None


def file_of(place: ImageRef) -> Path:
    """The file that the image is in."""
    return place.path if isinstance(place, FilePart) else place


def as_part(place: ImageRef) -> FilePart:
    """The place as part of a file; a file of its own is its first frame."""
    return place if isinstance(place, FilePart) else FilePart(place)


def read_contents(place: ImageRef) -> bytes:
    """The bytes of the image: the whole file, or its range of it."""
    part = as_part(place)
    with part.path.open("rb") as file:
        file.seek(part.offset)
        return file.read(-1 if part.length is None else part.length)


SIXTEEN_BITS = (0.0, 65535.0)
"""The values of a 16-bit PNG or TIFF that "auto" makes black and white: all that the format has."""

SIGNED_SIXTEEN_BITS = (-32768.0, 32767.0)  # the same of a TIFF with signed values


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """What `--window` asks for: "auto", "minmax", or "fixed" with centre and width (above 0) in the image's unit."""

    name: str
    centre: float = 0.0
    width: float = 0.0

    def levels(
        self, smallest: float, largest: float, *, auto: tuple[float, float] = SIXTEEN_BITS
    ) -> tuple[float, float]:
        """The values that become 0 and 255, the first below the second, from the extreme values of the image.

        A fixed window reaches from centre - width/2 to centre + width/2, in DICOM and in other images alike
        (DICOM's LINEAR_EXACT). `auto` is what "auto" means for this format.
        """
        if self.name == "fixed":
            return self.centre - self.width / 2, self.centre + self.width / 2
        return auto if self.name == "auto" else span(smallest, largest)


def parse_window(text: str) -> IntensityWindow:
    """The window that `text`, the setting, names; ConfigError if it names none."""
    name = text.strip().lower()
    if name in ("auto", "minmax"):
        return IntensityWindow(name)
    with contextlib.suppress(ValueError):
        centre, width = (float(part) for part in name.split(","))
        if math.isfinite(centre) and math.isfinite(width) and width > 0:
            return IntensityWindow("fixed", centre, width)
    raise ConfigError(
        "--window: expected auto, minmax, or CENTRE,WIDTH with a width above 0, such as 40,400 for soft tissue in CT. "
        f"Received: {text!r}."
    )


def span(smallest: float, largest: float) -> tuple[float, float]:
    """Levels from the smallest to the largest value; an image of one value becomes black."""
    return (smallest, largest) if largest > smallest else (smallest, smallest + 1.0)


def scaled(values: "np.ndarray", levels: tuple[float, float]) -> "np.ndarray":
    """`values` as float32, 0–255, unrounded: the first of the levels becomes 0, the second 255, others are clipped."""
    import numpy as np

    low, high = levels
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype("float32")


_ADDRESS = re.compile(r"(?:(\w+):)?(([A-Za-z][\w+.-]+)://[^?]*)(\?.*)?")


class RemoteSource(NamedTuple):
    """A data source that is an address: the dataset named before it, `SCHEME://…`, its scheme, and `?…`."""

    reader: str | None
    address: str
    scheme: str
    options: str


def remote_source(source: str) -> RemoteSource | None:
    """The parts of `SCHEME://…` or `DATASET:SCHEME://…?…`; None for what lies on this machine."""
    match = _ADDRESS.fullmatch(source)
    if match is None:
        return None
    reader, address, scheme, options = match.groups()
    return RemoteSource(reader, address.rstrip("/"), scheme, options or "")


def check_local_path(place: str | None) -> None:
    """Raises ConfigError if `place` is an address; a path is one even where nothing lies there."""
    if place is not None and remote_source(place) is not None:
        raise ConfigError(
            f"expected a file or folder of this machine, received {place}. Mount or copy it; only prepared data sets "
            "(--data) are read from elsewhere, and results are written here."
        )
