"""The built-in data set: synthetic fundus photographs whose number of lesions gives the grade, 0 to 4.

Source text: `synthetic_fundus`, or with options `synthetic_fundus:images=600,size=128,seed=0`.

    grade   lesions   kinds
      0        0      none
      1      1–3      microaneurysms
      2      8–12     microaneurysms, haemorrhages, exudates
      3     18–24     the same
      4     32–40     the same

Both eyes of a patient look similar; each grade occurs in one patient of five, and one left eye in three is a grade
better or worse than the right. The images are drawn once into the user's cache folder. They are for testing only: a
model trained on them has learned nothing about diabetic retinopathy.

Coordinates: x to the right, y down, both -1 to 1 within the circle of the photograph; right eyes are drawn (optic disc
to the right of the macula) and mirrored for left ones. Colours are RGB from 0 to 1.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from radtransfer.config.schema import DataSettings
from radtransfer.data.public_parsers import Row, table_of_rows
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.runs.cache import cache_folder, write_once

LESIONS_OF_GRADE = ((0, 0), (1, 3), (8, 12), (18, 24), (32, 40))  # fewest and most lesions of each grade, 0 to 4
VERSION = 1  # increase with every change of the drawing; part of the cache key

CLASSES = tuple(str(grade) for grade in range(len(LESIONS_OF_GRADE)))

TABLE_NAME = "images.csv"

README = """\
SYNTHETIC fundus photographs, drawn by radtransfer ({options}, generator version {version}).

No patient was photographed and no finding is real. The number of drawn lesions gives the grade. The images
are for testing the software; results on them mean nothing clinically. images.csv lists path, label and patient.
This is a cache: you may delete the folder at any time, it is drawn again when needed.
"""


@dataclass(frozen=True)
class Options:
    """Options after `synthetic_fundus:`."""

    images: int = 600
    size: int = 128
    seed: int = 0

    def __str__(self) -> str:
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


LIMITS = {"images": (10, 100_000), "size": (32, 1024), "seed": (0, 2**31 - 1)}  # smallest and largest value


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The table of the synthetic images, drawn first if not cached; `location` is "images=600,size=128,seed=0"."""
    for name in ("image_root", "path_column", "label_column", "patient_column", "patient_regex"):
        if getattr(settings, name):
            raise ConfigError(
                f"data.{name} is {getattr(settings, name)!r}, but synthetic_fundus has its own images, "
                f"labels and patients. Leave data.{name} out.",
                settings=(name,),
            )
    options = parse_options(location)
    name = f"v{VERSION}-{options.images}-images-{options.size}px-seed{options.seed}"
    folder = cache_folder() / "synthetic_fundus" / name

    def write(draft: Path) -> None:
        (draft / "README.txt").write_text(README.format(options=options, version=VERSION), encoding="utf-8")
        rows = [("path", "label", "patient")]
        for index in range(options.images):
            number, is_left = divmod(index, 2)
            appearance = patient_appearance(np.random.default_rng([options.seed, number]))
            rng = np.random.default_rng([options.seed, number, 1 + is_left])
            # Each block of five patients has the five grades in random order.
            block, position = divmod(number, len(CLASSES))
            grade = int(np.random.default_rng([options.seed, block, 0, 0]).permutation(len(CLASSES))[position])
            if is_left:  # a patient's two eyes look alike
                grade = int(np.clip(grade + rng.choice((-1, 0, 0, 0, 0, 1)), 0, len(CLASSES) - 1))
            pixels = fundus_image(rng, appearance, grade, options.size)
            name = f"patient_{number:05d}_{'left' if is_left else 'right'}.png"
            Image.fromarray(pixels[:, ::-1] if is_left else pixels).save(draft / name)
            rows.append((name, str(grade), f"patient_{number:05d}"))
        with (draft / TABLE_NAME).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    folder, notes = write_once(folder, write, what="The synthetic images")
    with (folder / TABLE_NAME).open(newline="", encoding="utf-8") as file:
        rows = [Row(row["path"], row["label"], row["patient"]) for row in csv.DictReader(file)]
    note = f"synthetic images drawn by radtransfer ({options}), no photographs of patients: {folder}"
    return table_of_rows(rows, folder, settings, notes=[*notes, note])


