"""Patient ids from DICOM headers, where the table has none."""

from collections.abc import Sequence
from dataclasses import replace

from radtransfer.datasets.image_files import is_dangling, is_dicom_file
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import is_missing
from radtransfer.errors import BadImageError
from radtransfer.image_formats.dicom import DicomHeader, read_header
from radtransfer.image_place import ImagePlace, as_part, file_of
from radtransfer.parallel import all_in_parallel
from radtransfer.settings import DataSettings

_READERS = 4
"""Headers read at the same time: most of the wait is for the disk or the network."""


def with_header_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    """`table` with the patients that the headers of its DICOM files name, where it and the settings name none.

    They are used if every image has one: to guess the others would part images of one patient. Files that cannot be
    read do not count; they are reported when the images are checked.
    """
    if table.patients is not None or settings.patient_regex is not None:
        return table
    there = [place for place in table.files if place is not None and not is_dangling(file_of(place))]
    found = sum(map(_is_dicom, there))
    if not found:
        return table
    if others := len(there) - found:
        are, files = ("image is", "images are")[others > 1], ("file", "files")[found > 1]
        note = f"patient ids of {found} DICOM {files} not used: {others} {are} of other formats and have none"
        return replace(table, notes=(*table.notes, note))
    patients, note = _patients(table.paths, _headers(table.files))
    return replace(table, patients=patients, patients_from="the DICOM headers", notes=(*table.notes, *note))


def _is_dicom(place: ImagePlace) -> bool:
    return as_part(place).length is None and is_dicom_file(file_of(place))


def _headers(places: Sequence[ImagePlace | None]) -> list[DicomHeader | None]:
    """The header of each file, None where it cannot be read."""
    return all_in_parallel(_header, places, workers=_READERS)


def _header(place: ImagePlace | None) -> DicomHeader | None:
    try:
        return None if place is None else read_header(file_of(place))
    except BadImageError:
        return None


def _patients(
    paths: Sequence[str], headers: Sequence[DicomHeader | None]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The patient of each image, and a note about them; a file that cannot be read is its own."""
    ids = [
        None if is_missing(header.patient_id or "") else header.patient_id for header in headers if header is not None
    ]
    named = set(ids) - {None}
    if not named:
        return None, ()
    if None in ids:
        return None, (f"patient ids in DICOM headers not used: {ids.count(None)} of {len(ids)} headers have none",)
    if len(named) == 1 and len(ids) > 1:
        return None, (f"patient ids in DICOM headers not used: all {len(ids)} headers have the same, {ids[0]!r}",)
    patients = tuple(path if header is None else header.patient_id for path, header in zip(paths, headers, strict=True))
    return patients, (f"{len(named)} patients by the headers of {len(ids)} DICOM files",)
