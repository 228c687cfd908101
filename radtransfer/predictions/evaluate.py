"""Evaluate a trained model: on an external test set, or a run on its own test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.comparisons.comparison_images import note_changes
from radtransfer.comparisons.run_predictions import RunPredictions, read_predictions
from radtransfer.datasets.image_table import ImageTable, tell_notes
from radtransfer.datasets.patients import NO_PATIENTS
from radtransfer.errors import ConfigError
from radtransfer.examination.image_check import check_images
from radtransfer.metrics.calibration import BINS, mean_with_temperatures
from radtransfer.metrics.evaluation import Predictions
from radtransfer.metrics.operating_point import OperatingPoint
from radtransfer.predictions.forward import Forward, run_all
from radtransfer.predictions.judgement import Judged, judge
from radtransfer.predictions.leak_warnings import warn_of_leaks
from radtransfer.predictions.test_set import read_test_set
from radtransfer.predictions.trained_model import TrainedModel, is_export
from radtransfer.predictions.validation import point_of, temperatures_of, validation_count
from radtransfer.progress import Progress
from radtransfer.settings import DataSettings

_UNKNOWN = "no patient column, so that intervals are over images; give --patient-column or --patient-regex"


@dataclass(frozen=True)
class Judging:
    """How predictions are judged.

    Attributes:
        rule: Of the operating point, if one is to be chosen.
        bins: Of the calibration error.
        draws: Of the bootstrap that gives the bands of the curves.
        seed: Of the draws.
    """

    rule: str | None = None
    bins: int = BINS
    draws: int = 2000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model is worth on test images.

    Attributes:
        model: Which.
        data: What the images were called; None for a run's own test images.
        judged: The whole first, then each network where there are several.
        labels: Of the images of the whole, as text.
        point: The operating point, if there is one.
        judging: How it was judged.
        figures: As JSON has them.
        seen: Path of each test image that was in training to how it was, as in `Leaks`.
    """

    model: TrainedModel
    data: str | None
    judged: tuple[Judged, ...]
    labels: tuple[str, ...]
    point: OperatingPoint | None
    judging: Judging
    figures: dict[str, Any]
    seen: Mapping[str, str] = field(default_factory=dict)


