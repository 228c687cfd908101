"""Explain predictions: choose images, compute Grad-CAM and occlusion maps, check them, and write a page.

sheet.html   the page, in one file                    explanations.csv, .json   all numbers on it
overlays/    a PNG for each image: network input, Grad-CAM, occlusion
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_list import read_images
from radtransfer.data.run_data import LocatedImages, given_images, images_of_table, tested_images
from radtransfer.errors import ConfigError, DataError, WeightsError
from radtransfer.evaluation import heat_maps
from radtransfer.evaluation.heat_maps import Decision, Randomized, Verdict
from radtransfer.evaluation.predictions import read_predictions
from radtransfer.evaluation.trained_model import TrainedModel, check_layer, find_model, is_export
from radtransfer.files import atomic_folder, printable
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import Progress, keras_defaults, usable_cores
from radtransfer.reports.page import render
from radtransfer.runs.folder import find_fold, write_json, write_rows, write_text

if TYPE_CHECKING:
    from radtransfer.evaluation.scored_network import ScoredNetwork


FILES = ("sheet.html", "explanations.json", "explanations.csv")  # the files beside the overlays

_OVERLAY = re.compile(r"\d{3,}[\w.-]*\.png")

SIDE = 288  # of a picture, pixels
COLORS = "inferno"  # color map of matplotlib, readable in grayscale and with color blindness
_LOWEST, _OPACITY = 0.3, 0.7  # start of the maps in the color scale, and opacity of their maximum
_GAP = 8
_BATCH = 16
_TESTED = 16  # most images of the randomization test


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of one image."""

    path: str
    verdict: Verdict
    image: np.ndarray  # network input, float32 (size, size, 3)
    heat: np.ndarray  # Grad-CAM, float32 (height, width) of the layer, at least 0
    occlusion: np.ndarray | None  # float32 (cells, cells), at least 0; None without occlusion
    agreement: float | None  # rank correlation of the two maps; None if one is constant or missing


