"""The report of a data check as one HTML page that needs nothing else: no scripts, no files, no network.

Small pictures of images for a page, of damaged ones what can still be seen.

Images as the network sees them, and as the augmentation varies them in training.
"""

import base64
import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from radtransfer.config.schema import Config, ImageSettings
from radtransfer.data.check import SPLITS, DataReport
from radtransfer.data.checks import Finding, counted
from radtransfer.data.image_check import CheckedImages, check_images, examine_image, read_pixels
from radtransfer.data.readers import read_table
from radtransfer.data.survey import survey_image
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.files import html_text
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImagePlace, read_contents, scaled
from radtransfer.process import Progress, keras_defaults, usable_cores
from radtransfer.reports.figures import SheetRow, draw_contact_sheet
from radtransfer.reports.figures import shortened_contact_sheet as shortened

SIDE = 144
"""Longer side of a thumbnail, pixels."""

_PIXELS = 50_000_000
"""Above so many a damaged image is not shown: its header may be what is damaged."""

# How Pillow turns an image for each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def thumbnail(place: ImagePlace | None, facts: ImageFacts | None, *, window: str = "auto") -> str | None:
    """A picture as a data URI, upright; None where nothing of the image can be seen.

    Args:
        place: Where it lies.
        facts: How it is stored; None for a damaged image.
        window: The setting `images.window`.
    """
    if place is None:
        return None
    if facts is None:
        image = _remains(place)
        return None if image is None else _data_uri(image)
    try:
        if facts.deep:
            facts = examine_image(place, ImageSettings(window=window))[0]
        pixels = read_pixels(place, facts, window=window)
    except BadImageError:
        return None
    if pixels.dtype == np.uint16:
        pixels = scaled(pixels.astype("float32"), facts.levels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return _data_uri(image, turn=_TURNS.get(facts.orientation))


def _remains(place: ImagePlace) -> Image.Image | None:
    """What Pillow decodes of a damaged PNG or JPEG before it meets the damage."""
    try:
        image = Image.open(io.BytesIO(read_contents(place)), formats=("PNG", "JPEG"))
        if image.width * image.height > _PIXELS:
            return None
        with contextlib.suppress(Exception):  # whatever a damaged file makes Pillow raise
            image.load()
        image.tile = []  # nothing left to load: what was decoded stands
        return image.convert("RGB")
    except Exception:
        return None


def _data_uri(image: Image.Image, *, turn: Image.Transpose | None = None) -> str:
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    if turn is not None:
        image = image.transpose(turn)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


FINDINGS_SHOWN = 40
"""Findings of one kind on the page."""

IMAGES_SHOWN = 8
"""Thumbnails of one finding."""

_TITLES = {
    "table": "The table",
    "few_patients": "Few patients of a class",
    "contradictory_labels": "One image with several labels",
    "contradictory_patients": "One image with several patients",
    "missing_labels": "Missing labels",
    "missing_patients": "Missing patients",
    "label_column": "The label column",
    "joined_labels": "Several labels in one cell",
    "one_hot_columns": "A column for each class",
    "split_ignored": "A split that is not used",
    "not_assigned": "Images in no split",
    "patients_alike": "One patient under several spellings",
    "patients_rounded": "Patient ids rounded by a spreadsheet",
    "leak": "The same in two splits",
    "links": "Links that lead out of the folder",
    "duplicate": "Copies of one image",
    "near_duplicate": "Images that look alike",
    "missing": "Missing files",
    "empty_file": "Empty files",
    "not_an_image": "Not images",
    "truncated": "Truncated files",
    "corrupt": "Corrupt files",
    "too_large": "Too large",
    "unreadable": "Files that may not be read",
    "constant": "Constant images",
    "nearly_constant": "Nearly constant images",
    "range": "Range of values",
    "no_patients": "Patients not known",
    "one_class": "One class only",
    "uneven_folds": "Training sets of unequal size",
    "imbalance": "Unequal classes",
    "small_image": "Small images",
    "unusual_size": "Unusual sizes",
    "mixed_modes": "Mixed colour modes",
    "orientation": "Turned images",
    "header": "Headers that the pixels deny",
    "splits": "The splits",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5d6873; --paper: #fff; --back: #f3f5f7; --line: #dfe4e8;
  --error: #b3261e; --warning: #9a5b00; --note: #37618e; --good: #1b6e3c; --bar: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b0; --paper: #1b2026; --back: #12161a;
  --line: #323a43; --error: #ff8a80; --warning: #ffb95c; --note: #92c1f0; --good: #7ddc9c; --bar: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 0; }
header p { color: var(--soft); margin: 4px 0 0; }
.verdict { display: inline-block; margin-top: 14px; padding: 6px 14px; border-radius: 99px; font-weight: 600;
  border: 1.5px solid currentColor; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.good { color: var(--good); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 16px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 40px; margin: 0; }
.facts dt { color: var(--soft); font-size: 13px; } .facts dd { margin: 0; font-size: 18px; font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin-top: 10px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); font-weight: 400; }
th { color: var(--soft); font-size: 13px; } th:first-child, td:first-child, .left { text-align: left; }
.scroll { overflow-x: auto; }
.bar { display: inline-block; height: 10px; border-radius: 2px; background: var(--bar); vertical-align: baseline; }
summary { cursor: pointer; display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: baseline; }
summary .count { color: var(--soft); }
.tag { font-size: 12px; font-weight: 600; border: 1px solid currentColor; border-radius: 4px; padding: 0 6px; }
.finding { border-top: 1px solid var(--line); margin-top: 12px; padding-top: 12px; }
.finding p, .more { margin: 0; overflow-wrap: anywhere; } .more { color: var(--soft); margin-top: 12px; }
.images { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 10px; }
figure { margin: 0; width: 144px; } figure img, .blank { width: 144px; height: 144px; object-fit: contain;
  background: #000; border-radius: 6px; display: block; }
.blank { background: repeating-linear-gradient(45deg, var(--back) 0 8px, var(--line) 8px 16px); }
figcaption { font-size: 12px; color: var(--soft); overflow-wrap: anywhere; line-height: 1.35; margin-top: 4px; }
figcaption b { color: var(--ink); font-weight: 600; }
"""


def check_page(report: DataReport, *, count: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The page as text; every name in it is escaped.

    Args:
        report: What was found.
        count: Hears how many kinds of findings are drawn.
    """
    kinds = report.kinds
    sections = []
    for number, ((severity, kind), findings) in enumerate(kinds.items(), start=1):
        sections.append(_kind(severity, kind, findings, report))
        count(number, len(kinds))
    body = "\n".join([_header(report), _facts(report), _classes(report), _splits(report), *sections])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>Data check: {html_text(report.data)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(report: DataReport) -> str:
    counts = {severity: sum(f.severity == severity for f in report.findings) for severity in ("error", "warning")}
    found = f"{counted(counts['error'], 'error')}, {counted(counts['warning'], 'warning')}"
    verdict, style = (
        ("Nothing makes results invalid", "good") if report.valid else ("Results would be invalid", "error")
    )
    return (
        f"<header><h1>{html_text(report.data)}</h1><p>radtransfer data check: {found}</p>"
        f'<div class="verdict {style}">{verdict}</div></header>'
    )


def _facts(report: DataReport) -> str:
    facts = {
        "images": f"{report.images:,}",
        "patients": "not known" if report.patients is None else f"{report.patients:,}",
        "classes": str(len(report.classes)),
    }
    if report.sizes:
        height, width = report.sizes["height"], report.sizes["width"]
        facts["width × height, median"] = f"{width['median']:g} × {height['median']:g} px"
        if report.sizes["distinct"] > 1:
            facts["smallest, largest side"] = (
                f"{min(width['min'], height['min'])}, {max(width['max'], height['max'])} px"
            )
    facts["stored as"] = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.items()) or "not known"
    rows = "".join(f"<div><dt>{html_text(name)}</dt><dd>{html_text(text)}</dd></div>" for name, text in facts.items())
    return f'<section><dl class="facts">{rows}</dl></section>'


def _classes(report: DataReport) -> str:
    if not report.classes:
        return ""
    most = max(max(counts["images"] for counts in report.classes.values()), 1)
    modes = list(report.modes) if len(report.modes) > 1 else []
    rows = "".join(
        f"<tr><td>{html_text(name)}</td><td>{counts['images']:,}</td><td>{_number(counts['patients'])}</td>"
        + "".join(f"<td>{report.class_modes[name][mode]:,}</td>" for mode in modes)
        + f'<td class="left"><span class="bar" style="width: {220 * counts["images"] / most:.0f}px"></span></td></tr>'
        for name, counts in report.classes.items()
    )
    stored = "".join(f"<th>stored as {html_text(mode)}</th>" for mode in modes)
    head = f'<tr><th>class</th><th>images</th><th>patients</th>{stored}<th class="left"></th></tr>'
    return f'<section><h2>Classes</h2><div class="scroll"><table>{head}{rows}</table></div></section>'


def _splits(report: DataReport) -> str:
    folds = report.splits["folds"]
    if not folds:
        return ""
    names = "".join(f"<th>{html_text(name)}</th>" for name in report.classes)
    rows = "".join(
        f'<tr><td>{fold["fold"] if split == "train" else ""}</td><td class="left">{split}</td>'
        f"<td>{fold[split]['images']:,}</td><td>{_number(fold[split]['patients'])}</td>"
        + "".join(f"<td>{count:,}</td>" for count in fold[split]["classes"].values())
        + "</tr>"
        for fold in folds
        for split in SPLITS
    )
    head = f'<tr><th>fold</th><th class="left">split</th><th>images</th><th>patients</th>{names}</tr>'
    source = "given with the data" if report.splits["given"] else "as finetune would draw them"
    return (
        f"<section><details{' open' if len(folds) == 1 else ''}><summary><h2>Splits</h2>"
        f'<span class="count">{counted(len(folds), "fold")}, {source}</span></summary>'
        f'<div class="scroll"><table>{head}{rows}</table></div></details></section>'
    )


def _kind(severity: str, kind: str, findings: Sequence[Finding], report: DataReport) -> str:
    shown = findings[:FINDINGS_SHOWN]
    if all(len(finding.files) == 1 for finding in shown):
        figures = "".join(_figure(finding.files[0], report, finding.message) for finding in shown)
        body = f'<div class="finding images">{figures}</div>'
    else:
        body = "".join(_finding(finding, report) for finding in shown)
    left = len(findings) - len(shown)
    more = f'<p class="more">and {left:,} more; all are in check.json</p>' if left > 0 else ""
    is_open = " open" if severity != "note" else ""
    return (
        f"<section><details{is_open}><summary><h2>{html_text(_TITLES.get(kind, kind))}</h2>"
        f'<span class="tag {severity}">{severity}</span><span class="count">{kind}, {len(findings):,}</span></summary>'
        f"{body}{more}</details></section>"
    )


def _finding(finding: Finding, report: DataReport) -> str:
    figures = "".join(_figure(path, report) for path in finding.files[:IMAGES_SHOWN])
    left = len(finding.files) - IMAGES_SHOWN
    more = f'<p class="more">and {left:,} more of them</p>' if left > 0 else ""
    images = f'<div class="images">{figures}</div>' if figures else ""
    return f'<div class="finding"><p>{html_text(finding.message)}</p>{images}{more}</div>'


def _figure(path: str, report: DataReport, message: str = "") -> str:
    label, picture, evidence = "", None, report.evidence
    if evidence is not None and path in evidence.row_of:
        row = evidence.row_of[path]
        label = evidence.labels[row]
        picture = thumbnail(evidence.table.files[row], evidence.records[row].facts, window=evidence.window)
    elif report.left_out.get(path) is not None:
        place = report.left_out[path]
        picture = thumbnail(place, survey_image(place).facts)
    image = f'<img src="{picture}" alt="">' if picture else '<div class="blank"></div>'
    caption = f"<b>{html_text(label)}</b> {html_text(path)}" if label else html_text(path)
    caption += f"<br>{html_text(message)}" if message else ""
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radtransfer.images.pipeline import Epoch


def preview_data(config: Config, *, images: int, copies: int, progress: Progress | None = None) -> "Figure":
    """A contact sheet: each image as the network sees it, then `copies` random variations of it.

    Args:
        config: Of which `data`, `images`, `model.image_size`, `training.augmentation` and the seed count.
        images: Rows; the classes take turns.
        copies: Variations; there are none where the augmentation is none.
        progress: Hears of images that cannot be read.

    Raises:
        ConfigError: Settings that contradict each other, or no such augmentation.
        DataError: The table cannot be used, or none of the images can be read.
    """
    augmentation, size = config.training.augmentation, config.model.image_size
    AUGMENTATIONS.check(augmentation)
    table = read_table(config.data, progress=progress)
    checked = _checked(table.select(chosen_rows(table, images, config.seed)), config, progress or Progress())
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
        pictures = list(zip(*(_pictures(epoch) for epoch in epochs), strict=True))
    return draw_contact_sheet(
        [
            SheetRow(PurePosixPath(path.replace("\\", "/")).name, label, row)
            for path, label, row in zip(checked.table.paths, checked.table.labels, pictures, strict=True)
        ],
        heads=["as the network sees it", *(f"variation {number}" for number in range(1, copies + 1))],
        classes=table.classes,
        title=f"{shortened(config.data.source, 60)}, {size} px, augmentation {augmentation}, seed {config.seed}",
    )


def chosen_rows(table: ImageTable, images: int, seed: int) -> np.ndarray:
    """Up to `images` rows, in random order of each class or label, which take turns; sorted by class, then by draw."""
    rng = np.random.Generator(np.random.PCG64(seed))
    of_class = [rng.permutation(np.flatnonzero(column == 1)).tolist() for column in table.targets.T]
    of_class.append(rng.permutation(np.flatnonzero(~(table.targets == 1).any(axis=1))).tolist())
    taken: dict[int, tuple[int, int]] = {}
    for turn in range(max(map(len, of_class))):
        for number, rows in enumerate(of_class):
            if turn < len(rows) and len(taken) < images:
                taken.setdefault(rows[turn], (number, turn))
    return np.array(sorted(taken, key=taken.get))


def _checked(table: ImageTable, config: Config, progress: Progress) -> CheckedImages:
    """The images that can be read; the others are named in a note."""
    with tempfile.TemporaryDirectory() as folder:
        checked = check_images(
            table,
            workers=usable_cores(),
            on_bad_image="skip",
            reading=config.images,
            report_file=Path(folder) / "bad_images.txt",
        )
    for image in checked.bad:
        progress.note(f"{image.path} cannot be read and is left out ({image.reason})")
    return checked


def _pictures(epoch: "Epoch") -> list[np.ndarray]:
    """The images of one pass in table order, uint8 (height, width, 3)."""
    (batch,) = epoch
    images = np.clip(np.rint(batch[0].numpy()), 0, 255).astype(np.uint8)
    return [images[place] for place in np.argsort(epoch.rows[0])]
