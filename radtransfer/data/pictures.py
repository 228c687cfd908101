"""The HTML page of a data check, with thumbnails, and the preview of augmented images."""

import base64
import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from radtransfer.config.schema import Config, ImageSettings
from radtransfer.data.check import SPLITS, DataReport
from radtransfer.data.checks import counted, survey_image
from radtransfer.data.image_check import check_images, examine_image, read_pixels
from radtransfer.data.readers import read_table
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImageRef, read_contents, scaled
from radtransfer.process import Progress, keras_defaults, usable_cores
from radtransfer.reports.figures import SheetRow, draw_contact_sheet, shortened_middle
from radtransfer.reports.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 144  # longer side of a thumbnail, pixels
_PIXELS = 50_000_000  # larger damaged images are not shown, as the header may be damaged

# EXIF orientation to Pillow's transposition.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def thumbnail(ref: ImageRef | None, facts: ImageFacts | None, *, window: str = "auto") -> str | None:
    """The upright thumbnail as a data URI, None if nothing can be decoded; `facts` is None for a damaged image."""
    if ref is None:
        return None
    if facts is None:
        try:  # the part of a damaged PNG or JPEG that Pillow decodes
            image = Image.open(io.BytesIO(read_contents(ref)), formats=("PNG", "JPEG"))
            if image.width * image.height > _PIXELS:
                return None
            with contextlib.suppress(Exception):  # Pillow may raise anything
                image.load()
            image.tile = []  # keep what was decoded
            image = image.convert("RGB")
        except Exception:
            return None
        return _data_uri(image)
    try:
        if facts.deep:
            facts = examine_image(ref, ImageSettings(window=window))[0]
        pixels = read_pixels(ref, facts, window=window)
    except BadImageError:
        return None
    if pixels.dtype == np.uint16:
        pixels = scaled(pixels.astype("float32"), facts.levels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return _data_uri(image, turn=_TURNS.get(facts.orientation))


def _data_uri(image: Image.Image, *, turn: Image.Transpose | None = None) -> str:
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    if turn is not None:
        image = image.transpose(turn)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


FINDINGS_SHOWN = 40  # findings of one kind on the page
IMAGES_SHOWN = 8  # thumbnails of one finding

_TITLES = {
    "table": "Table",
    "few_patients": "Few patients of a class",
    "contradictory_labels": "One image with several labels",
    "contradictory_patients": "One image with several patients",
    "missing_labels": "Missing labels",
    "missing_patients": "Missing patients",
    "label_column": "Label column",
    "joined_labels": "Several labels in one cell",
    "one_hot_columns": "One column per class",
    "split_ignored": "Unused split column",
    "not_assigned": "Images without a split",
    "patients_alike": "One patient under several spellings",
    "patients_rounded": "Patient ids rounded by a spreadsheet",
    "leak": "Leaks between splits",
    "links": "Links that point outside the folder",
    "duplicate": "Duplicate images",
    "near_duplicate": "Similar images",
    "missing": "Missing files",
    "empty_file": "Empty files",
    "not_an_image": "Not images",
    "truncated": "Truncated files",
    "corrupt": "Corrupt files",
    "too_large": "Too large",
    "unreadable": "Unreadable files",
    "constant": "Constant images",
    "nearly_constant": "Nearly constant images",
    "range": "Range of pixel values",
    "no_patients": "Patients unknown",
    "one_class": "Only one class",
    "uneven_folds": "Folds of unequal size",
    "imbalance": "Class imbalance",
    "small_image": "Small images",
    "unusual_size": "Unusual sizes",
    "mixed_modes": "Mixed colour modes",
    "orientation": "Images rotated by EXIF",
    "header": "Contradictory headers",
    "splits": "Splits",
}


def check_page(report: DataReport, *, count: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The HTML page; `count` is called with the number of finished kinds of findings."""
    evidence, kinds = report.evidence, []

    def image(path: str) -> tuple[str, str, str | None]:
        """Path, label and thumbnail."""
        if evidence is not None and path in evidence.row_of:
            row = evidence.row_of[path]
            picture = thumbnail(evidence.table.files[row], evidence.records[row].facts, window=evidence.window)
            return path, evidence.table.labels[row], picture
        ref = report.left_out.get(path)
        return path, "", None if ref is None else thumbnail(ref, survey_image(ref).facts)

    for (severity, name), findings in report.kinds.items():
        shown = findings[:FINDINGS_SHOWN]
        kinds.append(
            {
                "severity": severity,
                "name": name,
                "title": _TITLES.get(name, name),
                "count": len(findings),
                "one_image_each": all(len(finding.files) == 1 for finding in shown),
                # Message, first images, and number of other images
                "findings": [
                    (f.message, [image(path) for path in f.files[:IMAGES_SHOWN]], len(f.files) - IMAGES_SHOWN)
                    for f in shown
                ],
            }
        )
        count(len(kinds), len(report.kinds))
    return render("check_page.html.j2", report=report, kinds=kinds, splits=SPLITS, counted=counted)


def preview_data(config: Config, *, images: int, copies: int, progress: Progress | None = None) -> "Figure":
    """A contact sheet of `images` images as the network sees them, each with `copies` augmented variations.

    It uses `data`, `images`, `model.image_size`, `training.augmentation` and `seed` of `config`; the classes alternate.
    Raises ConfigError for contradictory settings or an unknown augmentation, and DataError for an unusable table or if
    no image can be read.
    """
    augmentation, size = config.training.augmentation, config.model.image_size
    AUGMENTATIONS.check(augmentation)
    table = read_table(config.data, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        checked = check_images(
            table.select(chosen_rows(table, images, config.seed)),
            workers=usable_cores(),
            on_bad_image="skip",
            reading=config.images,
            report_file=Path(folder) / "bad_images.txt",
        )
    for image in checked.bad if progress else ():
        progress.note(f"{image.path} cannot be read and is skipped ({image.reason})")
    copies = 0 if augmentation == "none" else copies
    with keras_defaults():
        from radtransfer.images.pipeline import make_batches

        batches = make_batches(
            checked.table.paths,
            checked.table.files,
            checked.facts,
            checked.table.targets,
            image_size=size,
            reading=config.images,
            batch_size=len(checked.table),
            workers=usable_cores(),
            augmentation=augmentation,
        )
        epochs = [batches.in_order(), *(batches.shuffled(number, seed=config.seed) for number in range(1, copies + 1))]
        columns = []  # images of each pass in table order, uint8 (height, width, 3)
        for epoch in epochs:
            (batch,) = epoch
            pixels = np.clip(np.rint(batch[0].numpy()), 0, 255).astype(np.uint8)
            columns.append([pixels[position] for position in np.argsort(epoch.rows[0])])
        pictures = list(zip(*columns, strict=True))
    return draw_contact_sheet(
        [
            SheetRow(PurePosixPath(path.replace("\\", "/")).name, label, row)
            for path, label, row in zip(checked.table.paths, checked.table.labels, pictures, strict=True)
        ],
        heads=["as the network sees it", *(f"variation {number}" for number in range(1, copies + 1))],
        classes=table.classes,
        title=f"{shortened_middle(config.data.source, 60)}, {size} px, augmentation {augmentation}, seed {config.seed}",
    )


def chosen_rows(table: ImageTable, images: int, seed: int) -> np.ndarray:
    """Up to `images` random rows, alternating between classes or labels; sorted by class, then by draw."""
    rng = np.random.Generator(np.random.PCG64(seed))
    of_class = [rng.permutation(np.flatnonzero(column == 1)).tolist() for column in table.targets.T]
    of_class.append(rng.permutation(np.flatnonzero(~(table.targets == 1).any(axis=1))).tolist())
    taken: dict[int, tuple[int, int]] = {}
    for turn in range(max(map(len, of_class))):
        for number, rows in enumerate(of_class):
            if turn < len(rows) and len(taken) < images:
                taken.setdefault(rows[turn], (number, turn))
    return np.array(sorted(taken, key=taken.get))
