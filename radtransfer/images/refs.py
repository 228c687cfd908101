"""References to images (a file or part of one), the setting `images.window`, and addresses such as `gs://BUCKET`."""

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
    """An image in a file with several."""

    path: Path
    offset: int = 0  # first byte of an encoded image or of raw pixels
    length: int | None = None  # in bytes; None for a frame
    frame: int = 0  # number of the frame, from 0
    # Height and width of raw pixels, uint8 (height, width, 3); None for an encoded image
    pixels: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.length is None:
            return f"{self.path}, frame {self.frame + 1}"
        return f"{self.path}, bytes {self.offset} to {self.offset + self.length}"


ImageRef = Path | FilePart


def is_frame(ref: ImageRef) -> bool:
    """Whether the image is a frame of a file, not a file or a range of bytes."""
    return isinstance(ref, FilePart) and ref.length is None


def file_of(ref: ImageRef) -> Path:
    """The file with the image."""
    return ref.path if isinstance(ref, FilePart) else ref


def as_part(ref: ImageRef) -> FilePart:
    """The reference as a part; a file is its first frame."""
    return ref if isinstance(ref, FilePart) else FilePart(ref)


def read_contents(ref: ImageRef) -> bytes:
    """The bytes of the image."""
    part = as_part(ref)
    with part.path.open("rb") as file:
        file.seek(part.offset)
        return file.read(-1 if part.length is None else part.length)


SIXTEEN_BITS = (0.0, 65535.0)  # range of a 16-bit PNG or TIFF
SIGNED_SIXTEEN_BITS = (-32768.0, 32767.0)  # range of a TIFF with signed values


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """The setting `images.window`: "auto", "minmax", or "fixed" with centre and width (above 0) in the image's unit."""

    name: str
    centre: float = 0.0
    width: float = 0.0

    def levels(
        self, smallest: float, largest: float, *, auto: tuple[float, float] = SIXTEEN_BITS
    ) -> tuple[float, float]:
        """The values that become 0 and 255, given the extreme values of the image and the levels for "auto".

        A fixed window is centre ± width/2 in all formats (LINEAR_EXACT of DICOM).
        """
        if self.name == "fixed":
            return self.centre - self.width / 2, self.centre + self.width / 2
        return auto if self.name == "auto" else span(smallest, largest)


def parse_window(text: str) -> IntensityWindow:
    """The window in the setting `text`; ConfigError if it is invalid."""
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
    """Levels from the smallest to the largest value; a constant image becomes black."""
    return (smallest, largest) if largest > smallest else (smallest, smallest + 1.0)


def scaled(values: "np.ndarray", levels: tuple[float, float]) -> "np.ndarray":
    """`values` as float32 with `levels` mapped to 0 and 255, clipped, not rounded."""
    import numpy as np

    low, high = levels
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype("float32")


_ADDRESS = re.compile(r"(?:(\w+):)?(([A-Za-z][\w+.-]+)://[^?]*)(\?.*)?")


class RemoteSource(NamedTuple):
    """The parts of `READER:SCHEME://…?…`."""

    reader: str | None
    address: str
    scheme: str
    options: str


def remote_source(source: str) -> RemoteSource | None:
    """The parts of `SCHEME://…` or `READER:SCHEME://…?…`; None for a local source."""
    match = _ADDRESS.fullmatch(source)
    if match is None:
        return None
    reader, address, scheme, options = match.groups()
    return RemoteSource(reader, address.rstrip("/"), scheme, options or "")


def check_local_path(path: str | None) -> None:
    """Raises ConfigError if `path` is an address."""
    if path is not None and remote_source(path) is not None:
        raise ConfigError(
            f"expected a local file or folder, received {path}. Mount or copy it; only prepared data sets (--data) can "
            "be read from an address."
        )
