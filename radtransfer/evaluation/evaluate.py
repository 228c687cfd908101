"""Evaluate a trained model: on an external test set, or a run on its own test images.

What predictions on test images are worth: AUC with intervals, calibration, operating point, confusion.

The labelled images that a model is evaluated on: any data set, its classes matched with the model's by name.

What the validation images decide after training: temperatures, and where yes begins.

Each network of a run is judged on its own validation images, which it has not trained on; test images decide nothing.
Temperatures belong to one network each. An operating point is of the pooled validation images of all folds, each image
with the network whose validation image it is; it stands for probabilities before any temperature.

Warnings where test images have been in training, so that figures are too high.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_check import check_images
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import Seen, leaked_images, seen_before
from radtransfer.data.splits import Fold
from radtransfer.data.table import NO_PATIENTS, ImageTable, tell_notes
from radtransfer.errors import ConfigError, DataError, closest_names
from radtransfer.evaluation.calibration import (
    BINS,
    OperatingPoint,
    check_questions,
    check_rule,
    choose_point,
    expected_error,
    fit_temperature,
    judged_confidences,
    mean_with_temperatures,
    rate_intervals,
    rates,
    reliability,
)
from radtransfer.evaluation.intervals import estimate_auc
from radtransfer.evaluation.metrics import Predictions, evaluate, summarize
from radtransfer.evaluation.predict import Forward, decision_text, predicted_names, run_all
from radtransfer.evaluation.scoring import Scoring, class_questions, main_questions
from radtransfer.evaluation.trained_model import TrainedModel, find_model, is_export
from radtransfer.process import Progress
from radtransfer.runs.read import read_rows, read_settings, reading
from radtransfer.similarity.compare_images import note_changes, run_file, run_images
from radtransfer.similarity.compare_predictions import RunPredictions, read_predictions


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions that are judged together.

    Attributes:
        name: Of the network, or of what joins several.
        parts: Sets of test images, those of one repeat disjoint; one for an external test set.
        calibrated: float64 (images, classes) after temperature scaling, of all parts in order; None without.
    """

    name: str
    parts: tuple[Predictions, ...]
    calibrated: np.ndarray | None = None

    @property
    def whole(self) -> Predictions:
        """All parts as one."""
        if len(self.parts) == 1:
            return self.parts[0]
        known = all(part.patients is not None for part in self.parts)
        return Predictions(
            np.concatenate([part.targets for part in self.parts]),
            np.concatenate([part.probabilities for part in self.parts]),
            [image for part in self.parts for image in part.images],
            [patient for part in self.parts for patient in part.patients] if known else None,
        )


def judge(
    judged: Judged,
    scoring: Scoring,
    *,
    point: OperatingPoint | None,
    bins: int = BINS,
    details: bool = True,
) -> dict[str, Any]:
    """The figures as JSON has them, those of several parts as finetune has them: means over the parts, AUCs pooled.

    Args:
        judged: The predictions.
        scoring: What the outputs mean.
        point: Judged as well, where there is one.
        bins: Of the calibration error.
        details: Intervals of every class, the diagram and the confusion matrix as well.

    Raises:
        TrainingError: An output is not finite.
    """
    whole, summary = judged.whole, summarize(judged.parts, scoring)
    metrics = evaluate(whole, scoring)
    several = len(judged.parts) > 1
    figures = {
        "auc": summary.auc.pooled,
        "ci95": summary.auc.ci95,
        **({"auc_mean": summary.auc.mean, "auc_sd": summary.auc.sd} if several else {}),
        "per_class": summary.auc.per_class,
        "accuracy": summary.accuracy,
        "top5_accuracy": summary.top5_accuracy,
        "sensitivity_at_90_specificity": summary.sensitivity_at_90_specificity,
        "brier": summary.brier,
        "n_images": summary.n_images,
        "n_patients": summary.n_patients,
        "undefined": metrics.undefined,
        "calibration": _calibration(judged, scoring, bins, details=details),
    }
    if point is not None:
        figures["operating_point"] = _point(whole, scoring, point)
    if details:
        figures["per_class"] = _classes(whole, scoring)
        figures["confusion"] = confusion(whole.targets, whole.probabilities, scoring, point)
    return figures


