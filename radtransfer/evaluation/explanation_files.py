"""What is asked of an explanation, and what it gives.

Maps laid over images: colours of a perceptually uniform map, the more opaque the higher.

A white line encloses half of the peak and more.

The sheet of explanations as one HTML page: no scripts, no files beside it, no network; every name is escaped.

What explanations leave behind: the sheet, a panel for each image, and the figures.

sheet.html   the page, which needs no other file      explanations.csv, .json   every figure on it
overlays/    a PNG for each image: as the network sees it, Grad-CAM, occlusion
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.evaluation.heat_maps import Randomized, Verdict, coarse_map_note, depend_on_weights
from radtransfer.files import html_text as _e
from radtransfer.files import whole_folder
from radtransfer.reports.page import STYLE
from radtransfer.reports.statistics import number
from radtransfer.runs.folder import write_json, write_rows, write_text

if TYPE_CHECKING:
    from radtransfer.evaluation.scored_network import ScoredNetwork


@dataclass(frozen=True)
class ExplainSettings:
    """What is asked for.

    Attributes:
        files: Images without labels; empty for others.
        data: A data set, in place of files or the run's test images.
        fold: Of a run with several.
        layer: Stage or layer of the map; None for the last stage.
        target: The class that is explained; None for what the network said about each image.
        limit: Images that are explained, at most.
        cells: Squares along a side that occlusion covers; 0 leaves occlusion out.
        seed: Of the weights that the test draws.
    """

    files: tuple[Path, ...] = ()
    data: DataSettings = field(default_factory=DataSettings)
    fold: int | None = None
    layer: str | None = None
    target: str | None = None
    limit: int = 24
    cells: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image explained.

    Attributes:
        path: Its identity.
        verdict: What the network said, and what of it is explained.
        image: As the network gets it, float32 (size, size, 3).
        heat: Grad-CAM, float32 (height, width) of the layer, at least 0.
        occlusion: float32 (cells, cells), at least 0; None where it was left out.
        agreement: Rank correlation of the two; None where one is the same everywhere, or was left out.
    """

    path: str
    verdict: Verdict
    image: np.ndarray
    heat: np.ndarray
    occlusion: np.ndarray | None
    agreement: float | None


@dataclass(frozen=True, eq=False)
class Explained:
    """All of them.

    Attributes:
        given: What the user called the network.
        network: As it was opened.
        what: Which images.
        images: How many were looked at.
        mistakes: How many the network got wrong; None without labels.
        target: The class that was asked for, if one was.
        explanations: Confident mistakes first.
        agreement: Median rank correlation of the two maps.
        randomized: The cascade; its last step has redrawn every weight.
    """

    given: str
    network: "ScoredNetwork"
    what: str
    images: int
    mistakes: int | None
    target: str | None
    explanations: list[Explanation]
    agreement: float | None
    randomized: list[Randomized]


SIDE = 288
"""Of a picture, pixels."""

COLORS = "inferno"
"""Of matplotlib; its lightness rises evenly, so that it reads in grey and with every kind of colour vision."""

_LOWEST, _OPACITY = 0.3, 0.7
"""Where in the colours a map begins, and how opaque its peak is, fractions."""

_GAP = 8


def picture(image: np.ndarray) -> np.ndarray:
    """An image as the network gets it, uint8 (SIDE, SIDE, 3).

    Args:
        image: float32 (size, size, 3), RGB, 0–255.
    """
    pixels = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return np.asarray(pixels.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over a picture, uint8 (SIDE, SIDE, 3); what is not above 0 leaves the picture as it is, in grey.

    Args:
        image: From `picture`.
        heat: float (height, width); its own largest value is the end of the colours.
    """
    import matplotlib

    strength = _enlarged(heat)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., np.newaxis].repeat(3, axis=2)
    colors = 255 * matplotlib.colormaps[COLORS](_LOWEST + (1 - _LOWEST) * strength)[..., :3]
    opacity = _OPACITY * strength[..., np.newaxis]
    mixed = (1 - opacity) * grey + opacity * colors
    mixed[_outline(strength > 0.5)] = 255
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def color_stops(count: int = 9) -> list[str]:
    """The colours from 0 to the peak, as CSS writes them."""
    import matplotlib

    colors = matplotlib.colormaps[COLORS](np.linspace(_LOWEST, 1, count))[:, :3]
    return ["#" + "".join(f"{round(255 * value):02x}" for value in color) for color in colors]


def side_by_side(pictures: list[np.ndarray]) -> Image.Image:
    """Pictures in a row, on white."""
    width = len(pictures) * (SIDE + _GAP) - _GAP
    row = np.full((SIDE, width, 3), 255, np.uint8)
    for place, one in enumerate(pictures):
        row[:, place * (SIDE + _GAP) : place * (SIDE + _GAP) + SIDE] = one
    return Image.fromarray(row)


def data_uri(pixels: np.ndarray) -> str:
    """A picture inside a page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _enlarged(heat: np.ndarray) -> np.ndarray:
    """A map from 0 to 1, float32 (SIDE, SIDE); all 0 where nothing is above 0."""
    heat = np.maximum(heat, 0).astype(np.float32)
    if heat.max() > 0:
        heat = heat / heat.max()
    return np.clip(np.asarray(Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BILINEAR)), 0, 1)


