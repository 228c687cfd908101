"""What explanations leave behind: a sheet as one HTML page, a panel for each image, and the figures.

sheet.html   the page, which needs no other file      explanations.csv, .json   every figure on it
overlays/    a PNG for each image: as the network sees it, Grad-CAM, occlusion
"""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from radtransfer.evaluation.heat_maps import Randomized, Verdict, coarse_map_note, depend_on_weights
from radtransfer.files import whole_folder
from radtransfer.reports.render import render
from radtransfer.runs.folder import write_json, write_rows, write_text

if TYPE_CHECKING:
    from radtransfer.evaluation.scored_network import ScoredNetwork


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


def explanation_sheet(explained: Explained) -> str:
    """The page as text."""
    return render(
        "sheet.html.j2",
        explained=explained,
        cases=[(item, _pictures(item)) for item in explained.explanations],
        coarse=coarse_map_note(explained.network),
        colors=color_stops(),
        trusted=depend_on_weights(explained.randomized, images=len(explained.explanations)),
    )


def _pictures(item: Explanation) -> list[tuple[str, str]]:
    shown = picture(item.image)
    found = [("as the network sees it", shown), ("Grad-CAM", overlay(shown, item.heat))]
    if item.occlusion is not None:
        found.append(("occlusion", overlay(shown, item.occlusion)))
    return [(what, data_uri(pixels)) for what, pixels in found]


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
