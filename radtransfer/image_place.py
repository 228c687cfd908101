"""Where an image lies: a file of its own, or a part of a file that holds several."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilePart:
    """An image in a file that holds several.

    Attributes:
        path: The file.
        offset: First byte of the image, itself a whole JPEG, PNG or block of pixels.
        length: Its bytes; None where the image is not a range of bytes but a frame.
        frame: Number of the frame in the file, from 0.
        pixels: Height and width where the bytes are plain RGB values, uint8 (height, width, 3); None where they are
            an encoded image.
    """

    path: Path
    offset: int = 0
    length: int | None = None
    frame: int = 0
    pixels: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.length is None:
            return f"{self.path}, frame {self.frame + 1}"
        return f"{self.path}, bytes {self.offset} to {self.offset + self.length}"


ImagePlace = Path | FilePart


def is_frame(place: ImagePlace) -> bool:
    """Whether the image is one of the frames of a file, and not a file, or a range of bytes."""
    return isinstance(place, FilePart) and place.length is None


def file_of(place: ImagePlace) -> Path:
    """The file that the image is in."""
    return place.path if isinstance(place, FilePart) else place


def as_part(place: ImagePlace) -> FilePart:
    """The place as part of a file; a file of its own is its first frame."""
    return place if isinstance(place, FilePart) else FilePart(place)


def read_contents(place: ImagePlace) -> bytes:
    """The bytes of the image: the whole file, or its range of it.

    Raises:
        OSError: The file cannot be read.
    """
    part = as_part(place)
    with part.path.open("rb") as file:
        file.seek(part.offset)
        return file.read(-1 if part.length is None else part.length)