def _outline(area: np.ndarray) -> np.ndarray:
    """The outermost pixels of an area."""
    inner = np.pad(area, 1)
    inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return area & ~inner


_VERDICTS = {
    True: "With every weight redrawn the maps are other maps: they show what the network has learned.",
    False: "With every weight redrawn the maps are much the same, or their reverse: they show the images rather than "
    "what was learned. Do not rely on them; try another --layer.",
    None: "These maps are too few to tell whether they show what the network has learned. Explain more images.",
}

_STYLE = """
body { max-width: 70rem; }
.intro { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 0 3rem; }
.intro figure { margin-top: .6rem; } .intro p { font-size: 1rem; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(31rem, 1fr)); gap: 2rem 2.4rem; }
.cases.two { grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); }
.case { margin: 0; break-inside: avoid; }
.case .pictures { display: flex; gap: .4rem; }
.case .pictures div { flex: 1; min-width: 0; }
.case img { border-radius: 2px; aspect-ratio: 1; }
.case small { display: block; color: var(--soft); font: .74rem/1.4 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
.case figcaption { margin: .35rem 0 0; } .case figcaption b { font-size: .95rem; }
.case.wrong .verdict { border-color: #a1260d; color: #a1260d; }
.bar { display: inline-block; width: 9rem; height: .8rem; border-radius: 2px; vertical-align: -.08rem; margin: 0 .5em; }
table.small { width: auto; }
@media (max-width: 40rem) { .intro, .cases, .cases.two { grid-template-columns: 1fr; } }
@media print { .cases { grid-template-columns: 1fr 1fr; gap: 6mm; } }
"""


def explanation_sheet(explained: Explained) -> str:
    """The page as text."""
    title = f"What {explained.given} looks at"
    body = f'<div class="intro">{_how_to_read(explained)}{_checks(explained)}</div>\n{_cases(explained)}'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_e(title)}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_e(title)}</h1><p>Grad-CAM at {_e(_layer(explained))}</p>{_facts(explained)}</header>\n"
        f"<main>\n{body}\n</main>\n"
        "<footer><p>Written by radtransfer. Research software, not a medical device.</p></footer>\n</body>\n</html>\n"
    )


def _layer(explained: Explained) -> str:
    network, stage = explained.network, explained.network.stage
    height, width = network.grid
    named = f"the end of {stage} ({network.layer})" if stage else network.layer
    return f"{named}, a map of {height}×{width} for {network.image_size}×{network.image_size} pixels"


def _facts(explained: Explained) -> str:
    facts = {"images": f"{explained.images:,} {explained.what}"}
    if explained.mistakes is not None:
        facts["mistakes among them"] = f"{explained.mistakes:,}"
    facts["shown"] = f"{len(explained.explanations):,}"
    if explained.explanations[0].occlusion is not None:
        facts["agreement with occlusion, median"] = number(explained.agreement, 2)
    facts["agreement with random weights, median"] = number(explained.randomized[-1].correlation, 2)
    rows = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _how_to_read(explained: Explained) -> str:
    about = "what the network said" if explained.target is None else explained.target
    occlusion = ""
    if (covered := explained.explanations[0].occlusion) is not None:
        occlusion = (
            f" Beside it, by how much the same log odds fall when each of {len(covered)}×{len(covered)} squares is "
            "covered with the image's mean colour: another way to ask the same, which shares nothing with the first "
            "but the network."
        )
    coarse = coarse_map_note(explained.network)
    note = f"<p><strong>Note:</strong> {_e(coarse)}.</p>" if coarse else ""
    stops = ", ".join(color_stops())
    return (
        '<section id="reading"><h2>How to read it</h2>'
        f"<p>Colour marks where the layer holds what raises the log odds of {_e(about)}; each picture has its own "
        f"scale.{occlusion} A map is no outline of a lesion and no proof: a place can matter for a reason that is not "
        f"medical.</p>{note}"
        f'<p><small>nothing<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        "the most in this image; the white line encloses half of that and more</small></p></section>"
    )


def _checks(explained: Explained) -> str:
    rows = "".join(
        f'<tr><td class="name">{_e(step.what)}</td><td>{number(step.correlation, 2)}</td></tr>'
        for step in explained.randomized
    )
    verdict = _VERDICTS[depend_on_weights(explained.randomized, images=len(explained.explanations))]
    agreement = ""
    if explained.explanations[0].occlusion is not None:
        agreement = (
            "<p>Grad-CAM and occlusion: median rank correlation "
            f"{number(explained.agreement, 2)} over the images shown; 1 is the same order of places, 0 unrelated.</p>"
        )
    return (
        f'<section id="checks"><h2>Can the maps be trusted?</h2>{agreement}<p>{verdict}</p>'
        '<figure class="table"><figcaption>Median rank correlation with the maps of the trained network, from the '
        'output down one more part with random weights</figcaption><table class="small"><thead><tr>'
        '<th scope="col" class="name">random</th><th scope="col">correlation</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></figure></section>"
    )