def confusion(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None
) -> dict[str, Any]:
    """How often which class was predicted for which: `counts`, a row per true class, the positive one last.

    With several labels `labels` has, for each, how often it was absent (first row) or present and predicted so.
    `decided` says how classes were predicted.
    """
    said, decided = predicted_names(probabilities, scoring, point), decision_text(scoring, point)
    names = scoring.in_order
    if scoring.task == "multilabel":
        present = np.array([[name in row for name in names] for row in said])
        counts = {}
        for column, name in enumerate(names):
            known = ~np.isnan(targets[:, column])
            truth, yes = targets[known, column] > 0.5, present[known, column]
            counts[name] = [[int((~truth & ~yes).sum()), int((~truth & yes).sum())]]
            counts[name].append([int((truth & ~yes).sum()), int((truth & yes).sum())])
        return {"labels": counts, "decided": decided}
    number = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), int)
    true = np.array([number[name] for name in scoring.classes])[targets.argmax(axis=1)]
    np.add.at(table, (true, [number[row[0]] for row in said]), 1)
    return {"classes": list(names), "counts": table.tolist(), "decided": decided}


def _classes(whole: Predictions, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """AUC, interval and number of positives of each class or label, all images pooled."""
    _, codes = np.unique(np.asarray(whole.clusters, dtype=object).astype(str), return_inverse=True)
    found = {}
    for question in class_questions(whole.targets, whole.probabilities, scoring):
        auc = estimate_auc([([question], codes)])
        found[question.name] = {
            "auc": None if auc is None else auc.area,
            "ci95": None if auc is None else list(auc.ci95),
            "n_positive": int(question.truth.sum()),
        }
    return found


def _calibration(judged: Judged, scoring: Scoring, bins: int, *, details: bool) -> dict[str, Any]:
    whole = judged.whole
    found = {"bins": bins, "ece": expected_error(whole.targets, whole.probabilities, scoring, bins=bins)}
    if judged.calibrated is not None:
        after = Predictions(whole.targets, judged.calibrated, whole.images, whole.patients)
        found["ece_after"] = expected_error(whole.targets, judged.calibrated, scoring, bins=bins)
        found["brier_before"] = evaluate(whole, scoring).brier
        found["brier_after"] = evaluate(after, scoring).brier
    if details:
        found["diagram"] = diagrams(whole.targets, whole.probabilities, scoring, bins=bins)
    return found


def diagrams(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, *, bins: int
) -> dict[str, dict[str, Any]]:
    """The reliability diagram of each question that is judged."""
    answers = judged_confidences(targets, probabilities, scoring)
    found = {name: reliability(confidences, right, bins=bins) for name, confidences, right in answers}
    return {name: vars(item) for name, item in found.items() if item is not None}


def _point(whole: Predictions, scoring: Scoring, point: OperatingPoint) -> dict[str, Any]:
    found = {"rule": point.rule, "chosen_on_images": point.n_images, "questions": {}}
    for question in main_questions(whole.targets, whole.probabilities, scoring):
        threshold = point.thresholds[question.name]
        found["questions"][question.name] = {
            **rates(question, threshold),
            "ci95": rate_intervals(question, threshold, np.asarray(whole.clusters, object)[question.images]),
            "validation": {
                "sensitivity": point.sensitivity[question.name],
                "specificity": point.specificity[question.name],
            },
        }
    return found


SPLITS = ("all", "train", "val", "test")


def read_test_set(
    data: DataSettings,
    scoring: Scoring,
    *,
    model: str,
    split: Literal["all", "train", "val", "test"] = "all",
    class_map: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ImageTable:
    """The images of a data set, their targets in the order of the model's classes.

    Args:
        data: Where they come from.
        scoring: Of the model.
        model: What the user calls it.
        split: Of a data set that brings splits, the images that have this one in any fold.
        class_map: Class of the data to the class of the model that it counts as; "" leaves its images out.
        progress: Hears of images that are copied here first.

    Raises:
        ConfigError: A split or class that is not there.
        DataError: Nothing usable is there, or its classes are not those of the model.
    """
    # It is a class of the model, which may be called otherwise here, or not be there at all.
    table = _of_split(read_table(replace(data, positive_class=None), progress=progress), split)
    table = matched(table, scoring, model=model, class_map=class_map or {})
    if not len(table):
        raise DataError("No image is left to evaluate.")
    return table


def matched(table: ImageTable, scoring: Scoring, *, model: str, class_map: Mapping[str, str]) -> ImageTable:
    """`table` with the model's classes; arguments and errors as of `read_test_set`."""
    if table.task != scoring.task:
        kind = {"multilabel": "several labels per image", "multiclass": "one class per image"}
        cells = " Several labels in one cell need --label-separator." if scoring.task == "multilabel" else ""
        raise DataError(
            f"{model} gives {kind[scoring.task]} ({', '.join(scoring.classes)}), the data has {kind[table.task]} "
            f"({', '.join(table.classes)}). Choose the columns with --label-column, and the task with --task.{cells}"
        )
    _check_map(table, scoring, class_map)
    becomes = {name: class_map.get(name, name) for name in table.classes}
    extra = [name for name, other in becomes.items() if other and other not in scoring.classes]
    counts = dict(zip(table.classes, np.nansum(table.targets == 1, axis=0).astype(int), strict=True))
    extra = [name for name in extra if counts[name] or table.task == "multilabel"]
    missing = [name for name in scoring.classes if name not in becomes.values()]
    if len(missing) == len(scoring.classes) or (extra and table.task == "multiclass"):
        raise DataError(_mismatch(model, scoring, counts, extra, missing))
    notes = [f"labels of the data that {model} does not know, left out: {', '.join(extra)}"] if extra else []
    if missing:
        kind = "label" if table.task == "multilabel" else "class"
        notes.append(f"the data has no {kind} {', '.join(missing)}; what depends on it is undefined")
    return _renamed(table, scoring, becomes, notes)


def _renamed(table: ImageTable, scoring: Scoring, becomes: Mapping[str, str], notes: Sequence[str]) -> ImageTable:
    unknown = np.nan if table.task == "multilabel" else 0.0
    targets = np.full((len(table), len(scoring.classes)), unknown, "float32")
    for column, name in enumerate(scoring.classes):
        sources = [place for place, source in enumerate(table.classes) if becomes[source] == name]
        if sources:
            targets[:, column] = table.targets[:, sources].max(axis=1)
    out = replace(table, targets=targets, classes=scoring.classes, splits=None, notes=(*table.notes, *notes))
    if table.task == "multilabel":
        return out
    left_out = [place for place, source in enumerate(table.classes) if not becomes[source]]
    return out.select(table.targets[:, left_out].sum(axis=1) == 0) if left_out else out


def _of_split(table: ImageTable, split: str) -> ImageTable:
    """The rows of a split, each path once."""
    if table.splits is None and split != "all":
        raise ConfigError(f"--split {split}: the data brings no splits. Leave it out to evaluate all images.")
    keep = np.ones(len(table), bool) if split == "all" else (table.splits == split).any(axis=0)
    if not keep.any():
        raise ConfigError(f"--split {split}: no image has it. The data has {', '.join(np.unique(table.splits))}.")
    first = {path: row for row, path in reversed(list(enumerate(table.paths)))}
    rows = [row for row in sorted(first.values()) if keep[row]]
    if table.splits is None or split != "all":
        return table.select(np.array(rows))
    note = "the data brings splits; all its images are evaluated (--split test takes those alone)"
    return replace(table.select(np.array(rows)), notes=(*table.notes, note))


def _check_map(table: ImageTable, scoring: Scoring, class_map: Mapping[str, str]) -> None:
    for name, other in class_map.items():
        if name not in table.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the data has no class {name!r}. Known: {', '.join(table.classes)}."
            )
        if other and other not in scoring.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the model has no class {other!r}. {closest_names(other, scoring.classes)}"
            )