def evaluate_on(
    model: TrainedModel,
    data: DataSettings,
    *,
    split: str = "all",
    class_map: Mapping[str, str] | None = None,
    judging: Judging | None = None,
    batch_size: int = 32,
    workers: int = 1,
    report_file: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate each network of `model`, and their mean where there are several, on an external test set.

    Args:
        model: The run or export.
        data: The test set; its `positive_class` takes the place of the model's.
        split: Of a set that brings splits: which images; "all" for all.
        class_map: Class of the data to the model's class that it counts as.
        judging: How.
        batch_size: Images at a time, at most.
        workers: Images decoded at the same time.
        report_file: Gets the unreadable images.
        progress: Hears what is found.

    Raises:
        ConfigError: An option that cannot be followed.
        DataError: The images cannot be used, or their classes are not the model's.
        WeightsError: The model cannot be loaded.
        TrainingError: Memory is too small, or the outputs are not finite.
    """
    judging, progress = judging or Judging(), progress or Progress()
    model = model.with_positive_class(data.positive_class)
    point = point_of(model, judging.rule)
    table = read_test_set(data, model.scoring, model=model.given, split=split, class_map=class_map, progress=progress)
    temperatures = temperatures_of(model)
    tell_notes((_UNKNOWN if note == NO_PATIENTS else note for note in (*model.notes, *table.notes)), progress)
    checked = check_images(
        table,
        workers=workers,
        on_bad_image=data.on_bad_image,
        report_file=report_file,
        reading=model.reading,
        progress=progress,
    )
    table = checked.table
    _note_changes(model, progress)
    leaks = warn_of_leaks(model, table, progress)
    from radtransfer.pipeline.batches import make_batches

    batches = make_batches(
        table.paths,
        table.files,
        checked.facts,
        table.targets,
        image_size=model.image_size,
        reading=model.reading,
        batch_size=min(batch_size, len(table)),
        workers=workers,
    )
    forward = Forward(model.load(), batch_size=batch_size, notify=progress.note)
    count = partial(progress.count, "images predicted")
    members = run_all(forward, batches.in_order(), images=len(table), count=count)
    judged = _judged(model, table, members, temperatures)
    more = {"seen": leaks.counts}
    evaluation = _evaluation(model, data.source, judged, table.labels, point, judging, temperatures, more)
    return replace(evaluation, seen=leaks.how)


def evaluate_run(
    model: TrainedModel, *, judging: Judging | None = None, progress: Progress | None = None
) -> Evaluation:
    """Evaluate a run on the test images of its folds, by the predictions that it kept.

    Raises:
        ConfigError: It is no run.
        RunError: It lacks its predictions.
        DataError: There is nothing to choose an operating point on.
    """
    judging = judging or Judging()
    if model.kind != "run":
        raise _no_images(model.given)
    point, temperatures = point_of(model, judging.rule), temperatures_of(model)
    found = read_predictions(str(model.path), folds=model.folds)
    _note_changes(model, progress or Progress())
    folds = np.array(found.folds)
    parts = [_part(found, np.flatnonzero(folds == fold)) for fold in model.folds]
    scaled = [
        None
        if None in temperatures
        else mean_with_temperatures(part.probabilities[None], [t], activation=model.activation)
        for part, t in zip(parts, temperatures, strict=True)
    ]
    each = [Judged(*item) for item in zip(model.members, [(part,) for part in parts], scaled, strict=True)]
    if len(each) > 1:
        calibrated = None if None in temperatures else np.concatenate(scaled)
        each.insert(0, Judged("out_of_fold", tuple(parts), calibrated))
    return _evaluation(model, None, each, found.labels, point, judging, temperatures, {})


def check_has_images(given: str) -> None:
    """Raises ConfigError if `given` is an export, which has no test images."""
    if is_export(given):
        raise _no_images(given)


def _no_images(given: str) -> ConfigError:
    return ConfigError(f"{given} has no test images of its own. Give some with --data.")


def _note_changes(model: TrainedModel, progress: Progress) -> None:
    """Tell of a run whose data is not what it was trained and, for its temperature and threshold, validated on."""
    if model.kind == "run":
        note_changes([model.path], progress)


def _part(found: RunPredictions, rows: np.ndarray) -> Predictions:
    part = found.select(rows)
    return Predictions(part.targets, part.probabilities, part.paths, part.patients, part.repeats[0])


def _judged(
    model: TrainedModel, table: ImageTable, members: np.ndarray, temperatures: Sequence[float | None]
) -> list[Judged]:
    def one(name: str, which: slice) -> Judged:
        mean = members[which].astype(np.float64).mean(axis=0)
        known = None not in temperatures[which]
        scaled = (
            mean_with_temperatures(members[which], temperatures[which], activation=model.activation) if known else None
        )
        return Judged(name, (Predictions(table.targets, mean, table.paths, table.patients),), scaled)

    each = [one(name, slice(k, k + 1)) for k, name in enumerate(model.members)]
    return [one("ensemble", slice(None)), *each] if len(each) > 1 else each


def _evaluation(
    model: TrainedModel,
    data: str | None,
    judged: Sequence[Judged],
    labels: Sequence[str],
    point: OperatingPoint | None,
    judging: Judging,
    temperatures: Sequence[float | None],
    more: dict[str, Any],
) -> Evaluation:
    whole, *each = [
        judge(item, model.scoring, point=point, bins=judging.bins, details=number == 0)
        for number, item in enumerate(judged)
    ]
    figures = {
        "model": str(model.given),
        "kind": model.kind,
        "folds": list(model.folds),
        "data": data,
        "judged": judged[0].name,
        "task": model.scoring.task,
        "classes": list(model.scoring.classes),
        "positive_from": model.scoring.positive_from,
        "positive_class": model.scoring.positive_class,
        "temperatures": None if None in temperatures else list(temperatures),
        "validation_images": validation_count(model),
        "draws": judging.draws,
        "seed": judging.seed,
        **more,
        **whole,
        "members": {item.name: value for item, value in zip(judged[1:], each, strict=True)},
    }
    return Evaluation(model, data, tuple(judged), tuple(labels), point, judging, figures)
