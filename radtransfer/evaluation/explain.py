"""Where in an image a network finds what it says: maps, a check of them by another way, and a test of their worth.

Explain what a network said about images: predict, choose, draw maps, check them in two ways.

The images that are explained: a run's test images, a data set, or files; and what is known of their labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.config.schema import DataSettings, ImageSettings
from radtransfer.data.image_list import read_images
from radtransfer.data.run_data import given_images, images_of_table, tested_images
from radtransfer.errors import ConfigError, DataError, WeightsError
from radtransfer.evaluation.explanation_files import Explained, ExplainSettings, Explanation
from radtransfer.evaluation.heat_maps import (
    Decision,
    Verdict,
    class_maps,
    confident_mistakes_first,
    median,
    multi_label_verdicts,
    occlusion_maps,
    on_grid,
    randomization_test,
    rank_correlation,
    single_label_verdicts,
)
from radtransfer.evaluation.run_predictions import read_predictions
from radtransfer.evaluation.trained_model import TrainedModel, check_layer, find_model, is_export
from radtransfer.images.formats import ImageFacts
from radtransfer.images.refs import ImagePlace
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import Progress, keras_defaults, usable_cores
from radtransfer.runs.folder import find_fold

if TYPE_CHECKING:
    from radtransfer.images.pipeline import Batches


@dataclass(frozen=True, eq=False)
class ExplainedImages:
    """Images on disk.

    Attributes:
        what: What they are, for a sentence.
        paths: The identity of each.
        places: Where each lies.
        facts: How each is decoded.
        reading: How it becomes a square.
        truth: float32 (images, classes of the network), 0 or 1, NaN where not known; None without labels.
        task: Of the labels; None without.
        classes: Names of the columns of `truth`; None without.
    """

    what: str
    paths: tuple[str, ...]
    places: tuple[ImagePlace, ...]
    facts: tuple[ImageFacts, ...]
    reading: ImageSettings
    truth: np.ndarray | None = None
    task: str | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, rows: Sequence[int], *, image_size: int, batch_size: int) -> "Batches":
        """Those numbered `rows`, as the network sees them."""
        from radtransfer.images.pipeline import make_batches

        return make_batches(
            [self.paths[row] for row in rows],
            [self.places[row] for row in rows],
            [self.facts[row] for row in rows],
            np.zeros((len(rows), 1), np.float32),
            image_size=image_size,
            reading=self.reading,
            batch_size=min(batch_size, len(rows)),
            workers=usable_cores(),
        )


def images_of_run(run: Path, fold: int) -> ExplainedImages:
    """The test images of a fold, with their labels.

    Raises:
        RunError: The run has no such fold, or lacks a file.
        DataError: The images are not there any more.
    """
    images, found = tested_images(run, fold), read_predictions(str(run / f"fold_{fold}"))
    row_of = {path: row for row, path in enumerate(found.paths)}
    return ExplainedImages(
        what=f"test images of fold {fold}",
        paths=images.paths,
        places=images.places,
        facts=images.facts,
        reading=images.reading,
        truth=found.targets[[row_of[path] for path in images.paths]],
        task=found.scoring.task,
        classes=found.scoring.classes,
    )


def images_of_data(
    data: DataSettings, reading: ImageSettings, classes: Sequence[str] | None, progress: Progress
) -> ExplainedImages:
    """Every image of a data set; its labels, if it has any, are matched with the network's classes by name.

    Args:
        data: Where they are.
        reading: How the network's images are read.
        classes: Of the network; None where they are not known, and taken to be those of the data.
        progress: Hears why there are no labels.

    Raises:
        DataError: An image is missing, or a class is not the network's.
    """
    table = read_images(data, progress=progress)
    images = images_of_table(table, table.paths, reading)
    what = f"images of {Path(str(data.source)).name}"
    if not table.classes:
        for note in table.notes:
            progress.note(note)
        return ExplainedImages(what, images.paths, images.places, images.facts, reading)
    classes = classes or table.classes
    strange = [name for name in table.classes if name not in classes]
    if strange:
        raise DataError(
            f"The network knows the classes {', '.join(classes)}. Received, in {data.source}: {', '.join(strange)}. "
            "Rename the labels, or leave these images out."
        )
    truth = np.full((len(table), len(classes)), 0 if table.task == "multiclass" else np.nan, np.float32)
    for column, name in enumerate(table.classes):
        truth[:, list(classes).index(name)] = table.targets[:, column]
    return ExplainedImages(
        what=what,
        paths=images.paths,
        places=images.places,
        facts=images.facts,
        reading=reading,
        truth=truth,
        task=table.task,
        classes=tuple(classes),
    )


def images_of_files(
    files: Sequence[Path], data: DataSettings, reading: ImageSettings, progress: Progress
) -> ExplainedImages:
    """Files, those of folders and those of tables, without labels.

    Raises:
        DataError: One is missing, or no image.
    """
    images = given_images(tuple(map(str, files)), data, reading, progress)
    return ExplainedImages("files", images.paths, images.places, images.facts, reading)


if TYPE_CHECKING:
    from radtransfer.evaluation.scored_network import ScoredNetwork

_BATCH = 16
_TESTED = 16
"""Images of the randomization test, at most."""


def explain(given: str, settings: ExplainSettings, *, progress: Progress | None = None) -> Explained:
    """Explain images; see `ExplainSettings`.

    Args:
        given: A run, RUN/fold_K, or a `.keras` file.
        settings: What is asked for.
        progress: Hears counts.

    Raises:
        ConfigError: No such run, fold, layer or class; no images.
        DataError: Images are missing, or labels are not the network's.
        WeightsError: A model that cannot be read, or is no classifier.
    """
    progress = progress or Progress()
    if not settings.files and settings.data.source is None and is_export(given):
        raise _no_images()
    model = _find(given, settings, progress)
    if settings.layer is not None:
        check_layer(model, settings.layer)
    if settings.target is not None and model.kind == "run":
        _check_target(settings.target, model.scoring.classes)
    images = _images(model, settings, progress)
    with keras_defaults():
        return _explained(given, model, images, settings, progress)


def _explained(
    given: str, model: TrainedModel, images: ExplainedImages, settings: ExplainSettings, progress: Progress
) -> Explained:
    from radtransfer.evaluation.scored_network import ScoredNetwork

    card = BACKBONES.get(model.backbone)
    network = ScoredNetwork(model.keras_models()[0], card, settings.layer)
    if settings.layer is None and network.card and network.stage != list(network.card.stages)[-1]:
        progress.note(f"the map is that of {network.stage}: later stages have one position for images of this size")
    logits = _all_logits(network, images, progress)
    classes = _classes(model, network, images)
    verdicts = _verdicts(network.probabilities(logits), images, model.scoring.task if model.named else None, classes)
    chosen = confident_mistakes_first(verdicts)[: settings.limit]
    decisions = [_decision(settings.target, verdict, network, classes) for verdict in chosen]
    pixels = _pixels(network, images, [verdict.row for verdict in chosen])
    heat = class_maps(network, pixels, decisions)
    occlusion = None
    if settings.cells:
        count = partial(progress.count, "images occluded")
        occlusion = occlusion_maps(network, pixels, decisions, cells=settings.cells, count=count)
    tested = min(_TESTED, len(chosen))
    randomized = randomization_test(
        network,
        pixels[:tested],
        decisions[:tested],
        seed=settings.seed,
        count=partial(progress.count, "weights redrawn"),
    )
    explanations = _explanations(images, chosen, pixels, heat, occlusion)
    known = [verdict.wrong for verdict in verdicts if verdict.wrong is not None]
    return Explained(
        given=given,
        network=network,
        what=images.what,
        images=len(images),
        mistakes=sum(known) if known else None,
        target=settings.target,
        explanations=explanations,
        agreement=median([item.agreement for item in explanations]),
        randomized=randomized,
    )


def _find(given: str, settings: ExplainSettings, progress: Progress) -> TrainedModel:
    """The one network that `given` means."""
    if (Path(given).expanduser() / "saved_model.pb").is_file():
        raise WeightsError(
            f"{given} is a SavedModel, which holds operations, and no layers whose maps could be drawn. Give the run, "
            "or a .keras file: radtransfer export RUN --format keras."
        )
    model = find_model(given, folds=() if settings.fold is None else (settings.fold,))
    if len(model.folds) > 1:
        find_fold(given)  # says which there are
    for note in model.notes:
        progress.note(note)
    return model


def _images(model: TrainedModel, settings: ExplainSettings, progress: Progress) -> ExplainedImages:
    if settings.files:
        return images_of_files(settings.files, settings.data, model.reading, progress)
    if settings.data.source is not None:
        classes = model.scoring.classes if model.named else None
        return images_of_data(settings.data, model.reading, classes, progress)
    if model.kind != "run":
        raise _no_images()
    return images_of_run(model.path, model.folds[0])


def _no_images() -> ConfigError:
    return ConfigError("Expected images: name files after the model, or give --data with a folder or table.")


def _all_logits(network: "ScoredNetwork", images: ExplainedImages, progress: Progress) -> np.ndarray:
    """Of every image, in order."""
    logits = np.empty((len(images), network.outputs), np.float32)
    epoch = images.batches(range(len(images)), image_size=network.image_size, batch_size=_BATCH).in_order()
    for rows, (pixels, _, _) in zip(epoch.rows, epoch, strict=True):
        logits[rows] = network.logits(pixels)
        progress.count("images predicted", min(int(rows.max()) + 1, len(images)), len(images))
    return logits


def _classes(model: TrainedModel, network: "ScoredNetwork", images: ExplainedImages) -> tuple[str, ...]:
    """The names of the classes; numbers where nobody gives any."""
    count = 2 if network.outputs == 1 else network.outputs
    known = model.scoring.classes if model.named else None
    if known is None and images.truth is not None:
        known = images.classes
    if known is None:
        return tuple(f"output {number}" for number in range(count))
    if len(known) not in (count, network.outputs):
        raise ConfigError(f"Expected a network of {len(known)} classes ({', '.join(known)}). It has {network.outputs}.")
    return known


def _verdicts(
    probabilities: np.ndarray, images: ExplainedImages, task: str | None, classes: Sequence[str]
) -> list[Verdict]:
    if (task or images.task) == "multilabel" or probabilities.shape[1] == len(classes) == 1:
        return multi_label_verdicts(probabilities, images.truth, classes)
    return single_label_verdicts(probabilities, images.truth, classes)


def _decision(target: str | None, verdict: Verdict, network: "ScoredNetwork", classes: Sequence[str]) -> Decision:
    if target is None:
        return verdict.decision
    _check_target(target, classes)
    number = classes.index(target)
    return Decision(0, present=bool(number)) if network.outputs == 1 < len(classes) else Decision(number)


def _check_target(target: str, classes: Sequence[str]) -> None:
    if target not in classes:
        raise ConfigError(f"--class {target!r}: expected one of {', '.join(classes)}.")


def _pixels(network: "ScoredNetwork", images: ExplainedImages, rows: Sequence[int]) -> np.ndarray:
    """Some images as the network gets them, float32 (images, size, size, 3)."""
    batches = images.batches(rows, image_size=network.image_size, batch_size=len(rows))
    return next(iter(batches.in_order()))[0].numpy()


def _explanations(
    images: ExplainedImages,
    chosen: Sequence[Verdict],
    pixels: np.ndarray,
    heat: np.ndarray,
    occlusion: np.ndarray | None,
) -> list[Explanation]:
    """What is above 0 of both maps, and how far they agree."""
    heat, covered = np.maximum(heat, 0), None if occlusion is None else np.maximum(occlusion, 0)
    agreements: list[Any] = [None] * len(chosen)
    if covered is not None:
        # By way of the image's size: a coarse map is interpolated before it is averaged, as it is drawn.
        coarse = on_grid(on_grid(heat, pixels.shape[1:3]), covered.shape[1:])
        agreements = [rank_correlation(a, b) for a, b in zip(coarse, covered, strict=True)]
    return [
        Explanation(
            path=images.paths[verdict.row],
            verdict=verdict,
            image=pixels[number],
            heat=heat[number],
            occlusion=None if covered is None else covered[number],
            agreement=agreements[number],
        )
        for number, verdict in enumerate(chosen)
    ]