def _mismatch(
    model: str, scoring: Scoring, counts: Mapping[str, int], extra: Sequence[str], missing: Sequence[str]
) -> str:
    listed = ", ".join(f"{name} ({counts[name]} images)" for name in extra)
    lacks = f" The data lacks {', '.join(missing)}." if missing else " The data has all of them."
    option = " ".join(f"--class-map {_quoted(name)}={_like(name, scoring.classes)}" for name in extra[:4])
    more = " …" if len(extra) > 4 else ""
    two_left = len(scoring.classes) - len(missing) > 1
    leave = ", or leave their images out with --class-map NAME=" if two_left else ""
    return (
        f"The classes of the data are not those of {model}. It knows {', '.join(scoring.classes)}.{lacks} Unknown to "
        f"it: {listed}. Say what they count as, as in {option}{more}{leave}"
    )


def _like(name: str, classes: Sequence[str]) -> str:
    """The class that is spelt like `name`; where there is none it is not for us to guess."""
    squeezed = name.lower().replace("_", " ").strip()
    alike = [item for item in classes if item.lower().replace("_", " ").strip() == squeezed]
    return _quoted(alike[0]) if alike else "CLASS"


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def validation_predictions(model: TrainedModel) -> RunPredictions | None:
    """What the folds of a run say about their validation images; None for an export, and where there are none.

    Raises:
        RunError: The run lacks its predictions.
        DataError: With several labels, the data set is not there any more.
    """
    if model.kind != "run":
        return None
    found = read_predictions(str(model.path), split="val", folds=model.folds)
    return found if found.paths else None