def parse_options(location: str | None) -> Options:
    """The options in "name=value,…"."""
    values = {}
    for part in filter(None, (location or "").split(",")):
        name, _, text = (piece.strip() for piece in part.partition("="))
        if name not in LIMITS:
            raise UnknownNameError("option of synthetic_fundus", name, LIMITS)
        low, high = LIMITS[name]
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ConfigError(
                f"synthetic_fundus: {name} must be an integer from {low} to {high}, got {text!r}. "
                f"Example: synthetic_fundus:{Options()}"
            )
        values[name] = int(text)
    return Options(**values)


OVERSAMPLING = 4  # masks are drawn this many times larger and averaged, for smooth edges

# Smallest and largest radius, and irregularity of the outline.
LESION_RADII = {
    "microaneurysm": (0.020, 0.027, 0.0),
    "haemorrhage": (0.030, 0.056, 0.20),
    "exudate": (0.020, 0.036, 0.16),
}


@dataclass(frozen=True)
class Appearance:
    """What both eyes of a patient share, camera included."""

    colour: np.ndarray
    texture: float
    disc: tuple[float, float, float]
    vessel_width: float
    winding: float
    vignette: float
    brightness: float


def patient_appearance(rng: np.random.Generator) -> Appearance:
    """A new patient: pigmentation, optic disc, vessels, camera."""
    pale, dark = np.array([0.90, 0.47, 0.24]), np.array([0.66, 0.27, 0.13])
    pigment = rng.uniform()
    return Appearance(
        colour=(1 - pigment) * pale + pigment * dark + rng.normal(0, 0.02, 3),
        texture=rng.uniform(0.02, 0.07),
        disc=(rng.uniform(0.46, 0.56), rng.uniform(-0.06, 0.06), rng.uniform(0.125, 0.16)),
        vessel_width=rng.uniform(0.034, 0.044),
        winding=rng.uniform(0.06, 0.13),
        vignette=rng.uniform(0.25, 0.5),
        brightness=rng.uniform(0.8, 1.1),
    )


def fundus_image(rng: np.random.Generator, appearance: Appearance, grade: int, size: int) -> np.ndarray:
    """A photograph of a right eye: uint8, (size, size, 3), RGB."""
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    x, y = axis[None, :], axis[:, None]
    disc_x, disc_y, disc_radius = appearance.disc
    # The background with its pigment texture, of smooth noises with 5, 11 and 24 bumps across, and the darker macula.
    noises = [Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32)) for cells in (5, 11, 24)]
    clouds = sum(np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)) for noise in noises)
    texture = clouds * appearance.texture
    macula = np.exp(-((x - disc_x + 0.62) ** 2 + (y - disc_y - 0.04) ** 2) / 0.035)
    shade = 1 + texture[..., None] - macula[..., None] * np.array([0.28, 0.42, 0.42])
    picture = appearance.colour * shade
    # Flash, vignette, uneven illumination, and the black border.
    radius, angle = np.hypot(x, y), rng.uniform(0, 2 * np.pi)
    gradient = 1 + rng.uniform(0.05, 0.25) * (x * np.cos(angle) + y * np.sin(angle))
    aperture = np.clip((0.965 - radius) * y.size / 3, 0, 1)
    flash = appearance.brightness * rng.uniform(0.93, 1.07)
    light = flash * gradient * (1 - appearance.vignette * radius**2.5) * aperture
    veins, arteries, blood, exudates = _draw_masks(rng, appearance, grade, size)
    # The optic disc: a soft-edged oval with a paler cup.
    distance = np.hypot((x - disc_x) / 0.9, y - disc_y) / disc_radius
    rim, cup = 1 / (1 + np.exp((distance - 1) * 14)), np.exp(-((distance / 0.45) ** 2))
    halo = np.exp(-((distance / 1.7) ** 2))
    picture = _blend(picture, np.clip(0.15 * halo + 0.58 * rim + 0.22 * cup, 0, 1), np.array([1.0, 0.88, 0.62]))
    for coverage, transmitted in (
        (veins, (0.62, 0.40, 0.42)),
        (arteries, (0.80, 0.52, 0.52)),
        (blood, (0.55, 0.27, 0.28)),
    ):
        picture = picture * (1 - coverage[..., None] * (1 - np.array(transmitted)))
    picture = _blend(picture, 0.9 * exudates, np.array([1.0, 0.93, 0.58]))
    picture = picture * light[..., None] + rng.normal(0.012, 0.010, picture.shape)
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


