"""`radtransfer evaluate`: what a trained model is worth on test images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import given_settings, setting_options
from radtransfer.cli.prediction_options import batch_option, fold_option
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import TerminalProgress
from radtransfer.config import load_config
from radtransfer.errors import ConfigError

if TYPE_CHECKING:
    from radtransfer.predictions.evaluate import Evaluation

OPTIONS = {
    "data": "data.source",
    **TABLE_OPTIONS,
    "on_bad_image": "data.on_bad_image",
    "workers": "system.workers",
}


@click.command(short_help="Evaluate a trained model on test images.")
@click.argument("run")
@setting_options(**OPTIONS)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "val", "test"]),
    default="all",
    show_default=True,
    help="Of data that brings splits: evaluate these images.",
)
@click.option(
    "--class-map",
    multiple=True,
    metavar="NAME=CLASS",
    help="Class NAME of the data counts as CLASS of the model; NAME= leaves its images out.",
)
@fold_option
@click.option(
    "--operating-point",
    metavar="RULE",
    help="Judge the threshold that this rule chooses on the run's validation images: youden, sensitivity=X or "
    "specificity=X. An export brings its own.",
)
@click.option("--bins", default=10, show_default=True, type=click.IntRange(2, 1000), help="Of the calibration error.")
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(100), help="Of the bootstrap.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the bootstrap.")
@batch_option
@click.option("--out", metavar="DIR", help="Write predictions, metrics and figures here.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    run: str,
    split: str,
    class_map: tuple[str, ...],
    fold: tuple[int, ...],
    operating_point: str | None,
    bins: int,
    draws: int,
    seed: int,
    batch_size: int,
    out: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Evaluate RUN on an external test set: each fold's network, and the mean of their probabilities.

    RUN is a run, RUN/fold_K, an exported .keras file or a SavedModel folder. Without --data a run is evaluated on its
    own test images, by the predictions that it kept. Classes are matched by name. Intervals are over patients, images
    where patients are not known. Temperatures and operating points come from the run's validation images alone.

    \b
    Example: radtransfer evaluate runs/first --data hospital_b.csv --image-root hospital_b/ --out evaluated
    """
    settings = load_config(options=given_settings(given, OPTIONS))
    mapped = _class_map(class_map)
    _check_options(given, split, mapped)
    if out:
        from radtransfer.result_folder import check_out

        check_out(Path(out))
    import_tensorflow()
    from radtransfer.device import usable_cores
    from radtransfer.predictions.evaluate import Judging, evaluate_on, evaluate_run
    from radtransfer.predictions.leak_warnings import leak_summary
    from radtransfer.predictions.trained_model import find_model

    progress = TerminalProgress()
    model, judging = find_model(run, folds=fold), Judging(operating_point, bins, draws, seed)
    if settings.data.source is None:
        evaluation = evaluate_run(model, judging=judging, progress=progress)
    else:
        evaluation = evaluate_on(
            model,
            settings.data,
            split=split,
            class_map=mapped,
            judging=judging,
            batch_size=batch_size,
            workers=usable_cores() if settings.system.workers == "auto" else settings.system.workers,
            report_file=Path(out) / "bad_images.txt" if out else None,
            progress=progress,
        )
    progress.clear()
    written = _write(evaluation, out)
    click.echo(json.dumps(evaluation.figures, indent=2) if as_json else "\n".join(_lines(evaluation)))
    for path in written:
        click.echo(f"wrote     {path}", err=True)
    leaked = leak_summary(evaluation.figures.get("seen"))
    if leaked:
        progress.warning(leaked)


def _write(evaluation: "Evaluation", out: str | None) -> list[Path]:
    if out is None:
        return []
    from radtransfer.predictions.evaluation_files import write_evaluation

    return write_evaluation(evaluation, Path(out))


