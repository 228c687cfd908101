"""DICOM images (extra `dicom`): from the stored values of `dicom_file.py` to the displayed image.

    stored values -> modality LUT -> window (VOI LUT) -> inverted if MONOCHROME1 or INVERSE

References:
    DICOM PS3.3: C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1), C.11.6 (presentation
    LUT shape), C.7.5.1.1.2 (pixel padding); C.7.6.16 (the same for multi-frame images).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.images.dicom_file import GREY, PALETTE, open_dicom, printable, reading, stored_frame
from radtransfer.images.refs import ImageRef, IntensityWindow, as_part, parse_window, scaled, span

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """Facts from the header of a DICOM image."""

    height: int
    width: int
    frames: int
    patient_id: str | None  # None if missing
    transfer_syntax: str  # name in the standard
    photometric: str  # "MONOCHROME2", "RGB", …
    bits: int  # per value


def read_header(ref: ImageRef) -> DicomHeader:
    """The header of the file; BadImageError if it is damaged or of an unsupported kind."""
    with reading(ref):
        file = open_dicom(ref)
        header = file.header
        return DicomHeader(
            height=int(header.Rows),
            width=int(header.Columns),
            frames=file.frames,
            patient_id=str(header.get("PatientID") or "").strip().strip("\0") or None,
            transfer_syntax=file.syntax.name,
            photometric=header.PhotometricInterpretation,
            bits=_bits(header),
        )


def decode_dicom(ref: ImageRef, window: str, *, notes: list[str] | None = None) -> np.ndarray:
    """The displayed image of a frame, float32 (height, width, 3), RGB, 0–255, rounded up to 8 bits.

    Grayscale images get their modality LUT, the window (setting `images.window`), and the inversion of MONOCHROME1.
    Contradictions of header and pixels are added to `notes`. Raises as `read_header`, also for damaged pixels.
    """
    part, asked = as_part(ref), parse_window(window)
    with reading(ref):
        file = open_dicom(ref)
        if part.frame >= file.frames:
            raise BadImageError(ref, f"there is no frame {part.frame + 1}: the file has {file.frames}")
        photometric = file.header.PhotometricInterpretation
        stored, found = stored_frame(file, part.frame)
        noted = list(found)
        if not np.isfinite(stored).all():
            raise BadImageError(ref, "it contains NaN or infinite values")
        if photometric in GREY:
            grey = grey_image(stored, file.header, ref, asked, noted)
            image = np.repeat(grey[:, :, None], 3, axis=2)
        else:
            if photometric == "YBR_FULL_422" and file.options.get("photometric_interpretation") == "RGB":
                stored = _full_length(stored, ref, noted)
            image = _coloured(stored, file.header, ref)
        if notes is not None:
            notes += noted
        return image if _bits(file.header) > 8 else np.rint(image)


def _full_length(stored: np.ndarray, ref: ImageRef, notes: list[str]) -> np.ndarray:
    """RGB of pixels labelled YBR_FULL_422 with three values each: they are RGB, or YBR_FULL.

    Black, white and saturated RGB colours are impossible as YBR; most YBR_FULL pixels are nearly grey.
    """
    luminance, blue, red = np.moveaxis(stored.astype("float32") - np.float32([0, 128, 128]), -1, 0)
    colours = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], axis=-1
    )
    impossible = ((colours < -16) | (colours > 271)).any(axis=-1).mean()
    grey = ((np.abs(blue) <= 4) & (np.abs(red) <= 4) & (np.abs(luminance - 128) > 16)).mean()
    known = "the header says YBR_FULL_422, but the pixels are not subsampled; read as"
    if impossible > 0.001 or np.abs(colours - stored).max() <= 1:
        notes.append(f"{known} RGB")
        return stored
    if grey > 0.1:
        notes.append(f"{known} YBR_FULL")
        return np.rint(np.clip(colours, 0, 255)).astype(stored.dtype)
    raise BadImageError(
        ref, "its header says YBR_FULL_422, but its pixels are not subsampled and may be RGB or YBR_FULL"
    )


def _bits(header: "Dataset") -> int:
    return int(header.get("BitsStored") or header.BitsAllocated)


def _coloured(stored: np.ndarray, header: "Dataset", ref: ImageRef) -> np.ndarray:
    if header.PhotometricInterpretation != PALETTE:
        return stored.astype("float32") * (255 / (2**header.BitsStored - 1))
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(stored, header)[:, :, :3]
    except Exception as error:  # pydicom checks little of the palette
        what = "its palette is missing or has another length than its header says; export it again"
        raise BadImageError(ref, what) from error
    # Some palettes of 8 bits are stored in 16.
    deep = colours.dtype.itemsize > 1 and colours.max() > 255
    return colours.astype("float32") / (257 if deep else 1)


def grey_image(
    stored: np.ndarray, header: "Dataset", ref: ImageRef, window: IntensityWindow, notes: list[str]
) -> np.ndarray:
    """The displayed grayscale image of a frame, float32 (height, width), 0–255, not rounded.

    "auto" is the VOI LUT of the header, else its first window; without either, images of up to 8 bits are unchanged and
    deeper ones scaled from their smallest to their largest value. Pixel padding is excluded there and in "minmax".
    """
    values = _modality_values(stored, header, ref)
    image = _windowed_by_header(values, header, ref, notes) if window.name == "auto" else None
    if image is None:
        extremes, bits = _extremes(values, stored, header), header.get("BitsStored") or 16
        as_stored = bits <= 8 and stored.dtype.kind == "u" and np.array_equal(values, stored)
        auto = (0.0, 2.0**bits - 1) if as_stored else span(*extremes)
        image = scaled(values, window.levels(*extremes, auto=auto))
    white, shape = header.PhotometricInterpretation == "MONOCHROME1", str(header.get("PresentationLUTShape") or "")
    if "PresentationLUTSequence" in header:
        notes.append("the header has a presentation LUT, which is not applied")
    if white and shape.upper() == "IDENTITY":
        notes.append("the header says MONOCHROME1 and the presentation LUT shape IDENTITY; read as MONOCHROME1")
    # INVERSE means the same as MONOCHROME1; both together invert once.
    return 255 - image if white or shape.upper() == "INVERSE" else image


def _modality_values(stored: np.ndarray, header: "Dataset", ref: ImageRef) -> np.ndarray:
    """The values in their unit, such as HU, as floats."""
    values = stored.astype("float32" if stored.dtype.itemsize <= 2 else "float64")
    if table := header.get("ModalityLUTSequence"):
        return _looked_up(values, table[0], header, ref)[0]
    source = _source(header, as_part(ref).frame, "PixelValueTransformationSequence")
    slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
    if slope is None and intercept is None:
        return values
    if slope == 0:
        raise BadImageError(ref, "its header says RescaleSlope 0, which makes all values equal; export it again")
    from pydicom import Dataset
    from pydicom.pixels import apply_modality_lut

    rescaling = Dataset()  # pydicom needs both
    rescaling.RescaleSlope, rescaling.RescaleIntercept = 1.0 if slope is None else slope, intercept or 0.0
    return apply_modality_lut(values, rescaling)


def _windowed_by_header(values: np.ndarray, header: "Dataset", ref: ImageRef, notes: list[str]) -> np.ndarray | None:
    """The image after the VOI LUT or the first window of the header; None without either."""
    source = _source(header, as_part(ref).frame, "FrameVOILUTSequence")
    if table := source.get("VOILUTSequence"):
        looked_up, bits = _looked_up(values, table[0], header, ref)
        return scaled(looked_up, (0, 2**bits - 1))
    centre, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
    if centre is None or width is None:
        return None
    if width <= 0:
        notes.append("the window in the header has no width and is not used")
        return None
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        what = f"its header has a window of unknown kind {printable(function)}"
        raise BadImageError(ref, f"{what}; use --window minmax or CENTRE,WIDTH")
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    view = Dataset()  # the functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, to 8 bits
    view.PhotometricInterpretation, view.BitsStored, view.PixelRepresentation = "MONOCHROME2", 8, 0
    view.WindowCenter, view.WindowWidth = centre, width
    view.VOILUTFunction = "LINEAR_EXACT" if width < 1 and function == "LINEAR" else function
    return apply_windowing(values, view).astype("float32")


def _looked_up(values: np.ndarray, item: "Dataset", header: "Dataset", ref: ImageRef) -> tuple[np.ndarray, int]:
    """The entries of a LUT at `values`, float32, clamped at its ends, and their number of bits.

    pydicom does not support modality LUTs of 10 or 12 bits, of bytes, or with negative first values for unsigned
    pixels, and truncates rescaled values.
    """
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise BadImageError(ref, "its header has a LUT without descriptor or data; export it again")
    entries, first, bits = (int(number) for number in descriptor)
    entries = entries or 0x10000
    # The sign of the first value is not in the header.
    if first > 0x7FFF and values.min() < 0:
        first -= 0x10000
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        deep = bits > 8 or len(data) >= 2 * entries
        data = np.frombuffer(data, f"{order}u2" if deep else "u1")
        data = data[:entries] if not deep and len(data) == entries + 1 else data  # padded to an even length
    table = np.atleast_1d(np.asarray(data)).astype("float32")
    if table.size != entries or not 1 <= bits <= 16 or table.max() > 2**bits - 1:
        what = f"its header says that a LUT has {entries} entries of {bits} bits, but it has {table.size}"
        raise BadImageError(ref, f"{what} from {table.min():g} to {table.max():g}; export it again")
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype("int64")
    return table[index], bits


def _extremes(values: np.ndarray, stored: np.ndarray, header: "Dataset") -> tuple[float, float]:
    """The smallest and the largest of `values`, without padding unless all is padding."""
    one, other = _number(header, "PixelPaddingValue"), _number(header, "PixelPaddingRangeLimit")
    if one is not None and stored.dtype.kind in "iu":
        # The header may have it unsigned for signed pixels, and vice versa.
        ends = np.array([one, one if other is None else other]).astype("int64").astype(stored.dtype)
        padding = (stored >= ends.min()) & (stored <= ends.max())
        values = values if padding.all() else values[~padding]
    return float(values.min()), float(values.max())


def _source(header: "Dataset", frame: int, name: str) -> "Dataset":
    """The functional group `name` of `frame`, else the shared one, else the header."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    for groups, number in ((own, frame), (shared, 0)):
        if groups and number < len(groups) and (found := groups[number].get(name)):
            return found[0]
    return header


def _number(source: "Dataset", keyword: str) -> float | None:
    """The first value of an attribute, None if it is missing or not finite."""
    value: Any = source.get(keyword)
    if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
