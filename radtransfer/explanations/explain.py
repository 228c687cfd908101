"""Explain what a network said about images: predict, choose, draw maps, check them in two ways."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.backbones import BACKBONES
from radtransfer.environment import keras_defaults
from radtransfer.errors import ConfigError, WeightsError
from radtransfer.explanations.explained import Explained, ExplainSettings, Explanation
from radtransfer.explanations.explained_images import (
    ExplainedImages,
    images_of_data,
    images_of_files,
    images_of_run,
)
from radtransfer.explanations.maps import class_maps, median, occlusion_maps, on_grid, rank_correlation
from radtransfer.explanations.randomization import randomization_test
from radtransfer.explanations.verdicts import (
    Decision,
    Verdict,
    confident_mistakes_first,
    multi_label_verdicts,
    single_label_verdicts,
)
from radtransfer.predictions.trained_model import TrainedModel, check_layer, find_model, is_export
from radtransfer.progress import Progress
from radtransfer.runs import find_fold

if TYPE_CHECKING:
    from radtransfer.explanations.scored_network import ScoredNetwork

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
    from radtransfer.explanations.scored_network import ScoredNetwork

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
