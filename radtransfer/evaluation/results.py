"""Evaluate a trained model on an external test set, or a run on its own test images.

The classes of a test set are matched with those of the model by name. Its images are compared with the training images.

Temperatures and thresholds are chosen on validation images, never on test images. Each network has its own temperature,
fitted on its own validation images. The operating point of a run is chosen on the pooled validation images of all
folds, each predicted by the network of its fold, and applies to probabilities before temperature scaling.

Files of an evaluation:

predictions.csv         one line per image: mean over networks; predictions_members.csv: each network
seen.csv                test images that were in the training data, if any, and how they were used
metrics.json            all metrics and curves
roc.png  pr.png         with 95 % bands over patients
calibration.png         before and after temperature scaling, with 95 % intervals over images
confusion.png           at the operating point, if there is one
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_check import check_images
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import leaked_images, note_changes, run_images, training_overlap
from radtransfer.data.splits import Fold
from radtransfer.data.table import NO_PATIENTS, ImageTable, show_notes
from radtransfer.errors import ConfigError, DataError, closest_names
from radtransfer.evaluation.calibration import (
    BINS,
    OperatingPoint,
    calibration_answers,
    check_questions,
    check_rule,
    choose_point,
    expected_error,
    fit_temperature,
    mean_with_temperatures,
    rate_intervals,
    rates,
    reliability,
)
from radtransfer.evaluation.intervals import GRID, Curve, both_curves, estimate_auc
from radtransfer.evaluation.metrics import METRICS, Predictions, brier, evaluate, summarize
from radtransfer.evaluation.predictions import (
    Forward,
    csv_header,
    csv_line,
    decision_text,
    predicted_names,
    predictions,
    read_predictions,
)
from radtransfer.evaluation.scoring import Scoring, class_questions, main_questions
from radtransfer.evaluation.trained_model import TrainedModel, find_model, is_export
from radtransfer.files import atomic_folder, printable
from radtransfer.process import Progress
from radtransfer.reports.figures import save_figure, shortened
from radtransfer.reports.result_figures import Bins, draw_confusion, draw_precision_recall, draw_reliability, draw_roc
from radtransfer.runs.folder import write_json, write_rows
from radtransfer.runs.read import read_rows, read_settings, reading, run_file

SEEN = "seen.csv"  # the test images that were in the training data

_UNKNOWN = "no patient column: intervals are over images; give --patient-column or --patient-regex"
_NO_TEST = "this is not a test"


@dataclass(frozen=True)
class EvaluationSettings:
    """How predictions are evaluated."""

    rule: str | None = None  # how to choose the operating point, as `check_rule`; None for no new one
    bins: int = BINS  # of the calibration error
    draws: int = 2000  # bootstrap samples for the bands of the curves
    seed: int = 0  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The predictions of a network, or of several together."""

    name: str  # of the network, "ensemble" or "out_of_fold"
    parts: tuple[Predictions, ...]  # one per fold, disjoint within a repeat; one for an external test set
    calibrated: np.ndarray | None = None  # float64 (images, classes) after temperature scaling, all parts in order

    @property
    def whole(self) -> Predictions:
        """All parts together."""
        if len(self.parts) == 1:
            return self.parts[0]
        known = all(part.patients is not None for part in self.parts)
        return Predictions(
            np.concatenate([part.targets for part in self.parts]),
            np.concatenate([part.probabilities for part in self.parts]),
            [image for part in self.parts for image in part.images],
            [patient for part in self.parts for patient in part.patients] if known else None,
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The performance of a model on test images."""

    model: TrainedModel
    evaluated: tuple[Evaluated, ...]  # all networks together, then each one if there are several
    labels: tuple[str, ...]  # of the images of the first of these
    point: OperatingPoint | None
    settings: EvaluationSettings
    figures: dict[str, Any]  # the content of metrics.json but for the curves
    seen: Mapping[str, str] = field(default_factory=dict)  # see `warn_of_leaks`
    files: tuple[Path, ...] = ()  # written files

    def __repr__(self) -> str:
        from radtransfer.evaluation.summary import evaluation_lines

        return "\n".join(map(printable, evaluation_lines(self)))

    @property
    def metrics(self) -> dict[str, Any]:
        """All results: `auc`, `ci95`, `accuracy`, `per_class`, `calibration`, …, as `--json` prints them."""
        return self.figures


def evaluate_on(
    model: TrainedModel,
    data: DataSettings,
    *,
    split: str = "all",
    class_map: Mapping[str, str] | None = None,
    settings: EvaluationSettings | None = None,
    batch_size: int = 32,
    workers: int = 1,
    report_file: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate each network of `model`, and the mean of several, on an external test set.

    A `positive_class` of the data replaces that of the model. `split` and `class_map`: see `read_test_set`. Unreadable
    images are listed in `report_file`.
    """
    settings, progress = settings or EvaluationSettings(), progress or Progress()
    model = model.with_positive_class(data.positive_class)
    point = point_of(model, settings.rule)
    table = read_test_set(data, model.scoring, model=model.given, split=split, class_map=class_map, progress=progress)
    temperatures = temperatures_of(model)
    show_notes((_UNKNOWN if note == NO_PATIENTS else note for note in (*model.notes, *table.notes)), progress)
    checked = check_images(
        table,
        workers=workers,
        on_bad_image=data.on_bad_image,
        report_file=report_file,
        reading=model.reading,
        progress=progress,
    )
    table = checked.table
    if model.kind == "run":
        note_changes([model.path], progress)
    counts, seen = warn_of_leaks(model, table, progress)
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
    parts, done = [], 0
    for images, _, weights in batches.in_order():
        size = int(weights.numpy().sum())  # a row of weight 0 only fills the batch
        parts.append(forward(images[:size]))
        done += size
        progress.count("images predicted", done, len(table))
    members = np.concatenate(parts, axis=1)

    def one(name: str, which: slice) -> Evaluated:
        mean = members[which].astype(np.float64).mean(axis=0)
        predictions = Predictions(table.targets, mean, table.paths, table.patients)
        return Evaluated(name, (predictions,), _scaled(members[which], temperatures[which], model))

    evaluated = [one(name, slice(k, k + 1)) for k, name in enumerate(model.members)]
    if len(evaluated) > 1:
        evaluated.insert(0, one("ensemble", slice(None)))
    figures = _figures(model, data.source, evaluated, point, settings, temperatures, {"seen": counts})
    return Evaluation(model, tuple(evaluated), table.labels, point, settings, figures, seen)


def evaluate_run(
    model: TrainedModel, *, settings: EvaluationSettings | None = None, progress: Progress | None = None
) -> Evaluation:
    """Evaluate a run on the test images of its folds, from its stored predictions."""
    settings = settings or EvaluationSettings()
    check_has_images(model.given)
    point, temperatures = point_of(model, settings.rule), temperatures_of(model)
    found = read_predictions(str(model.path), folds=model.folds)
    note_changes([model.path], progress or Progress())
    folds, parts = np.array(found.folds), []
    for fold in model.folds:
        part = found.select(np.flatnonzero(folds == fold))
        parts.append(Predictions(part.targets, part.probabilities, part.paths, part.patients, part.repeats[0]))
    scaled = [
        None if None in temperatures else _scaled(part.probabilities[None], [temperature], model)
        for part, temperature in zip(parts, temperatures, strict=True)
    ]
    evaluated = [Evaluated(name, (part,), each) for name, part, each in zip(model.members, parts, scaled, strict=True)]
    if len(evaluated) > 1:
        calibrated = None if None in temperatures else np.concatenate(scaled)
        evaluated.insert(0, Evaluated("out_of_fold", tuple(parts), calibrated))
    figures = _figures(model, None, evaluated, point, settings, temperatures, {})
    return Evaluation(model, tuple(evaluated), found.labels, point, settings, figures)


def check_has_images(given: str) -> None:
    """Raise ConfigError if `given` is an export, which has no test images."""
    if is_export(given):
        raise ConfigError(f"{given} is an export, which has no test images of its own. Give a test set with --data.")


def _scaled(members: np.ndarray, temperatures: Sequence[float | None], model: TrainedModel) -> np.ndarray | None:
    """The mean over networks after temperature scaling; None if a temperature is unknown."""
    if None in temperatures:
        return None
    return mean_with_temperatures(members, temperatures, activation=model.activation)


def _figures(
    model: TrainedModel,
    data: str | None,
    evaluated: Sequence[Evaluated],
    point: OperatingPoint | None,
    settings: EvaluationSettings,
    temperatures: Sequence[float | None],
    more: dict[str, Any],
) -> dict[str, Any]:
    scoring, validation_images = model.scoring, None
    if model.kind == "run":
        with reading(model.path):
            lines = [read_rows(run_file(model.path, f"fold_{fold}/predictions.csv")) for fold in model.folds]
            validation_images = sum(row["split"] == "val" for rows in lines for row in rows)
    whole, *each = [
        compute_metrics(item, scoring, point=point, bins=settings.bins, details=number == 0)
        for number, item in enumerate(evaluated)
    ]
    return {
        "model": str(model.given),
        "kind": model.kind,
        "folds": list(model.folds),
        "data": data,
        "judged": evaluated[0].name,
        "task": scoring.task,
        "classes": list(scoring.classes),
        "positive_from": scoring.positive_from,
        "positive_class": scoring.positive_class,
        "temperatures": None if None in temperatures else list(temperatures),
        "validation_images": validation_images,
        "draws": settings.draws,
        "seed": settings.seed,
        **more,
        **whole,
        "members": {item.name: value for item, value in zip(evaluated[1:], each, strict=True)},
    }


def compute_metrics(
    item: Evaluated, scoring: Scoring, *, point: OperatingPoint | None, bins: int = BINS, details: bool = True
) -> dict[str, Any]:
    """The metrics: means over the parts, AUCs pooled; `details` adds intervals per class, diagram and confusion."""
    whole, summary = item.whole, summarize(item.parts, scoring)
    targets, auc = whole.targets, summary["auc"]
    figures = {
        "auc": auc["pooled"],
        "ci95": auc["ci95"],
        **({"auc_mean": auc["mean"], "auc_sd": auc["sd"]} if len(item.parts) > 1 else {}),
        "per_class": auc["per_class"],
        **{name: summary[name] for name in METRICS if name != "auc"},
        "n_images": summary["n_images"],
        "n_patients": summary["n_patients"],
        "undefined": evaluate(whole, scoring)["undefined"],
    }
    calibration = {"bins": bins, "ece": expected_error(targets, whole.probabilities, scoring, bins=bins)}
    if item.calibrated is not None:
        calibration["ece_after"] = expected_error(targets, item.calibrated, scoring, bins=bins)
        calibration["brier_before"] = brier(targets, whole.probabilities, scoring)
        calibration["brier_after"] = brier(targets, item.calibrated, scoring)
    figures["calibration"] = calibration
    if point is not None:
        questions = {}
        for question in main_questions(targets, whole.probabilities, scoring):
            name, threshold = question.name, point.thresholds[question.name]
            questions[name] = {
                **rates(question, threshold),
                "ci95": rate_intervals(question, threshold, np.asarray(whole.clusters, object)[question.images]),
                "validation": {"sensitivity": point.sensitivity[name], "specificity": point.specificity[name]},
            }
        chosen = {"rule": point.rule, "chosen_on_images": point.n_images}
        figures["operating_point"] = {**chosen, "questions": questions}
    if details:
        answers = calibration_answers(targets, whole.probabilities, scoring)
        diagrams = {name: reliability(confidences, right, bins=bins) for name, confidences, right in answers}
        calibration["diagram"] = {name: vars(found) for name, found in diagrams.items() if found is not None}
        figures["per_class"] = _classes(whole, scoring)
        figures["confusion"] = _confusion(targets, whole.probabilities, scoring, point)
    return figures


def _confusion(
    targets: np.ndarray, probabilities: np.ndarray, scoring: Scoring, point: OperatingPoint | None
) -> dict[str, Any]:
    """`counts`: one row per true class, the positive class last; with several labels, a 2 × 2 table for each."""
    predicted, decided = predicted_names(probabilities, scoring, point), decision_text(scoring, point)
    names = scoring.in_order
    if scoring.task == "multilabel":
        counts = {}
        for column, name in enumerate(names):
            known = ~np.isnan(targets[:, column])
            truth, yes = targets[known, column] > 0.5, np.array([name in row for row in predicted], bool)[known]
            counts[name] = [[int((side & ~yes).sum()), int((side & yes).sum())] for side in (~truth, truth)]
        return {"labels": counts, "decided": decided}
    number = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), int)
    true = np.array([number[name] for name in scoring.classes])[targets.argmax(axis=1)]
    np.add.at(table, (true, [number[row[0]] for row in predicted]), 1)
    return {"classes": list(names), "counts": table.tolist(), "decided": decided}


