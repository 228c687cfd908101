"""From the stored values of a grey DICOM image to what a viewer shows.

    stored values -> modality LUT -> window (VOI LUT) -> inverted if MONOCHROME1

References:
    DICOM PS3.3: C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1), C.7.5.1.1.2 (pixel
    padding); C.7.6.16 (the same of multi-frame images, frame by frame).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.intensity_window import IntensityWindow, scaled, span

if TYPE_CHECKING:
    from pydicom import Dataset

_BYTE = 8
"""Images of up to so many bits without a window are shown as they are stored."""


def grey_image(stored: np.ndarray, header: "Dataset", frame: int, window: IntensityWindow) -> np.ndarray:
    """What a viewer shows of the frame `stored`, float32 (height, width), 0–255, unrounded.

    "auto" is the first window of the header, its VOI LUT before its CENTRE and WIDTH; without either, images of up
    to 8 bits are shown as they are stored, deeper ones from their smallest to their largest value. In both these and
    "minmax" the pixel padding does not count.
    """
    values = _modality_values(stored, header, frame)
    image = _tagged(values, header, frame) if window.name == "auto" else None
    if image is None:
        image = scaled(values, window.levels(*_extremes(values, stored, header), auto=_auto(values, stored, header)))
    return 255 - image if header.PhotometricInterpretation == "MONOCHROME1" else image


def _modality_values(stored: np.ndarray, header: "Dataset", frame: int) -> np.ndarray:
    """The values in their unit, such as HU; floating point."""
    values = stored.astype("float32" if stored.dtype.itemsize <= 2 else "float64")
    if table := header.get("ModalityLUTSequence"):
        return _looked_up(values, table[0], header)[0]
    source = _source(header, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
    return values * (1.0 if slope is None else slope) + (intercept or 0.0)


def _tagged(values: np.ndarray, header: "Dataset", frame: int) -> np.ndarray | None:
    """The image through the VOI LUT or the first window of the header, None where it has neither."""
    source = _source(header, frame, "FrameVOILUTSequence")
    if table := source.get("VOILUTSequence"):
        looked_up, bits = _looked_up(values, table[0], header)
        return scaled(looked_up, (0, 2**bits - 1))
    centre, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    return _windowed(values, centre, width, source.get("VOILUTFunction") or "LINEAR")


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """The functions of PS3.3 C.11.2.1.2 and C.11.2.1.3; a LINEAR one below its least width, 1, is taken as exact."""
    if function == "SIGMOID":
        # As 1 / (1 + exp(-4x)), and without its overflow.
        return (127.5 * (1 + np.tanh(2 * (values - centre) / width))).astype("float32")
    if function == "LINEAR_EXACT" or width < 1:
        return scaled(values, (centre - width / 2, centre + width / 2))
    if width == 1:
        return np.where(values > centre - 0.5, 255, 0).astype("float32")
    return scaled(values, (centre - width / 2, centre + width / 2 - 1))


def _looked_up(values: np.ndarray, item: "Dataset", header: "Dataset") -> tuple[np.ndarray, int]:
    """The entries of a LUT at `values`, float32, and how many bits they have; the ends stand for all beyond them."""
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    # The header cannot say whether the values it counts from are signed.
    if first > 0x7FFF and values.min() < 0:
        first -= 0x10000
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        data = np.frombuffer(data, f"{order}u2" if bits > 8 or len(data) >= 2 * entries else "u1")
    table = np.atleast_1d(np.asarray(data))[: entries or 0x10000].astype("float32")
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype("int64")
    return table[index], bits


def _auto(values: np.ndarray, stored: np.ndarray, header: "Dataset") -> tuple[float, float]:
    """The levels of an image whose header has no window."""
    bits = header.get("BitsStored") or 16
    if bits <= _BYTE and stored.dtype.kind == "u" and np.array_equal(values, stored):
        return 0.0, 2.0**bits - 1
    return span(*_extremes(values, stored, header))


def _extremes(values: np.ndarray, stored: np.ndarray, header: "Dataset") -> tuple[float, float]:
    """The smallest and the largest of `values`, padding aside unless all is padding."""
    padding = _padding(stored, header)
    seen = values if padding is None or padding.all() else values[~padding]
    return float(seen.min()), float(seen.max())


def _padding(stored: np.ndarray, header: "Dataset") -> np.ndarray | None:
    """Which of the stored values are padding, None where the header names none."""
    if (one := _number(header, "PixelPaddingValue")) is None or stored.dtype.kind not in "iu":
        return None
    other = _number(header, "PixelPaddingRangeLimit")
    # Headers hold it unsigned although the pixels are signed, and the other way round.
    ends = np.array([one, one if other is None else other]).astype("int64").astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _source(header: "Dataset", frame: int, name: str) -> "Dataset":
    """What holds the values of `frame`: its own group called `name`, else the one of all frames, else the header."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    for groups, number in ((own, frame), (shared, 0)):
        if groups and number < len(groups) and (found := groups[number].get(name)):
            return found[0]
    return header


def _number(source: "Dataset", keyword: str) -> float | None:
    """The first value of an attribute, None where it has none or none that is a finite number."""
    value: Any = source.get(keyword)
    if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
