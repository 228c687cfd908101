"""Images on which an export is compared with the model it was made from: the run's own, or drawn ones."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.comparisons.comparison_images import run_images
from radtransfer.datasets import read_table
from radtransfer.errors import RadtransferError
from radtransfer.examination.image_examination import examine_images
from radtransfer.image_place import ImagePlace, read_contents
from radtransfer.runs import read_rows
from radtransfer.settings import ImageSettings

_IMAGES = 8
_ENCODED = ("jpeg", "png8", "png16")


@dataclass(frozen=True, eq=False)
class Samples:
    """Images as the network gets them, and as they are stored.

    Attributes:
        images: float32 (images, size, size, 3), RGB, 0–255.
        encoded: The bytes of those that are JPEGs or PNGs.
        encoded_rows: Which of `images` these are.
        real: How many are the run's; 0 where these are not on disk any more and others were drawn.
    """

    images: np.ndarray
    encoded: list[bytes]
    encoded_rows: list[int]
    real: int


def sample_images(run: Path, fold: int, *, size: int, reading: ImageSettings) -> Samples:
    """Some test images of a fold, spread over all of them.

    Args:
        run: The run's folder.
        fold: Number.
        size: Side of the images that the model takes, pixels.
        reading: How the run read its images.
    """
    places = _tested_places(run, fold)
    if places:
        try:
            return _read(places, size, reading, real=len(places))
        except (RadtransferError, OSError):  # damaged or gone since
            pass
    with tempfile.TemporaryDirectory() as folder:
        return _read(_drawn_files(Path(folder), size), size, reading, real=0)


def _tested_places(run: Path, fold: int) -> list[ImagePlace]:
    try:
        table = read_table(run_images(run).data)
        rows = read_rows(run / f"fold_{fold}" / "predictions.csv")
        tested = [row["path"] for row in rows if row.get("split") == "test"]
    except (RadtransferError, OSError):
        return []
    where = dict(zip(table.paths, table.files, strict=True))
    found = [where[path] for path in tested if where.get(path) is not None]
    chosen = np.linspace(0, len(found) - 1, min(_IMAGES, len(found))).astype(int)
    return [found[number] for number in chosen]


def _read(places: list[ImagePlace], size: int, reading: ImageSettings, *, real: int) -> Samples:
    from radtransfer.pipeline.batches import make_batches

    facts = examine_images(places, reading)
    batches = make_batches(
        [str(place) for place in places],
        places,
        facts,
        np.zeros((len(places), 1), np.float32),
        image_size=size,
        reading=reading,
        batch_size=len(places),
        workers=1,
    )
    images = next(iter(batches.in_order()))[0].numpy()
    rows = [row for row, fact in enumerate(facts) if fact.decoder in _ENCODED]
    return Samples(images, [read_contents(places[row]) for row in rows], rows, real)


def _drawn_files(folder: Path, size: int) -> list[ImagePlace]:
    """Coarse patterns of little contrast, which no network is sure about, as PNG files."""
    rng, step = np.random.default_rng(0), max(1, size // 6)
    files = []
    for number in range(_IMAGES):
        coarse = rng.integers(64, 192, (8, 9, 3), np.uint8)
        files.append(folder / f"{number}.png")
        Image.fromarray(np.kron(coarse, np.ones((step, step, 1), np.uint8))).save(files[-1])
    return files
