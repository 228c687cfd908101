"""The built-in data set: synthetic fundus photographs whose number of lesions gives the grade, 0 to 4.

Source text: `synthetic_fundus`, or with options `synthetic_fundus:images=600,size=128,seed=0`.

    grade   lesions   kinds
      0        0      none
      1      1–3      microaneurysms
      2      8–12     microaneurysms, haemorrhages, exudates
      3     18–24     the same
      4     32–40     the same

A patient has two eyes of one look; each grade belongs to one patient in five, and one left eye in three is a
grade better or worse than the right. The images are drawn once, into the user's cache folder, and read from
there afterwards. They are a toy: a network that grades them has learnt nothing about diabetic retinopathy.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.cache import cache_folder
from radtransfer.datasets.cached_images import write_once
from radtransfer.datasets.fundus_drawing import LESIONS_OF_GRADE, fundus_image, patient_appearance
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.settings import DataSettings

VERSION = 1
"""Raised with every change of the drawing, so that no cached image of an older one is taken for a new one."""

CLASSES = tuple(str(grade) for grade in range(len(LESIONS_OF_GRADE)))

TABLE_NAME = "images.csv"

README = """\
SYNTHETIC fundus photographs, drawn by radtransfer ({options}, generator version {version}).

No patient was photographed and no finding is real. The number of drawn lesions gives the grade. The images
serve to try the software; results on them say nothing about eyes. images.csv lists path, label and patient.
This is a cache: delete the folder whenever you like, it is drawn again when it is needed.
"""


@dataclass(frozen=True)
class Options:
    """What can be asked for after `synthetic_fundus:`."""

    images: int = 600
    size: int = 128
    seed: int = 0

    def __str__(self) -> str:
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


LIMITS = {"images": (10, 100_000), "size": (32, 1024), "seed": (0, 2**31 - 1)}
"""Smallest and largest value of each option."""


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The table of the synthetic images, which are drawn first where the cache does not hold them.

    Args:
        settings: Those that name columns must be left alone, as the set knows its labels and patients.
        location: Options, "images=600,size=128,seed=0", each of which may be left out.

    Raises:
        ConfigError: An option or setting does not fit.
        DiskError: The images do not fit on the disk.
    """
    _check_settings(settings)
    options = parse_options(location)
    name = f"v{VERSION}-{options.images}-images-{options.size}px-seed{options.seed}"
    folder = cache_folder() / "synthetic_fundus" / name
    folder, notes = write_once(folder, lambda draft: _write(draft, options), what="The synthetic images")
    table = _table(folder, options)
    return replace(table, notes=(*notes, *table.notes))


def parse_options(location: str | None) -> Options:
    """The options written as "name=value,…".

    Raises:
        ConfigError: A name is unknown or a value is no integer in its range.
    """
    values = {}
    for part in filter(None, (location or "").split(",")):
        name, _, text = (piece.strip() for piece in part.partition("="))
        values[name] = _option_value(name, text)
    return Options(**values)


def _option_value(name: str, text: str) -> int:
    if name not in LIMITS:
        raise UnknownNameError("option of synthetic_fundus", name, LIMITS)
    low, high = LIMITS[name]
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(
            f"synthetic_fundus: {name} must be an integer from {low} to {high}, got {text!r}. "
            f"Write it like this: synthetic_fundus:{Options()}"
        )
    return int(text)


def _check_settings(settings: DataSettings) -> None:
    """Refuse what this set would have to ignore."""
    for name in ("image_root", "path_column", "label_column", "patient_column", "patient_regex"):
        if getattr(settings, name):
            raise ConfigError(
                f"data.{name} is {getattr(settings, name)!r}, but synthetic_fundus brings its own images, "
                f"labels and patients. Leave data.{name} out.",
                misfits=(name,),
            )


def _write(folder: Path, options: Options) -> None:
    (folder / "README.txt").write_text(README.format(options=options, version=VERSION), encoding="utf-8")
    rows = [("path", "label", "patient")]
    for name, grade, patient, pixels in _draw(options):
        Image.fromarray(pixels).save(folder / name)
        rows.append((name, str(grade), patient))
    with (folder / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _draw(options: Options) -> Iterator[tuple[str, int, str, np.ndarray]]:
    """File name, grade, patient and pixels of every image; a patient's two eyes look alike."""
    for index in range(options.images):
        number, is_left = divmod(index, 2)
        appearance = patient_appearance(np.random.default_rng([options.seed, number]))
        rng = np.random.default_rng([options.seed, number, 1 + is_left])
        grade = _patient_grade(options.seed, number)
        if is_left:
            grade = int(np.clip(grade + rng.choice((-1, 0, 0, 0, 0, 1)), 0, len(CLASSES) - 1))
        pixels = fundus_image(rng, appearance, grade, options.size)
        patient, eye = f"patient_{number:05d}", "left" if is_left else "right"
        yield f"{patient}_{eye}.png", grade, patient, pixels[:, ::-1] if is_left else pixels


def _patient_grade(seed: int, number: int) -> int:
    """Every five patients in a row have the five grades, in an order of their own."""
    block, place = divmod(number, len(CLASSES))
    return int(np.random.default_rng([seed, block, 0, 0]).permutation(len(CLASSES))[place])


def _table(folder: Path, options: Options) -> ImageTable:
    with (folder / TABLE_NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = [CLASSES.index(row["label"]) for row in rows]
    files = tuple(folder / row["path"] for row in rows)
    return ImageTable(
        paths=tuple(row["path"] for row in rows),
        files=tuple(file if file.is_file() else None for file in files),
        targets=np.eye(len(CLASSES), dtype=np.float32)[labels],
        classes=CLASSES,
        task="multiclass",
        patients=tuple(row["patient"] for row in rows),
        notes=(f"synthetic images drawn by radtransfer ({options}), no photographs of patients: {folder}",),
    )