@dataclass(frozen=True, eq=False)
class Explained:
    """The explanations of all images."""

    given: str  # the network as the user named it
    network: "ScoredNetwork"
    what: str  # which images
    images: int  # number of predicted images
    mistakes: int | None  # how many of them are wrong; None without labels
    target: str | None  # the requested class
    explanations: list[Explanation]  # confident mistakes first
    agreement: float | None  # median rank correlation of the two maps
    randomized: list[Randomized]  # in the last step, all weights are random
    files: tuple[Path, ...] = ()  # written files

    def __repr__(self) -> str:
        from radtransfer.evaluation.summary import explained_lines

        return "\n".join(map(printable, explained_lines(self)))


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Images with their labels, if these are known."""

    what: str  # for a sentence
    images: LocatedImages
    truth: np.ndarray | None = None  # float32 (images, classes of the network), 0 or 1, NaN if unknown
    task: str | None = None  # of the labels
    classes: tuple[str, ...] | None = None  # the columns of `truth`


def explain(
    given: str,
    *,
    files: Sequence[Path] = (),
    data: DataSettings | None = None,
    fold: int | None = None,
    layer: str | None = None,
    target: str | None = None,
    limit: int = 24,
    cells: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explained:
    """Explain at most `limit` images: the files, else a data set, else the test images of the run.

    `layer` is a stage or layer for Grad-CAM, None for the last stage; `target` the explained class, None for the
    predicted class of each image; `cells` the squares per side for occlusion, 0 for none; `seed` draws the weights of
    the randomization test.
    """
    data, progress = data or DataSettings(), progress or Progress()
    if not files and data.source is None and is_export(given):
        raise _no_images()
    if (Path(given).expanduser() / "saved_model.pb").is_file():
        raise WeightsError(
            f"Expected a run or a .keras file. Received: {given}, a SavedModel, which has no layers for Grad-CAM. "
            "Give the run, or a .keras file: radtransfer export RUN --format keras."
        )
    model = find_model(given, folds=() if fold is None else (fold,))
    if len(model.folds) > 1:
        find_fold(given)  # raises an error that lists the folds
    for note in model.notes:
        progress.note(note)
    if layer is not None:
        check_layer(model, layer)
    if target is not None and model.kind == "run":
        _check_target(target, model.scoring.classes)
    labelled = _images(model, files, data, progress)
    with keras_defaults():
        return _explained(model, labelled, layer, target, limit, cells, seed, progress)


def _images(model: TrainedModel, files: Sequence[Path], data: DataSettings, progress: Progress) -> _Labelled:
    """The files (without labels), else a data set, else the test images of the fold."""
    if files:
        return _Labelled("files", given_images(tuple(map(str, files)), data, model.reading, progress))
    if data.source is not None:
        return _of_data(model, data, progress)
    if model.kind != "run":
        raise _no_images()
    fold = model.folds[0]
    images, found = tested_images(model.path, fold), read_predictions(str(model.path / f"fold_{fold}"))
    row_of = {path: row for row, path in enumerate(found.paths)}
    truth = found.targets[[row_of[path] for path in images.paths]]
    return _Labelled(f"test images of fold {fold}", images, truth, found.scoring.task, found.scoring.classes)


def _of_data(model: TrainedModel, data: DataSettings, progress: Progress) -> _Labelled:
    """The images of a data set; its labels, if any, are matched with the classes of the network by name."""
    table = read_images(data, progress=progress)
    images = images_of_table(table, table.paths, model.reading)
    what = f"images of {Path(str(data.source)).name}"
    if not table.classes:
        for note in table.notes:
            progress.note(note)
        return _Labelled(what, images)
    classes = model.scoring.classes if model.named else tuple(table.classes)
    unknown = [name for name in table.classes if name not in classes]
    if unknown:
        raise DataError(
            f"Expected the classes of the network, {', '.join(classes)}. Received, in {data.source}: "
            f"{', '.join(unknown)}. Rename the labels, or leave these images out."
        )
    truth = np.full((len(table), len(classes)), 0 if table.task == "multiclass" else np.nan, np.float32)
    for column, name in enumerate(table.classes):
        truth[:, classes.index(name)] = table.targets[:, column]
    return _Labelled(what, images, truth, table.task, classes)


def _no_images() -> ConfigError:
    return ConfigError("Expected images, received none. Name files after the model, or give a folder or table: --data.")


def _explained(
    model: TrainedModel,
    labelled: _Labelled,
    layer: str | None,
    target: str | None,
    limit: int,
    cells: int,
    seed: int,
    progress: Progress,
) -> Explained:
    from radtransfer.evaluation.scored_network import ScoredNetwork

    network = ScoredNetwork(model.keras_models()[0], BACKBONES.get(model.backbone), layer)
    if layer is None and network.spec and network.stage != list(network.spec.stages)[-1]:
        progress.note(f"the map is of {network.stage}: later stages have only one position for images of this size")
    total, size = len(labelled.images), network.image_size
    logits = np.empty((total, network.outputs), np.float32)
    epoch = labelled.images.batches(image_size=size, batch_size=_BATCH, workers=usable_cores()).in_order()
    for rows, (pixels, _, _) in zip(epoch.rows, epoch, strict=True):
        logits[rows] = network.logits(pixels)
        progress.count("images predicted", min(int(rows.max()) + 1, total), total)

    classes, probabilities = _classes(model, network, labelled), network.probabilities(logits)
    task = model.scoring.task if model.named else labelled.task
    several = task == "multilabel" or probabilities.shape[1] == len(classes) == 1
    verdicts_of = heat_maps.multi_label_verdicts if several else heat_maps.single_label_verdicts
    verdicts = verdicts_of(probabilities, labelled.truth, classes)
    chosen = heat_maps.confident_mistakes_first(verdicts)[:limit]
    decisions = [verdict.decision for verdict in chosen]
    if target is not None:
        _check_target(target, classes)
        number = classes.index(target)
        alone = network.outputs == 1 < len(classes)
        decisions = [Decision(0, present=bool(number)) if alone else Decision(number)] * len(chosen)

    rows = [item.row for item in chosen]
    batches = labelled.images.batches(image_size=size, batch_size=len(rows), workers=usable_cores(), rows=rows)
    pixels = next(iter(batches.in_order()))[0].numpy()
    heat = np.maximum(heat_maps.class_maps(network, pixels, decisions), 0)
    covered = agreements = [None] * len(chosen)
    if cells:
        count = partial(progress.count, "images occluded")
        covered = np.maximum(heat_maps.occlusion_maps(network, pixels, decisions, cells=cells, count=count), 0)
        # Through the size of the image: a coarse map is interpolated, as in the figure, before it is averaged.
        coarse = heat_maps.on_grid(heat_maps.on_grid(heat, pixels.shape[1:3]), covered.shape[1:])
        agreements = [heat_maps.rank_correlation(a, b) for a, b in zip(coarse, covered, strict=True)]
    count = partial(progress.count, "layers randomized")
    randomized = heat_maps.randomization_test(network, pixels[:_TESTED], decisions[:_TESTED], seed=seed, count=count)
    columns = zip(chosen, pixels, heat, covered, agreements, strict=True)
    known = [verdict.wrong for verdict in verdicts if verdict.wrong is not None]
    return Explained(
        given=model.given,
        network=network,
        what=labelled.what,
        images=total,
        mistakes=sum(known) if known else None,
        target=target,
        explanations=[Explanation(labelled.images.paths[item.row], item, *values) for item, *values in columns],
        agreement=heat_maps.median(agreements),
        randomized=randomized,
    )


def _classes(model: TrainedModel, network: "ScoredNetwork", labelled: _Labelled) -> tuple[str, ...]:
    """The names of the classes, or numbers without names."""
    count = 2 if network.outputs == 1 else network.outputs
    known = model.scoring.classes if model.named else labelled.classes
    if known is None:
        return tuple(f"output {number}" for number in range(count))
    if len(known) not in (count, network.outputs):
        raise ConfigError(f"Expected a network of {len(known)} classes ({', '.join(known)}). It has {network.outputs}.")
    return known


def _check_target(target: str, classes: Sequence[str]) -> None:
    if target not in classes:
        raise ConfigError(f"--class {target!r}: expected one of {', '.join(classes)}.")


def picture(image: np.ndarray) -> np.ndarray:
    """A network input, float32 (size, size, 3), 0–255, as uint8 (SIDE, SIDE, 3)."""
    pixels = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return np.asarray(pixels.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map, float (height, width), in color over a grayscale `picture`; a white line encloses values above half."""
    import matplotlib

    heat = np.maximum(heat, 0).astype(np.float32)
    if heat.max() > 0:
        heat = heat / heat.max()
    strength = np.clip(np.asarray(Image.fromarray(heat).resize((SIDE, SIDE), Image.Resampling.BILINEAR)), 0, 1)
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., np.newaxis].repeat(3, axis=2)
    colors = 255 * matplotlib.colormaps[COLORS](_LOWEST + (1 - _LOWEST) * strength)[..., :3]
    opacity = _OPACITY * strength[..., np.newaxis]
    mixed = (1 - opacity) * gray + opacity * colors
    area = np.pad(strength > 0.5, 1)
    inner = area[:-2, 1:-1] & area[2:, 1:-1] & area[1:-1, :-2] & area[1:-1, 2:]
    mixed[area[1:-1, 1:-1] & ~inner] = 255
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def color_stops(count: int = 9) -> list[str]:
    """The colors from 0 to the maximum, in CSS notation."""
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