def _cases(explained: Explained) -> str:
    without = explained.explanations[0].occlusion is None
    cases = "\n".join(_case(rank, item) for rank, item in enumerate(explained.explanations, start=1))
    order = (
        "Mistakes first, the surest first; then right answers, the least sure first."
        if explained.mistakes is not None
        else "The least sure first."
    )
    return (
        f'<section id="images"><h2>Images</h2><p>{order}</p>'
        f'<div class="cases{" two" if without else ""}">{cases}</div></section>'
    )


def _case(rank: int, item: Explanation) -> str:
    verdict, shown = item.verdict, picture(item.image)
    pictures = [("as the network sees it", shown), ("Grad-CAM", overlay(shown, item.heat))]
    if item.occlusion is not None:
        pictures.append(("occlusion", overlay(shown, item.occlusion)))
    name = item.path.replace("\\", "/").rpartition("/")[2]
    images = "".join(
        f'<div><img src="{data_uri(pixels)}" alt="{_e(f"{what}, image {rank}: {name}")}"><small>{what}</small></div>'
        for what, pixels in pictures
    )
    state = {True: "wrong", False: "right", None: "no label"}[verdict.wrong]
    truth = f"; labelled {_e(verdict.truth)}" if verdict.truth else ""
    agreement = "" if item.agreement is None else f"agreement {number(item.agreement, 2)}"
    nothing = "" if item.heat.any() else "nothing at this layer speaks for it"
    notes = _joined([agreement, nothing])
    return (
        f'<figure class="case{" wrong" if verdict.wrong else ""}"><div class="pictures">{images}</div>'
        f'<figcaption><span class="verdict">{state}</span> <b>{_e(verdict.name)} {verdict.probability:.3f}</b>{truth}'
        f"<br>{_e(item.path)}{notes}</figcaption></figure>"
    )


def _joined(notes: Sequence[str]) -> str:
    shown = "; ".join(note for note in notes if note)
    return f"<br>{shown}" if shown else ""


FILES = ("sheet.html", "explanations.json", "explanations.csv")
"""What stands there beside the overlays."""

_OVERLAY = re.compile(r"\d{3,}[\w.-]*\.png")


def write_explanations(explained: Explained, out: Path) -> list[Path]:
    """Write the folder; older explanations in it are replaced, other files stay.

    Returns:
        The files, the page first.

    Raises:
        DiskError, RunError: As `whole_folder`.
    """
    overlays = [f"overlays/{file.name}" for file in out.glob("overlays/*.png") if _OVERLAY.fullmatch(file.name)]
    with whole_folder(out, (*FILES, *overlays), last=FILES[0]) as folder:
        names = _stage(explained, folder)
    return [out / name for name in names]


def explained_record(explained: Explained) -> dict[str, Any]:
    """Every figure, as plain values."""
    network = explained.network
    return {
        "network": explained.given,
        "layer": network.layer,
        "stage": network.stage,
        "grid": list(network.grid),
        "coarse": coarse_map_note(network),
        "activation": network.activation,
        "images": explained.images,
        "of": explained.what,
        "mistakes": explained.mistakes,
        "class": explained.target,
        "occlusion_agreement": explained.agreement,
        "randomized": [vars(step) for step in explained.randomized],
        "explanations": [_line(item) for item in explained.explanations],
    }


def overlay_name(rank: int, path: str) -> str:
    """Of the PNG of an image: its rank and what of its own name any file system takes."""
    stem = path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or "image"
    return f"{rank:03d}_{re.sub(r'[^A-Za-z0-9-]+', '_', stem).strip('_')[:60] or 'image'}.png"


def _stage(explained: Explained, folder: Path) -> list[str]:
    """Writes everything below `folder` and gives the names, the page first."""
    (folder / "overlays").mkdir()
    overlays = []
    for rank, item in enumerate(explained.explanations, start=1):
        overlays.append(f"overlays/{overlay_name(rank, item.path)}")
        shown = picture(item.image)
        heats = [heat for heat in (item.heat, item.occlusion) if heat is not None]
        side_by_side([shown, *(overlay(shown, heat) for heat in heats)]).save(folder / overlays[-1])
    lines = [_line(item) | {"overlay": name} for item, name in zip(explained.explanations, overlays, strict=True)]
    rows = [["" if value is None else value for value in line.values()] for line in lines]
    write_rows(folder / "explanations.csv", list(lines[0]), rows, for_people=True)
    write_json(folder / "explanations.json", explained_record(explained))
    write_text(folder / "sheet.html", explanation_sheet(explained))
    return [*FILES, *overlays]


def _line(item: Explanation) -> dict[str, Any]:
    verdict = item.verdict
    return {
        "path": item.path,
        "label": verdict.truth,
        "predicted": verdict.name,
        "probability": round(verdict.probability, 6),
        "wrong": verdict.wrong,
        "agreement": item.agreement,
    }