def _class_map(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [item.rpartition("=") for item in given]
    wrong = [item for item, (name, equals, _) in zip(given, pairs, strict=True) if not equals or not name.strip()]
    if wrong:
        raise ConfigError(f"--class-map expects NAME=CLASS, such as normal=benign. Received: {wrong[0]!r}.")
    return {name.strip(): other.strip() for name, _, other in pairs}


def _check_options(given: dict[str, Any], split: str, mapped: dict[str, str]) -> None:
    """Options about data need data."""
    if given["data"] is not None:
        return
    named = [f"--{name.replace('_', '-')}" for name in TABLE_OPTIONS if given[name] not in (None, ())]
    named += ["--split"] * (split != "all") + ["--class-map"] * bool(mapped)
    if named:
        raise ConfigError(f"{named[0]} is about the images in --data, which is not given.")


def _lines(evaluation: "Evaluation") -> Iterator[str]:
    found, model = evaluation.figures, evaluation.model
    yield f"model     {_model_text(evaluation)}"
    patients = "patients not known" if found["n_patients"] is None else f"{found['n_patients']} patients"
    source = found["data"] or "the run's own test images"
    counts = ", ".join(f"{name} {item['n_positive']}" for name, item in found["per_class"].items())
    yield f"data      {source}: {found['n_images']} images, {patients} ({counts}){_in_training(found.get('seen'))}"
    grade = found["positive_from"]
    if grade is not None:
        yield f"AUC       of grade {grade} or worse"
    yield ""
    yield from _table(found)
    yield ""
    for name, item in found["per_class"].items():
        reason = found["undefined"].get(name)
        yield f"{name:<24}AUC {_number(item['auc'])}  {_interval(item['ci95'])}{f'  ({reason})' if reason else ''}"
    yield ""
    yield from _calibration_lines(found, model.activation)
    yield from _point_lines(found)
    yield from _confusion_lines(found["confusion"])


def _in_training(seen: dict[str, Any] | None) -> str:
    """So that the table says so where only the table is kept."""
    if seen is None or not seen["images"]:
        return ""
    return f"; {'all' if seen['images'] == seen['of'] else seen['images']} of them in the run's training or validation"


def _model_text(evaluation: "Evaluation") -> str:
    model = evaluation.model
    if model.kind != "run":
        return f"{model.given} ({'Keras file' if model.kind == 'keras' else 'SavedModel'})"
    folds = ", ".join(map(str, model.folds))
    return f"{model.given}, fold{'s' * (len(model.folds) > 1)} {folds}"


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield f"{'':<14}{'AUC':>6}  {'95 % interval':<16}{'accuracy':>9}{'sens@90%spec':>14}{'Brier':>8}{'ECE':>8}"
    for name, item in [*found["members"].items(), (found["judged"], found)]:
        numbers = f"{_number(item['accuracy']):>9}{_number(item['sensitivity_at_90_specificity']):>14}"
        numbers += f"{_number(item['brier']):>8}{_number(item['calibration']['ece']):>8}"
        yield f"{name:<14}{_number(item['auc']):>6}  {_interval(item['ci95']):<16}{numbers}"


def _calibration_lines(found: dict[str, Any], activation: str) -> Iterator[str]:
    item = found["calibration"]
    yield f"calibration    ECE {_number(item['ece'])} in {item['bins']} bins of equal width"
    if "ece_after" in item:
        temperatures = ", ".join(f"{value:.2f}" for value in found["temperatures"])
        number = found["validation_images"]
        images = "validation images" if number is None else f"{number} validation images"
        yield (
            f"               temperature {temperatures}, fitted on {images}: ECE {_number(item['ece'])} to "
            f"{_number(item['ece_after'])}, Brier {_number(item['brier_before'])} to {_number(item['brier_after'])}"
        )


def _point_lines(found: dict[str, Any]) -> Iterator[str]:
    point = found.get("operating_point")
    if point is None:
        return
    yield f"operating point {point['rule']}, chosen on {point['chosen_on_images']} validation images"
    for name, item in point["questions"].items():
        there, ci95 = item["validation"], item["ci95"]
        yield (
            f"  {name}: threshold {item['threshold']:.4g}, sensitivity {_number(item['sensitivity'])} "
            f"({_interval(ci95['sensitivity'])}), specificity {_number(item['specificity'])} "
            f"({_interval(ci95['specificity'])}); on validation {_number(there['sensitivity'])} and "
            f"{_number(there['specificity'])}"
        )


def _confusion_lines(found: dict[str, Any]) -> Iterator[str]:
    if "labels" in found:
        yield f"{'confusion':<24}{'tn':>7}{'fp':>7}{'fn':>7}{'tp':>7}"
        for name, ((tn, fp), (fn, tp)) in found["labels"].items():
            yield f"{name:<24}{tn:>7}{fp:>7}{fn:>7}{tp:>7}"
        return
    names = found["classes"]
    width = max(8, *(len(name) + 2 for name in names))
    yield f"{'true, predicted':<20}" + "".join(f"{name:>{width}}" for name in names)
    for name, row in zip(names, found["counts"], strict=True):
        yield f"{name:<20}" + "".join(f"{count:>{width}}" for count in row)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None) -> str:
    return "n/a" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