def write_explanations(explained: Explained, out: Path) -> list[Path]:
    """Write the folder and give its files, the page first; earlier explanations are replaced, other files stay."""
    old = [f"overlays/{file.name}" for file in out.glob("overlays/*.png") if _OVERLAY.fullmatch(file.name)]
    with atomic_folder(out, (*FILES, *old), last=FILES[0]) as folder:
        (folder / "overlays").mkdir()
        lines, cases = [], []
        for rank, item in enumerate(explained.explanations, start=1):
            stem = item.path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or "image"
            # Only characters that every file system allows.
            name = f"overlays/{rank:03d}_{re.sub(r'[^A-Za-z0-9-]+', '_', stem).strip('_')[:60] or 'image'}.png"
            shown = picture(item.image)
            pictures = {"network input": shown, "Grad-CAM": overlay(shown, item.heat)}
            if item.occlusion is not None:
                pictures["occlusion"] = overlay(shown, item.occlusion)
            side_by_side(list(pictures.values())).save(folder / name)
            lines.append(_line(item) | {"overlay": name})
            cases.append((item, [(what, _data_uri(pixels)) for what, pixels in pictures.items()]))
        rows = [["" if value is None else value for value in line.values()] for line in lines]
        write_rows(folder / "explanations.csv", list(lines[0]), rows, for_people=True)
        write_json(folder / "explanations.json", explained_record(explained))
        sheet = render(
            "sheet.html.j2",
            explained=explained,
            cases=cases,
            coarse=heat_maps.coarse_map_note(explained.network),
            colors=color_stops(),
            trusted=heat_maps.depend_on_weights(explained.randomized, images=len(explained.explanations)),
        )
        write_text(folder / "sheet.html", sheet)
    return [out / name for name in (*FILES, *(line["overlay"] for line in lines))]


def _data_uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def explained_record(explained: Explained) -> dict[str, Any]:
    """All numbers, as plain values."""
    network = explained.network
    return {
        "network": explained.given,
        "layer": network.layer,
        "stage": network.stage,
        "grid": list(network.grid),
        "coarse": heat_maps.coarse_map_note(network),
        "activation": network.activation,
        "images": explained.images,
        "of": explained.what,
        "mistakes": explained.mistakes,
        "class": explained.target,
        "occlusion_agreement": explained.agreement,
        "randomized": [vars(step) for step in explained.randomized],
        "explanations": [_line(item) for item in explained.explanations],
    }


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