def _classes(whole: Predictions, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """AUC, interval and number of positive images of each class or label."""
    _, codes = np.unique(np.asarray(whole.clusters, dtype=object).astype(str), return_inverse=True)
    found = {}
    for question in class_questions(whole.targets, whole.probabilities, scoring):
        auc = estimate_auc([([question], codes)])
        figures = {"auc": None, "ci95": None} if auc is None else {"auc": auc.area, "ci95": list(auc.ci95)}
        found[question.name] = figures | {"n_positive": int(question.truth.sum())}
    return found


def read_test_set(
    data: DataSettings,
    scoring: Scoring,
    *,
    model: str,
    split: Literal["all", "train", "val", "test"] = "all",
    class_map: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ImageTable:
    """The images of a data set, with targets in the order of the model's classes.

    If the data set has splits: the images of `split` in any fold. `class_map`: class of the data to class of the model;
    "" leaves out its images.
    """
    # The positive class is a class of the model, which may have another name in the data, or be absent.
    table = read_table(replace(data, positive_class=None), progress=progress)
    if table.splits is None and split != "all":
        raise ConfigError(f"--split {split}: the data has no splits. Omit the option to evaluate all images.")
    keep = np.ones(len(table), bool) if split == "all" else (table.splits == split).any(axis=0)
    if not keep.any():
        raise ConfigError(f"--split {split}: no image has it. The data has {', '.join(np.unique(table.splits))}.")
    first = {path: row for row, path in reversed(list(enumerate(table.paths)))}  # each path once
    if table.splits is not None and split == "all":
        note = "the data has splits; all images are evaluated (--split test evaluates the test split only)"
        table = replace(table, notes=(*table.notes, note))
    table = table.select(np.array([row for row in sorted(first.values()) if keep[row]]))
    table = match_classes(table, scoring, model=model, class_map=class_map or {})
    if not len(table):
        raise DataError("Expected images to evaluate, received none. Check --split and --class-map.")
    return table


def match_classes(table: ImageTable, scoring: Scoring, *, model: str, class_map: Mapping[str, str]) -> ImageTable:
    """`table` with the classes of the model."""
    several = table.task == "multilabel"
    if table.task != scoring.task:
        kind = {"multilabel": "several labels per image", "multiclass": "one class per image"}
        cells = " Several labels in one cell need --label-separator." if scoring.task == "multilabel" else ""
        raise DataError(
            f"{model} predicts {kind[scoring.task]} ({', '.join(scoring.classes)}), the data has {kind[table.task]} "
            f"({', '.join(table.classes)}). Choose the columns with --label-column, and the task with --task.{cells}"
        )
    for name, other in class_map.items():
        if name not in table.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the data has no class {name!r}. Known: {', '.join(table.classes)}."
            )
        if other and other not in scoring.classes:
            raise ConfigError(
                f"--class-map {name}={other}: the model has no class {other!r}. {closest_names(other, scoring.classes)}"
            )
    becomes = {name: class_map.get(name, name) for name in table.classes}
    counts = dict(zip(table.classes, np.nansum(table.targets == 1, axis=0).astype(int), strict=True))
    extra = [name for name, other in becomes.items() if other and other not in scoring.classes]
    extra = [name for name in extra if counts[name] or several]
    missing = [name for name in scoring.classes if name not in becomes.values()]
    if len(missing) == len(scoring.classes) or (extra and not several):
        raise DataError(_mismatch(model, scoring, counts, extra, missing))
    notes = [f"labels unknown to {model} are left out: {', '.join(extra)}"] if extra else []
    if missing:
        kind = "label" if several else "class"
        notes.append(f"the data has no {kind} {', '.join(missing)}; metrics that need it are undefined")
    targets = np.full((len(table), len(scoring.classes)), np.nan if several else 0.0, "float32")
    for column, name in enumerate(scoring.classes):
        sources = [place for place, source in enumerate(table.classes) if becomes[source] == name]
        if sources:
            targets[:, column] = table.targets[:, sources].max(axis=1)
    left_out = [place for place, source in enumerate(table.classes) if not becomes[source] and not several]
    out = replace(table, targets=targets, classes=scoring.classes, splits=None, notes=(*table.notes, *notes))
    return out.select(table.targets[:, left_out].sum(axis=1) == 0) if left_out else out


def _mismatch(
    model: str, scoring: Scoring, counts: Mapping[str, int], extra: Sequence[str], missing: Sequence[str]
) -> str:
    def normalized(name: str) -> str:
        return name.lower().replace("_", " ").strip()

    def quoted(name: str) -> str:
        return f'"{name}"' if " " in name else name

    known = {normalized(name): quoted(name) for name in reversed(scoring.classes)}
    listed = ", ".join(f"{name} ({counts[name]} images)" for name in extra)
    lacks = f" The data lacks {', '.join(missing)}." if missing else " The data has all of them."
    option = " ".join(f"--class-map {quoted(name)}={known.get(normalized(name), 'CLASS')}" for name in extra[:4])
    more = " …" if len(extra) > 4 else ""
    two_left = len(scoring.classes) - len(missing) > 1
    leave = ", or leave out their images with --class-map NAME=" if two_left else ""
    return (
        f"The classes of the data differ from those of {model}. Expected {', '.join(scoring.classes)}.{lacks} Unknown: "
        f"{listed}. Map each one to a class of the model, as in {option}{more}{leave}"
    )


def temperatures_of(model: TrainedModel) -> tuple[float | None, ...]:
    """The temperature of each network; None without validation predictions or their labels."""
    if model.kind != "run":
        return model.temperatures
    unknown = (None,) * len(model.folds)
    try:
        found = read_predictions(str(model.path), split="val", folds=model.folds)
    except DataError:  # with several labels, only the data set records which are known
        return unknown
    if not found.paths:
        return unknown
    folds = np.array(found.folds)
    return tuple(
        fit_temperature(found.targets[folds == fold], found.probabilities[folds == fold], activation=model.activation)
        for fold in model.folds
    )


def known_temperatures(model: TrainedModel) -> tuple[float, ...]:
    """The temperature of each network; ConfigError if one is not known."""
    temperatures = temperatures_of(model)
    if None in temperatures:
        raise ConfigError(
            f"--calibration temperature: {model.given} has neither a stored temperature nor validation predictions to "
            "fit one. Omit the option, or use the run or an export of it."
        )
    return temperatures


def point_of(model: TrainedModel, rule: str | None) -> OperatingPoint | None:
    """The operating point chosen by `rule`, or stored in an export (`rule` None); None without one or for "none"."""
    if rule is None or rule.strip().lower() == "none":
        return model.point if rule is None else None
    rule = check_rule(rule)
    check_questions(model.scoring)
    if model.kind != "run":
        if model.point is not None and model.point.rule == rule:
            return model.point
        stored = "no operating point" if model.point is None else model.point.rule
        raise ConfigError(
            f"--operating-point {rule}: {model.given} was exported with {stored} and has no validation images to "
            f"choose another. Use the run, or export it again with --operating-point {rule}."
        )
    found = read_predictions(str(model.path), split="val", folds=model.folds)
    if not found.paths:
        raise DataError(
            f"--operating-point {rule}: expected validation images in run {model.path}, received none. Train it with a "
            "larger --val-fraction."
        )
    return choose_point(rule, found.targets, found.probabilities, model.scoring)


def export_values(run: Path, fold: int, rule: str | None) -> dict[str, object]:
    """The temperature and operating point of one fold for the metadata of an export; None where unknown."""
    model = find_model(str(run), folds=[fold])
    point = point_of(model, rule)
    (temperature,) = temperatures_of(model)
    return {"temperature": temperature, "operating_point": None if point is None else asdict(point)}


def warn_of_leaks(
    model: TrainedModel, table: ImageTable, progress: Progress
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Warn of test images and patients in the training data; give their counts (None if not a run) and uses by path.

    A use is "trained", "validated" or "weights" (of the run it was initialized from), joined by ";", or "patient" if
    only other images of the patient were used. `compared` says whether pixels were compared, not only paths.
    """
    if model.kind != "run":
        progress.note(
            f"{model.given} does not record its training images; evaluate the run to check the test set for them"
        )
        return None, {}
    given, total = model.given, len(table)
    seen = training_overlap(table, model.path, model.folds, run_images(model.path).data)
    weights = str(read_settings(model.path)["model"].get("weights") or "random")
    whole = Fold(1, 1, 0, np.full(total, "test"))
    in_weights = next((rows for _, rows in leaked_images(weights, table, [whole])), [])
    patients = None if table.patients is None else len(set(table.patients))

    def consequence(leaked: int) -> str:
        if leaked == total:
            return f"{_NO_TEST}. Use images that the model has not seen"
        return "the results are too high. Leave these images out"

    if seen.images:
        progress.warning(
            f"leak: {len(seen.images)} of {total} test images were used to train or validate {given} (e.g. "
            f"{table.paths[seen.images[0]]}); {consequence(len(seen.images))}"
        )
    if seen.patients:
        name, there = next(((a, b) for a, b in seen.patients.items() if a != b), next(iter(seen.patients.items())))
        example = f"{name}, there spelled {there}" if name != there else name
        progress.warning(
            f"leak: {len(seen.patients)} of {patients} patients have names that are also in the training data of "
            f"{given} (e.g. {example}); if they are the same patients, the results are too high"
        )
    if in_weights:
        progress.warning(
            f"leak: {len(in_weights)} of {total} test images were used to train the initial weights of {given}, "
            f"{weights} (e.g. {table.paths[in_weights[0]]}); {consequence(len(in_weights))}"
        )
    if not seen.compared:
        progress.note(f"the training images of {given} are no longer available: test images were compared by path only")
    counts = {
        "images": len(seen.images),
        "patients": len(seen.patients),
        "of": total,
        "of_patients": patients,
        "in_weights": len(in_weights),
        "compared": seen.compared,
    }
    uses = dict(zip(seen.images, seen.roles, strict=True))
    for row in in_weights:
        uses[row] = f"{uses[row]};weights" if row in uses else "weights"
    for row, patient in enumerate(table.patients or ()):
        if patient in seen.patients:
            uses.setdefault(row, "patient")
    return counts, {table.paths[row]: uses[row] for row in sorted(uses)}


def leak_summary(seen: dict[str, Any] | None, listed: Path | None = None) -> str | None:
    """The counts of `warn_of_leaks` in one line, with the file that lists the images; None without leaks."""
    if seen is None:
        return None
    counts = [f"{seen['images']} of {seen['of']} test images"] if seen["images"] else []
    if seen["patients"]:
        counts.append(f"{seen['patients']} of {seen['of_patients']} patients")
    parts = [f"{' and '.join(counts)} were in the run's training or validation"] if counts else []
    if seen["in_weights"]:
        parts.append(f"{seen['in_weights']} of {seen['of']} test images were in the training of its initial weights")
    if not parts:
        return None
    consequence = f"the results {'are' if seen['images'] or seen['in_weights'] else 'may be'} too high"
    if seen["of"] in (seen["images"], seen["in_weights"]):
        consequence = _NO_TEST
    return f"{', '.join(parts)}: {consequence}{f'; listed in {listed}' if listed else ''}"


FILES = (
    *("predictions.csv", "metrics.json", "predictions_members.csv", SEEN),
    *("roc.png", "pr.png", "calibration.png", "confusion.png"),
)
"""All files that an evaluation may write."""

_MOST = 8  # most classes with curves in a figure


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write all files of the evaluation, or none; those of an earlier evaluation are replaced or deleted."""
    roc, pr = _curves(evaluation)
    path, *rest = csv_header(evaluation.model.scoring, pointed=evaluation.point is not None)
    header = [path, "patient", "label", *rest]
    with atomic_folder(out, FILES, last="metrics.json") as folder:
        names = ["predictions.csv", "metrics.json"]
        write_rows(folder / names[0], header, _rows(evaluation, evaluation.evaluated[0]))
        curves = {kind: [asdict(curve) for curve in found] for kind, found in (("roc", roc), ("pr", pr))}
        write_json(folder / names[1], evaluation.figures | {"curves": curves})
        if len(evaluation.evaluated) > 1:
            names.append("predictions_members.csv")
            rows = ([item.name, *row] for item in evaluation.evaluated[1:] for row in _rows(evaluation, item))
            write_rows(folder / names[-1], ["network", *header], rows)
        if evaluation.seen:
            names.append(SEEN)
            write_rows(folder / SEEN, ["path", "how"], evaluation.seen.items(), for_people=True)
        for name, figure in _write_figures(evaluation, roc[:_MOST], pr[:_MOST]):
            save_figure(figure, folder / name)
            names.append(name)
    return [out / name for name in names]


def calibration_axes(scoring: Scoring) -> dict[str, str]:
    """The axis labels of the reliability diagram, as keywords of `draw_reliability`."""
    if scoring.task == "multilabel":
        return {"confidence": "probability of a label", "frequency": "share with the label", "unit": "images × labels"}
    if len(scoring.classes) > 2 and scoring.positive_from is None:
        return {"confidence": "largest probability", "frequency": "share correct"}
    nothing = np.zeros((0, len(scoring.classes)))
    (question,) = main_questions(nothing, nothing, scoring)
    name = shortened(question.name, 28)
    return {"confidence": f"probability of {name}", "frequency": f"share of {name}"}


def _curves(evaluation: Evaluation) -> tuple[list[Curve], list[Curve]]:
    """The ROC and precision-recall curves of the main question if there is one, else of each class or label."""
    whole, scoring, settings = evaluation.evaluated[0].whole, evaluation.model.scoring, evaluation.settings
    main = main_questions(whole.targets, whole.probabilities, scoring)
    questions = main if len(main) == 1 else class_questions(whole.targets, whole.probabilities, scoring)
    roc, pr = [], []
    for item in questions:
        clusters = [whole.clusters[row] for row in item.images]
        pair = both_curves(item.name, item.truth, item.scores, clusters, draws=settings.draws, seed=settings.seed)
        if pair is not None:
            roc.append(pair[0])
            pr.append(pair[1])
    return roc, pr


def _rows(evaluation: Evaluation, item: Evaluated) -> Iterator[list[Any]]:
    whole = item.whole
    labels = dict(zip(evaluation.evaluated[0].whole.images, evaluation.labels, strict=True))
    patients = whole.patients or [""] * len(whole.images)
    found = predictions(whole.images, whole.probabilities, evaluation.model.scoring, evaluation.point)
    for patient, prediction in zip(patients, found, strict=True):
        path, *cells = csv_line(prediction)
        yield [path, patient, labels[path], *cells]


def _write_figures(evaluation: Evaluation, roc: list[Curve], pr: list[Curve]) -> Iterator[tuple[str, Any]]:
    scoring, figures = evaluation.model.scoring, evaluation.figures
    subject = scoring.subject
    if roc:
        # The interval of a class or label, or of the main question if that is neither.
        ends = {c.question: figures["per_class"].get(c.question, figures)["ci95"] for c in roc}
        lines = {c.question: (c.x, c.y, c.low, c.high, c.area, ends[c.question]) for c in roc}
        at_point = {
            name: (1 - item["specificity"], item["sensitivity"])
            for name, item in figures.get("operating_point", {}).get("questions", {}).items()
            if item["specificity"] is not None and item["sensitivity"] is not None
        }
        yield "roc.png", draw_roc(lines, GRID, points=at_point, subject=subject)
        lines = {c.question: (c.x, c.y, c.low, c.high, c.area, c.prevalence) for c in pr}
        yield "pr.png", draw_precision_recall(lines, GRID, subject=subject)
    # One diagram for all answers, before temperature scaling and, if the temperatures are known, after it.
    whole, diagrams = evaluation.evaluated[0].whole, {}
    scaled = evaluation.evaluated[0].calibrated
    for name, probabilities in (("as trained", whole.probabilities), ("temperature-scaled", scaled)):
        if probabilities is None:
            continue
        answers = calibration_answers(whole.targets, probabilities, scoring)
        confidences, right = (np.concatenate([item[place] for item in answers]) for place in (1, 2))
        item = reliability(confidences, right, bins=evaluation.settings.bins)
        if item is not None:
            columns = (item.confidence, item.frequency, item.ci95, item.count, item.start)
            diagrams[name] = Bins(*columns, width=1 / item.bins, error=item.ece)
    if diagrams:
        yield "calibration.png", draw_reliability(diagrams, **calibration_axes(scoring), subject=subject)
    found = figures["confusion"]
    if "counts" in found:
        title = "" if scoring.positive_class is None else shortened(subject, 48)
        yield "confusion.png", draw_confusion({title: found["counts"]}, {title: found["classes"]}, found["decided"])
    else:
        names = dict.fromkeys(found["labels"], ("absent", "present"))
        yield "confusion.png", draw_confusion(found["labels"], names, found["decided"])