def temperatures_of(model: TrainedModel) -> tuple[float | None, ...]:
    """The temperature of each network; None where there are no validation predictions, or no truth of theirs any more.

    Raises:
        RunError: The run lacks its predictions.
    """
    if model.kind != "run":
        return model.temperatures
    try:
        found = validation_predictions(model)
    except DataError:
        found = None
    if found is None:
        return (None,) * len(model.folds)
    folds = np.array(found.folds)
    return tuple(
        fit_temperature(found.targets[folds == fold], found.probabilities[folds == fold], activation=model.activation)
        for fold in model.folds
    )


def validation_count(model: TrainedModel) -> int | None:
    """How many validation images decide in a run; None for an export, which does not say."""
    if model.kind != "run":
        return None
    with reading(model.path):
        lines = [read_rows(run_file(model.path, f"fold_{fold}/predictions.csv")) for fold in model.folds]
        return sum(row["split"] == "val" for rows in lines for row in rows)


def known_temperatures(model: TrainedModel) -> tuple[float, ...]:
    """The temperature of each network.

    Raises:
        ConfigError: One is not known.
    """
    temperatures = temperatures_of(model)
    if None in temperatures:
        raise ConfigError(
            f"--calibration temperature: {model.given} has no validation predictions to fit it on, nor brings one. "
            "Leave it out, or use the run or an export of it."
        )
    return temperatures


def point_of(model: TrainedModel, rule: str | None) -> OperatingPoint | None:
    """The operating point to decide by: as `rule` says, that of an export, or none.

    Args:
        model: Of the run or export.
        rule: `--operating-point`; "none" takes the largest output, or 0.5.

    Raises:
        ConfigError: No such rule, no yes-or-no question, or an export that was given another point.
        DataError: There are no validation images to choose it on.
    """
    if rule is None or rule.strip().lower() == "none":
        return model.point if rule is None else None
    rule = check_rule(rule)
    check_questions(model.scoring)
    if model.kind != "run":
        if model.point is not None and model.point.rule == rule:
            return model.point
        held = "none" if model.point is None else model.point.rule
        raise ConfigError(
            f"--operating-point {rule}: {model.given} was exported with {held}, and has no validation images to choose "
            f"another on. Use the run, or export it with --operating-point {rule}."
        )
    found = validation_predictions(model)
    if found is None:
        raise DataError(f"--operating-point {rule}: run {model.path} has no validation images to choose it on.")
    return choose_point(rule, found.targets, found.probabilities, model.scoring)


def export_values(run: Path, fold: int, rule: str | None) -> dict[str, object]:
    """The temperature and operating point of one fold, as an export carries them in its metadata; None where not known.

    Errors as of `point_of`.
    """
    model = find_model(str(run), folds=[fold])
    point = point_of(model, rule)
    (temperature,) = temperatures_of(model)
    return {"temperature": temperature, "operating_point": None if point is None else point.to_dict()}


SEEN = "seen.csv"
"""Names the test images that were in training."""

_NO_TEST = "this is not a test"


@dataclass(frozen=True)
class Leaks:
    """Test images that were in training.

    Attributes:
        counts: `images` and `patients` that trained or validated the run, `of` so many test images and `of_patients`
            (None where they are not known), the images that are `in_weights`: in the training of the run that it
            started from, and whether images were `compared`, and not only paths and names. None for a model that is
            no run.
        how: Path of each to how it was seen, in the order of the test images: "trained", "validated", "weights"
            (those that the run started from), joined by ";"; "patient" where only other images of its patient were.
    """

    counts: dict[str, Any] | None
    how: dict[str, str] = field(default_factory=dict)


