"""What the validation images decide after training: temperatures, and where yes begins.

Each network of a run is judged on its own validation images, which it has not trained on; test images decide nothing.
Temperatures belong to one network each. An operating point is of the pooled validation images of all folds, each image
with the network whose validation image it is; it stands for probabilities before any temperature.
"""

from pathlib import Path

import numpy as np

from radtransfer.comparisons.comparison_images import run_file
from radtransfer.comparisons.run_predictions import RunPredictions, read_predictions
from radtransfer.errors import ConfigError, DataError
from radtransfer.metrics.calibration import fit_temperature
from radtransfer.metrics.operating_point import OperatingPoint, check_questions, check_rule, choose_point
from radtransfer.predictions.trained_model import TrainedModel, find_model
from radtransfer.run_reading import read_rows, reading


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
