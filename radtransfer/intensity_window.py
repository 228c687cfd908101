"""Which values of an image of more than 8 bits become black and white: the setting `images.window`."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radtransfer.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

SIXTEEN_BITS = (0.0, 65535.0)
"""The values of a 16-bit PNG or TIFF that "auto" makes black and white: all that the format has."""

SIGNED_SIXTEEN_BITS = (-32768.0, 32767.0)
"""The same of a TIFF with signed values."""


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """What `--window` asks for.

    Attributes:
        name: "auto", "minmax" or "fixed".
        centre: The value that becomes the middle grey of a fixed window, in the unit of the image (CT: HU).
        width: From the value that becomes black to the one that becomes white, above 0.
    """

    name: str
    centre: float = 0.0
    width: float = 0.0

    def levels(
        self, smallest: float, largest: float, *, auto: tuple[float, float] = SIXTEEN_BITS
    ) -> tuple[float, float]:
        """The values that become 0 and 255, the first below the second.

        A fixed window reaches from centre - width/2 to centre + width/2, in DICOM and in other images alike
        (DICOM's LINEAR_EXACT).

        Args:
            smallest: Of all values in the image.
            largest: Likewise.
            auto: What "auto" means for this format.
        """
        if self.name == "fixed":
            return self.centre - self.width / 2, self.centre + self.width / 2
        return auto if self.name == "auto" else span(smallest, largest)


def parse_window(text: str) -> IntensityWindow:
    """The window that `text`, the setting, names.

    Raises:
        ConfigError: Not auto, minmax or CENTRE,WIDTH with a width above 0.
    """
    name = text.strip().lower()
    if name in ("auto", "minmax"):
        return IntensityWindow(name)
    try:
        centre, width = (float(part) for part in name.split(","))
    except ValueError:
        raise ConfigError(_message(text)) from None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise ConfigError(_message(text))
    return IntensityWindow("fixed", centre, width)


def span(smallest: float, largest: float) -> tuple[float, float]:
    """Levels from the smallest to the largest value; an image of one value becomes black."""
    return (smallest, largest) if largest > smallest else (smallest, smallest + 1.0)


def scaled(values: "np.ndarray", levels: tuple[float, float]) -> "np.ndarray":
    """`values` as float32, 0–255, unrounded: the first of the levels becomes 0, the second 255, others are clipped."""
    import numpy as np

    low, high = levels
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype("float32")


def _message(text: str) -> str:
    return (
        "--window: expected auto, minmax, or CENTRE,WIDTH with a width above 0, such as 40,400 for soft tissue in CT. "
        f"Received: {text!r}."
    )