def warn_of_leaks(model: TrainedModel, table: ImageTable, progress: Progress) -> Leaks:
    """Warn of test images and patients that were in training, and count them.

    Args:
        model: That is tested.
        table: The test images.
        progress: Hears a warning of each kind of leak, and what could not be compared.
    """
    if model.kind != "run":
        progress.note(
            f"{model.given} does not know its training images; evaluate the run to see whether they are tested"
        )
        return Leaks(None)
    seen = seen_before(table, model.path, model.folds, run_images(model.path).data)
    weights, in_weights = _seen_by_the_weights(model, table)
    patients = None if table.patients is None else len(set(table.patients))
    if seen.images:
        progress.warning(
            f"leak: {len(seen.images)} of {len(table)} test images trained or validated {model.given} (e.g. "
            f"{table.paths[seen.images[0]]}); {_consequence(len(seen.images), len(table))}"
        )
    if seen.patients:
        name, there = next(((a, b) for a, b in seen.patients.items() if a != b), next(iter(seen.patients.items())))
        spelt = f"{name}, spelt {there} there" if name != there else name
        progress.warning(
            f"leak: {len(seen.patients)} of {patients} patients have names that stand in the training "
            f"of {model.given} too (e.g. {spelt}); if they are the same people, its figures are too high"
        )
    if in_weights:
        progress.warning(
            f"leak: {len(in_weights)} of {len(table)} test images trained or chose the weights of {weights}, which "
            f"{model.given} started from (e.g. {table.paths[in_weights[0]]}); "
            f"{_consequence(len(in_weights), len(table))}"
        )
    if not seen.compared:
        progress.note(
            f"the images of {model.given} are not there any more: only the paths of test images were compared"
        )
    counts = {
        "images": len(seen.images),
        "patients": len(seen.patients),
        "of": len(table),
        "of_patients": patients,
        "in_weights": len(in_weights),
        "compared": seen.compared,
    }
    return Leaks(counts, _how(table, seen, in_weights))


def leak_summary(seen: dict[str, Any] | None, listed: Path | None = None) -> str | None:
    """One line to stand under the results; None if nothing was in training.

    Args:
        seen: The counts of `Leaks`.
        listed: The file that names the images, if there is one.
    """
    told = _told(seen)
    return f"{told}; listed in {listed}" if told and listed else told


def _told(seen: dict[str, Any] | None) -> str | None:
    if seen is None:
        return None
    counts = [f"{seen['images']} of {seen['of']} test images"] if seen["images"] else []
    if seen["patients"]:
        counts.append(f"{seen['patients']} of {seen['of_patients']} patients")
    parts = [f"{' and '.join(counts)} were in the run's training or validation"] if counts else []
    if seen["in_weights"]:
        parts.append(f"{seen['in_weights']} of {seen['of']} test images in that of the weights it started from")
    if not parts:
        return None
    if seen["of"] in (seen["images"], seen["in_weights"]):
        return f"{', '.join(parts)}: {_NO_TEST}"
    known = seen["images"] or seen["in_weights"]
    return f"{', '.join(parts)}: the figures {'are' if known else 'may be'} too high"


def _how(table: ImageTable, seen: Seen, in_weights: Sequence[int]) -> dict[str, str]:
    ways = dict(zip(seen.images, seen.ways, strict=True))
    for row in in_weights:
        ways[row] = f"{ways[row]};weights" if row in ways else "weights"
    known = set(seen.patients)
    for row, patient in enumerate(table.patients or ()):
        if patient in known:
            ways.setdefault(row, "patient")
    return {table.paths[row]: ways[row] for row in sorted(ways)}


def _consequence(leaked: int, tested: int) -> str:
    if leaked == tested:
        return f"{_NO_TEST}. Give images that are new to it"
    return "its figures are too high. Leave them out"


def _seen_by_the_weights(model: TrainedModel, table: ImageTable) -> tuple[str, list[int]]:
    """The weights that the run started from, and rows of the test images that trained them, if they are a run's."""
    weights = str(read_settings(model.path)["model"].get("weights") or "random")
    whole = Fold(1, 1, 0, np.full(len(table), "test"))
    return weights, next((rows for _, rows in leaked_images(weights, table, [whole])), [])


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
    from radtransfer.images.pipeline import make_batches

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
