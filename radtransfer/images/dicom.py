"""DICOM files as images (extra `dicom`): from the stored values of `dicom_file.py` to what a viewer shows.

    stored values -> modality LUT -> window (VOI LUT) -> inverted if MONOCHROME1 or INVERSE

References:
    DICOM PS3.3: C.11.1 (modality LUT), C.11.2 (VOI LUT and windows), C.7.6.3.1.2 (MONOCHROME1), C.11.6 (presentation
    LUT shape), C.7.5.1.1.2 (pixel padding); C.7.6.16 (the same of multi-frame images, frame by frame).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.errors import BadImageError
from radtransfer.images.dicom_file import GREY, PALETTE, open_dicom, printable, reading, stored_frame
from radtransfer.images.refs import ImageRef, IntensityWindow, as_part, parse_window, scaled, span

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_SUFFIXES = frozenset([".dcm", ".dicom", ".ima"])
"""File names that say DICOM, in small letters; of files called so, even the old ones without preamble are read."""

PREAMBLE = 132  # bytes that tell whether a file is DICOM


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What the header of a DICOM image says."""

    height: int
    width: int
    frames: int
    patient_id: str | None  # None where it is empty or missing
    transfer_syntax: str  # how the pixels are stored, by its name in the standard
    photometric: str  # what the values mean: "MONOCHROME2", "RGB", …
    bits: int  # per value


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with `start`, its first `PREAMBLE` bytes, is DICOM with a preamble."""
    return start[128:PREAMBLE] == b"DICM"


def read_header(place: ImageRef) -> DicomHeader:
    """What the header of the file at `place` says; BadImageError where it is damaged, or of a kind that is not read."""
    with reading(place):
        file = open_dicom(place)
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


def decode_dicom(place: ImageRef, window: str, *, notes: list[str] | None = None) -> np.ndarray:
    """What a viewer shows of a frame, float32 (height, width, 3), RGB, 0–255.

    Grey images go through their modality LUT, the window (the setting `images.window`), and the inversion of
    MONOCHROME1; others have no window. Images of more than 8 bits are not rounded. `notes` gets what the header and
    the pixels disagree in. BadImageError: As `read_header`, or the pixels are damaged or ambiguous.
    """
    part, asked = as_part(place), parse_window(window)
    with reading(place):
        file = open_dicom(place)
        if part.frame >= file.frames:
            raise BadImageError(place, f"there is no frame {part.frame + 1}: the file has {file.frames}")
        photometric = file.header.PhotometricInterpretation
        stored, found = stored_frame(file, part.frame)
        noted = list(found)
        if not np.isfinite(stored).all():
            raise BadImageError(place, "it holds values that are not finite numbers")
        if photometric in GREY:
            grey = grey_image(stored, file.header, place, asked, noted)
            image = np.repeat(grey[:, :, None], 3, axis=2)
        else:
            if photometric == "YBR_FULL_422" and file.options.get("photometric_interpretation") == "RGB":
                stored = _full_length(stored, place, noted)
            image = _coloured(stored, file.header, place)
        if notes is not None:
            notes += noted
        return image if _bits(file.header) > 8 else np.rint(image)


def _full_length(stored: np.ndarray, place: ImageRef, notes: list[str]) -> np.ndarray:
    """RGB of pixels that are called YBR_FULL_422 but have three values each: RGB, or YBR_FULL.

    Black, white and strong colours of RGB are no colours at all when taken for YBR; of YBR_FULL, most is near grey.
    """
    luminance, blue, red = np.moveaxis(stored.astype("float32") - np.float32([0, 128, 128]), -1, 0)
    colours = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], axis=-1
    )
    impossible = ((colours < -16) | (colours > 271)).any(axis=-1).mean()
    grey = ((np.abs(blue) <= 4) & (np.abs(red) <= 4) & (np.abs(luminance - 128) > 16)).mean()
    known = "the header says YBR_FULL_422, the pixels are not subsampled; read as"
    if impossible > 0.001 or np.abs(colours - stored).max() <= 1:
        notes.append(f"{known} RGB")
        return stored
    if grey > 0.1:
        notes.append(f"{known} YBR_FULL")
        return np.rint(np.clip(colours, 0, 255)).astype(stored.dtype)
    raise BadImageError(
        place, "its header says YBR_FULL_422, its pixels are not subsampled, and may be RGB or YBR_FULL"
    )


def _bits(header: "Dataset") -> int:
    return int(header.get("BitsStored") or header.BitsAllocated)


def _coloured(stored: np.ndarray, header: "Dataset", place: ImageRef) -> np.ndarray:
    if header.PhotometricInterpretation != PALETTE:
        return stored.astype("float32") * (255 / (2**header.BitsStored - 1))
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(stored, header)[:, :, :3]
    except Exception as error:  # pydicom checks little of it
        what = "its palette is missing, or not as long as its header says; export it again"
        raise BadImageError(place, what) from error
    # Some palettes of 8 bits are stored in 16.
    deep = colours.dtype.itemsize > 1 and colours.max() > 255
    return colours.astype("float32") / (257 if deep else 1)


def grey_image(
    stored: np.ndarray, header: "Dataset", place: ImageRef, window: IntensityWindow, notes: list[str]
) -> np.ndarray:
    """What a viewer shows of the frame `stored` at `place`, float32 (height, width), 0–255, unrounded.

    "auto" is the first window of the header, its VOI LUT before its CENTRE and WIDTH; without either, images of up
    to 8 bits are shown as they are stored, deeper ones from their smallest to their largest value. In both these and
    "minmax" the pixel padding does not count. `notes` gets what the header contradicts itself in.
    """
    values = _modality_values(stored, header, place)
    image = _tagged(values, header, place, notes) if window.name == "auto" else None
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
    # INVERSE says the same as MONOCHROME1 and does not undo it.
    return 255 - image if white or shape.upper() == "INVERSE" else image


def _modality_values(stored: np.ndarray, header: "Dataset", place: ImageRef) -> np.ndarray:
    """The values in their unit, such as HU; floating point."""
    values = stored.astype("float32" if stored.dtype.itemsize <= 2 else "float64")
    if table := header.get("ModalityLUTSequence"):
        return _looked_up(values, table[0], header, place)[0]
    source = _source(header, as_part(place).frame, "PixelValueTransformationSequence")
    slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
    if slope is None and intercept is None:
        return values
    if slope == 0:
        raise BadImageError(place, "its header says RescaleSlope 0, which makes all values one; export it again")
    from pydicom import Dataset
    from pydicom.pixels import apply_modality_lut

    rescaling = Dataset()  # pydicom rescales only where both are there
    rescaling.RescaleSlope, rescaling.RescaleIntercept = 1.0 if slope is None else slope, intercept or 0.0
    return apply_modality_lut(values, rescaling)


def _tagged(values: np.ndarray, header: "Dataset", place: ImageRef, notes: list[str]) -> np.ndarray | None:
    """The image through the VOI LUT or the first window of the header, None where it has neither."""
    source = _source(header, as_part(place).frame, "FrameVOILUTSequence")
    if table := source.get("VOILUTSequence"):
        looked_up, bits = _looked_up(values, table[0], header, place)
        return scaled(looked_up, (0, 2**bits - 1))
    centre, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
    if centre is None or width is None:
        return None
    if width <= 0:
        notes.append("the window in the header has no width; it is not used")
        return None
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        what = f"its header has a window of the unknown kind {printable(function)}"
        raise BadImageError(place, f"{what}; give --window minmax or CENTRE,WIDTH")
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    view = Dataset()  # the functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, to 8 bits
    view.PhotometricInterpretation, view.BitsStored, view.PixelRepresentation = "MONOCHROME2", 8, 0
    view.WindowCenter, view.WindowWidth = centre, width
    view.VOILUTFunction = "LINEAR_EXACT" if width < 1 and function == "LINEAR" else function
    return apply_windowing(values, view).astype("float32")


def _looked_up(values: np.ndarray, item: "Dataset", header: "Dataset", place: ImageRef) -> tuple[np.ndarray, int]:
    """The entries of a LUT at `values`, float32, and how many bits they have; the ends stand for all beyond them.

    Not by pydicom, which reads no modality LUT of 10 or 12 bits, none of bytes, none that counts from a negative value
    over unsigned pixels, and cuts values that were rescaled before.
    """
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise BadImageError(place, "its header has a LUT without descriptor or data; export it again")
    entries, first, bits = (int(number) for number in descriptor)
    entries = entries or 0x10000
    # The header cannot say whether the values it counts from are signed.
    if first > 0x7FFF and values.min() < 0:
        first -= 0x10000
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        deep = bits > 8 or len(data) >= 2 * entries
        data = np.frombuffer(data, f"{order}u2" if deep else "u1")
        data = data[:entries] if not deep and len(data) == entries + 1 else data  # of an even number of bytes
    table = np.atleast_1d(np.asarray(data)).astype("float32")
    if table.size != entries or not 1 <= bits <= 16 or table.max() > 2**bits - 1:
        what = f"its header says that a LUT has {entries} entries of {bits} bits, and it has {table.size}"
        raise BadImageError(place, f"{what} from {table.min():g} to {table.max():g}; export it again")
    index = np.clip(np.rint(values) - first, 0, table.size - 1).astype("int64")
    return table[index], bits


def _extremes(values: np.ndarray, stored: np.ndarray, header: "Dataset") -> tuple[float, float]:
    """The smallest and the largest of `values`, padding aside unless all is padding."""
    one, other = _number(header, "PixelPaddingValue"), _number(header, "PixelPaddingRangeLimit")
    if one is not None and stored.dtype.kind in "iu":
        # Headers hold it unsigned although the pixels are signed, and the other way round.
        ends = np.array([one, one if other is None else other]).astype("int64").astype(stored.dtype)
        padding = (stored >= ends.min()) & (stored <= ends.max())
        values = values if padding.all() else values[~padding]
    return float(values.min()), float(values.max())


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
