"""Knee MRI, MRNet: 1,250 examinations with labels (Bien et al. 2018; Stanford's research use agreement).

`MRNet-v1.0`; volumes are uint8 (slices, 256, 256), tables have no header (`0000,1`):

    {train,valid}-{abnormal,acl,meniscus}.csv
    {train,valid}/{axial,coronal,sagittal}/0000.npy …

Options: `task=acl` (default), `meniscus` or `abnormal`; `plane=sagittal` (default), `coronal` or `axial`;
`slices=middle` (default), a number of slices around the middle, or `all`. Every slice has the label of its examination.

The slices are written once as PNG files to the cache. Juodelyte et al. 2023 and RadImageNet use sagittal slices that
radiologists had picked and labelled one by one (1,021 for ACL tears, about the middle; 4,201 for meniscus tears); read
those with `radimagenet_task`. The middle slice is the nearest that the volumes give; a tear may well lie beside it.

Classes: no, yes. Patients: the examination. Split: `split=drawn` (default) pools both parts, as Juodelyte et al.;
`split=official` tests on `valid`, the public test set being none.

References:
    Bien et al. 2018, Deep-learning-assisted diagnosis for knee magnetic resonance imaging, PLOS Medicine 15.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.cache import cache_folder
from radtransfer.datasets.cached_images import fingerprint, write_once
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import SPLIT, Option, PublicSet, Row, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

MRNET = PublicSet(
    name="mrnet",
    tree="""
train-acl.csv, valid-acl.csv, train-meniscus.csv, …        without a header: 0000,1
train/sagittal/0000.npy …, train/coronal/…, train/axial/…
valid/sagittal/1130.npy …
""",
    holds=("train", "valid"),
    inside=("MRNet-v1.0",),
    options={
        "task": Option(("acl", "meniscus", "abnormal")),
        "plane": Option(("sagittal", "coronal", "axial")),
        "slices": Option(("middle", "all"), number=True),
        "split": SPLIT,
    },
)

_LINE = re.compile(r"\s*(\d{4})\s*,\s*([01])(?:\.0*)?\s*")


@dataclass(frozen=True)
class Examination:
    """A volume: its part ("train" or "valid"), number, label, file (None: not there) and the slices that are used."""

    part: str
    number: str
    label: str
    file: Path | None
    slices: tuple[int, ...]

    def path(self, index: int) -> str:
        """Of a slice, in the cache."""
        return f"{self.part}/{self.number}_{index:02d}.png"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The slices of the folder `location`, `FOLDER[,task=…][,plane=…][,slices=middle|all|N][,split=drawn|official]`.

    Raises:
        DataError: Another tree, a table or volume that holds something else, or a cache that cannot be written.
        ConfigError: An option it does not have.
    """
    root, options = MRNET.open(settings, location)
    plane, slices = options["plane"], options["slices"]
    examinations = [
        _examination(root, part, number, label, plane=plane, slices=slices)
        for part in ("train", "valid")
        for number, label in _labels(root, part, options["task"])
    ]
    there = [examination for examination in examinations if examination.file is not None]
    if not there:
        raise MRNET.error(root, f"has no {plane} volume of the {len(examinations)} examinations in its tables")
    key = fingerprint(examination.file for examination in there)
    folder = cache_folder() / "mrnet" / f"{plane}-{slices}-{key}"
    folder, told = write_once(folder, lambda draft: _write(draft, there), what="The slices of MRNet")
    splits = {"train": "train", "valid": "test"} if options["split"] == "official" else {"train": "", "valid": ""}
    rows = [
        Row(examination.path(index), examination.label, examination.number, splits[examination.part])
        for examination in examinations
        for index in examination.slices
    ]
    notes = [
        *told,
        f"{len(rows)} {plane} slices ({slices}) of {len(examinations)} examinations, as PNG files in {folder}",
    ]
    if len(there) < len(examinations):
        notes.append(f"{len(examinations) - len(there)} examinations have no {plane} volume")
    return table_of_rows(rows, folder, settings, notes=notes)


def chosen_slices(count: int, wanted: str) -> tuple[int, ...]:
    """The numbers of the slices, of `count`, that "middle", "all" or a number of them around the middle means."""
    size = {"middle": 1, "all": count}.get(wanted) or min(int(wanted), count)
    first = (count - size + 1) // 2
    return tuple(range(first, first + size))


def _labels(root: Path, part: str, task: str) -> list[tuple[str, str]]:
    """The number and the label of each examination of a part."""
    file = root / f"{part}-{task}.csv"
    if not file.is_file():
        raise MRNET.error(root, f"has no {file.name}")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None and line.strip():
            raise DataError(f"{file} line {number}: expected an examination and 0 or 1 (0000,1), received {line!r}.")
        if match:
            found.append((match[1], "yes" if match[2] == "1" else "no"))
    return found


def _examination(root: Path, part: str, number: str, label: str, *, plane: str, slices: str) -> Examination:
    file = root / part / plane / f"{number}.npy"
    if not file.is_file():
        return Examination(part, number, label, None, (0,))
    return Examination(part, number, label, file, chosen_slices(len(_volume(file)), slices))


def _volume(file: Path) -> np.ndarray:
    try:
        volume = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Cannot read {file} ({error}). Download it again.") from None
    if volume.ndim != 3 or volume.dtype != np.uint8 or not len(volume):
        raise DataError(
            f"{file}: expected uint8 (slices, height, width), received {volume.dtype} {volume.shape}. "
            "Use the volumes as they were downloaded."
        )
    return volume


def _write(folder: Path, examinations: list[Examination]) -> None:
    for part in ("train", "valid"):
        (folder / part).mkdir()
    for examination in examinations:
        volume = _volume(examination.file)
        for index in examination.slices:
            Image.fromarray(np.ascontiguousarray(volume[index])).save(folder / examination.path(index))
