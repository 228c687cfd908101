"""The images, tables and weights that golden results are made of."""

import csv
import json
import os
from pathlib import Path

import dicom_files
import numpy as np
import published_files
from PIL import Image

STUDY = """
study: {name: tiny, reference: scratch, threshold: 0.4}
base:
  data: {source: data/images.csv, image_root: data/images}
  splits: {folds: 2, fold: [1], val_fraction: 0.3}
  model: {backbone: cbr_tiny, image_size: 24}
  training: {batch_size: 8, learning_rate: 1.0e-3, epochs: 2, augmentation: none, eval_every: 3}
sources:
  other:
    data: {source: data/elsewhere/images.csv}
    model: {image_size: 24}
    training: {batch_size: 8, learning_rate: 1.0e-3, epochs: 1, augmentation: none}
    seed: 7
arms:
  scratch: {}
  transfer: {model.weights: source:other}
  mean_var: {model.weights: source:other, transfer.scheme: mean_var}
grid: {seed: [0, 1]}
compare:
  cca: [[transfer@initial, transfer]]
  predictions: [[transfer, scratch]]
"""


def draw(folder: Path) -> None:
    """All images and tables, the same at every call, with times to match."""
    rng = np.random.default_rng(0)
    rows = _draw_squares(folder / "images", rng, 60)
    write_table(folder / "images.csv", "path,label,patient", rows)
    patients = [int(row[2][1:]) for row in rows]
    grades = [[row[0], (row[1] == "sick") * 2 + k % 2, row[2]] for row, k in zip(rows, patients, strict=True)]
    write_table(folder / "grades.csv", "path,grade,patient", grades)
    gaps = [[row[0], "" if number % 9 == 4 else row[1], row[2]] for number, row in enumerate(rows)]
    write_table(folder / "gaps.csv", "path,label,patient", gaps)
    other = [
        [row[0], "unclear" if k % 7 == 3 else {"sick": "ill", "well": "healthy"}[row[1]]]
        for row, k in zip(rows, patients, strict=True)
    ]
    write_table(folder / "renamed.csv", "path,label", other)
    findings = [[int(row[1] == "sick"), *rng.choice(["0", "1", "-1", ""], 2, p=[0.4, 0.4, 0.1, 0.1])] for row in rows]
    tables = [[row[0], *found, row[2]] for row, found in zip(rows, findings, strict=True)]
    write_table(folder / "findings.csv", "path,effusion,mass,nodule,patient", tables)
    joined = [[row[0], "|".join(n for n, v in zip("abc", f, strict=True) if str(v) == "1") or "clear", row[2]]
              for row, f in zip(rows, findings, strict=True)]  # fmt: skip
    write_table(folder / "joined.csv", "path,labels,patient", joined)
    splits = [
        [*row, "test" if k % 5 == 0 else "val" if k % 5 == 1 else "train"]
        for row, k in zip(rows, patients, strict=True)
    ]
    write_table(folder / "splits.csv", "path,label,patient,split", splits)
    leaky = [[*row, ("train", "test", "val")[number % 3]] for number, row in enumerate(rows)]
    write_table(folder / "leaky.csv", "path,label,patient,split", leaky)
    write_table(folder / "elsewhere" / "images.csv", "path,label,patient", _draw_squares(folder / "elsewhere", rng, 32))
    _draw_mixed(folder / "mixed", rng)
    _draw_films(folder / "films", rng)
    _draw_wrong(folder / "wrong", rng)
    published_files.write_published(folder / "published")
    _write_torch(folder / "densenet121.safetensors", rng)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "typo.yaml").write_text("training: {epoch: 3}\n")
    (folder / "page.h5").write_text("<!DOCTYPE html><html>virus scan</html>")
    (folder / "empty").mkdir()
    (folder / "empty.csv").write_text("path,label,patient\n")
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def _draw_squares(folder: Path, rng: np.random.Generator, count: int) -> list[list[str]]:
    """Grey squares, two of each patient, and their rows; a network can tell most of them, not all."""
    rows = []
    for number in range(count):
        label = ("well", "sick")[number // 2 % 2]
        pixels = rng.integers(0, 120, (24, 24), np.uint8)
        if (label == "sick") != (rng.random() < 0.2):
            pixels[4:14, 6:16] += rng.integers(5, 60, dtype=np.uint8)
        rows.append([f"{label}/p{number // 2:02d}_{number % 2}.png", label, f"p{number // 2:02d}"])
        _save(folder / rows[-1][0], pixels)
    return rows


def _draw_mixed(folder: Path, rng: np.random.Generator) -> None:
    """Formats, shapes and depths: JPEG, 16-bit PNG and TIFF, TIFF of two frames, palette, RGBA; 24 images."""
    for number in range(24):
        place = folder / ("well", "sick")[number % 2]
        height, width = 30 + 3 * (number % 4), 40 + 5 * (number % 3)
        smooth = np.add.outer(np.arange(height), np.arange(width))[..., None] * rng.uniform(0.5, 1.5, 3)
        colour = np.clip(smooth + rng.normal(60 * (number % 2), 20, smooth.shape), 0, 255).astype(np.uint8)
        grey = Image.fromarray(colour[..., 0].astype(np.uint16) * 257)
        kind = number // 2 % 6
        name = f"{number:02d}.{('jpg', 'png', 'tif', 'tif', 'png', 'png')[kind]}"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if kind == 0:
            Image.fromarray(colour).save(place / name, quality=92)
        elif kind in (1, 2):
            grey.save(place / name)
        elif kind == 3:
            Image.fromarray(colour).save(place / name, save_all=True, append_images=[Image.fromarray(255 - colour)])
        else:
            Image.fromarray(colour).convert("P" if kind == 4 else "RGBA").save(place / name)


def _draw_films(folder: Path, rng: np.random.Generator) -> None:
    """24 DICOM files of 12 patients: both monochromes, with window or without, one of two frames."""
    dicom_files.generate_uid = lambda: "1.2.3.4"
    for number in range(24):
        sick = number // 2 % 2
        pixels = np.clip(rng.normal(1800, 500, (48, 40)), 0, 4095).astype("uint16")
        pixels[10:24, 8:20] += np.uint16(250 * sick)
        options = {"BitsStored": 12, "PatientID": f"p{number // 2:02d}"}
        if number % 3 == 0:
            pixels, options["PhotometricInterpretation"] = 4095 - np.minimum(pixels, 4095), "MONOCHROME1"
        if number % 4 == 0:
            options |= {"WindowCenter": 2048, "WindowWidth": 3000, "RescaleSlope": 1.5, "RescaleIntercept": -100}
        if number == 23:
            pixels, options["NumberOfFrames"] = np.stack([pixels, pixels // 2]), 2
        file = folder / ("well", "sick")[sick] / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        dicom_files.write(file, np.minimum(pixels, 4095), **options)


def _draw_wrong(folder: Path, rng: np.random.Generator) -> None:
    """Images with everything that `data check` finds: damaged, blank, one under two labels, alike."""
    _draw_squares(folder, rng, 12)
    first, second, third, *_ = sorted(folder.glob("well/*.png"))
    first.write_bytes(first.read_bytes()[:60])
    (folder / "sick" / "copy.png").write_bytes(second.read_bytes())
    pixels = np.array(Image.open(third))
    pixels[0, 0] ^= 1
    _save(folder / "well" / "alike.png", pixels)
    _save(folder / "well" / "blank.png", np.zeros((24, 24), np.uint8))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_table(path: Path, header: str, rows: list[list]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header.split(","), *rows])


def _write_torch(path: Path, rng: np.random.Generator) -> None:
    """A safetensors file of a DenseNet121 as torchvision names it, with drawn weights and no head."""
    shapes = {"conv0.weight": (64, 3, 7, 7), "norm0": 64}
    width = 64
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            at = f"denseblock{block}.denselayer{layer}"
            shapes |= {f"{at}.norm1": width, f"{at}.conv1.weight": (128, width, 1, 1)}
            shapes |= {f"{at}.norm2": 128, f"{at}.conv2.weight": (32, 128, 3, 3)}
            width += 32
        if block < 4:
            at, width = f"transition{block}", width // 2
            shapes |= {f"{at}.norm": 2 * width, f"{at}.conv.weight": (width, 2 * width, 1, 1)}
    shapes["norm5"] = width
    names = {}
    for name, shape in shapes.items():
        parts = (
            [name]
            if isinstance(shape, tuple)
            else [f"{name}.{p}" for p in ("weight", "bias", "running_mean", "running_var")]
        )
        names |= {f"features.{part}": shape if isinstance(shape, tuple) else (shape,) for part in parts}
    header, content = {}, []
    for name, shape in names.items():
        array = rng.random(shape, np.float32) * np.float32(0.1) + np.float32(0.01)
        begin = sum(map(len, content))
        content.append(array.tobytes())
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, begin + len(content[-1])]}
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"".join(content))