def _blend(picture: np.ndarray, share: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return picture + share[..., None] * (colour - picture)


def _draw_masks(rng: np.random.Generator, appearance: Appearance, grade: int, size: int) -> tuple[np.ndarray, ...]:
    """Coverage of each pixel by veins, arteries, blood and exudates: four float (size, size) arrays, 0–1."""
    images = [Image.new("L", (size * OVERSAMPLING,) * 2) for _ in range(4)]
    veins, arteries, blood, exudates = map(ImageDraw.Draw, images)
    half = size * OVERSAMPLING / 2  # 1 in the coordinates of the photograph
    start = np.array(appearance.disc[:2])
    for canvas, scale in ((veins, 1.0), (arteries, 0.72)):
        width = appearance.vessel_width * scale
        for side in (-1, 1):  # four arcades from the optic disc, each branching
            temporal = side * rng.uniform(1.7, 2.1), side * rng.uniform(0.55, 0.9)
            nasal = side * rng.uniform(0.45, 1.0), side * rng.uniform(-0.3, 0.4)
            for direction, thickness in ((temporal, width), (nasal, width * 0.75)):
                for points, piece in _branches(rng, start, *direction, thickness, appearance.winding):
                    pixels = ((points + 1) * half).ravel().tolist()
                    canvas.line(pixels, fill=255, width=max(1, round(piece * half)), joint="curve")
    low, high = LESIONS_OF_GRADE[grade]
    for centre in _lesion_centres(rng, appearance, rng.integers(low, high + 1)):
        kind = "microaneurysm" if grade < 2 else rng.choice(list(LESION_RADII), p=(0.4, 0.35, 0.25))
        least, most, ragged = LESION_RADII[kind]
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        waves = [rng.normal() * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3)]
        radii = rng.uniform(least, most) * (1 + ragged * np.clip(sum(waves), -2, 2))
        canvas = exudates if kind == "exudate" else blood
        outline = centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
        canvas.polygon(((outline + 1) * half).ravel().tolist(), fill=255)
    masks = []
    for image, softness in zip(images, (0.0, 0.0, 0.008, 0.006), strict=True):
        reduced = image.reduce(OVERSAMPLING)
        blurred = reduced.filter(ImageFilter.GaussianBlur(softness * reduced.width / 2))
        masks.append(np.asarray(blurred, dtype=np.float32) / 255)
    return tuple(masks)


def _branches(
    rng: np.random.Generator, start: np.ndarray, angle: float, bend: float, width: float, winding: float
) -> Iterator[tuple[np.ndarray, float]]:
    """A vessel that leaves `start` at `angle` (radians), turns by `bend` per unit length, thins and forks."""
    waiting = [(start, angle, bend, width)]
    while waiting:
        start, angle, bend, width = waiting.pop()
        steps = int(rng.integers(5, 9))
        angles = angle + np.cumsum(bend * 0.045 + rng.normal(0, winding, steps))
        moves = 0.045 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = np.concatenate([start[None], start + np.cumsum(moves, axis=0)])
        yield points, width
        if np.hypot(*points[-1]) > 1 or width < 0.009:
            continue
        waiting.append((points[-1], angles[-1], bend, width * 0.91))
        if rng.uniform() < 0.6:
            turn = rng.choice((-1, 1)) * rng.uniform(0.4, 0.9)
            waiting.append((points[-1], angles[-1] + turn, -0.6 * turn, width * rng.uniform(0.45, 0.65)))


def _lesion_centres(rng: np.random.Generator, appearance: Appearance, count: int) -> np.ndarray:
    """Float (count, 2): outside the optic disc and far enough apart to be counted."""
    disc_x, disc_y, radius = appearance.disc
    centres: list[np.ndarray] = []
    while len(centres) < count:
        distance, angle = 0.85 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        centre = distance * np.array([np.cos(angle), np.sin(angle)])
        others = [*centres, np.array([disc_x, disc_y])]
        least = [0.11] * len(centres) + [radius + 0.08]
        if np.all(np.hypot(*(np.array(others) - centre).T) > least):
            centres.append(centre)
    return np.array(centres).reshape(count, 2)
