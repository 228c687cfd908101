"""What explanations leave behind: the sheet, a panel for each image, and the figures.

sheet.html   the page, which needs no other file      explanations.csv, .json   every figure on it
overlays/    a PNG for each image: as the network sees it, Grad-CAM, occlusion
"""

import re
import shutil
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.explanations.coarse_maps import coarse_map_note
from radtransfer.explanations.explained import Explained, Explanation
from radtransfer.explanations.pictures import overlay, picture, side_by_side
from radtransfer.explanations.sheet import explanation_sheet
from radtransfer.result_folder import make_out
from radtransfer.runs import write_json, write_rows, write_text
from radtransfer.whole_file import part_folder

FILES = ("sheet.html", "explanations.json", "explanations.csv")
"""What stands there beside the overlays."""

_OVERLAY = re.compile(r"\d{3,}[\w.-]*\.png")


def write_explanations(explained: Explained, out: Path) -> list[Path]:
    """Write the folder; older explanations in it are replaced, other files stay.

    Returns:
        The files, the page first.

    Raises:
        RunError: The folder cannot be written.
    """
    make_out(out)
    try:
        with part_folder(out) as staging:
            names = _stage(explained, staging)
            _delete_overlays(out / "overlays")
            for name in reversed(names):
                (out / name).parent.mkdir(exist_ok=True)
                (staging / name).replace(out / name)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be written ({error.strerror or error}). Choose another folder.") from None
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
    write_rows(folder / "explanations.csv", list(lines[0]), rows)
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


def _delete_overlays(folder: Path) -> None:
    """Delete what earlier explanations drew, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for file in folder.iterdir():
        if _OVERLAY.fullmatch(file.name):
            file.unlink()
    if not any(folder.iterdir()):
        shutil.rmtree(folder)
