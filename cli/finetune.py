"""`radtransfer finetune`: the main job."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from radtransfer.cli.completions import complete_run_config
from radtransfer.cli.data_options import TABLE_OPTIONS
from radtransfer.cli.options import break_lock_option, given_settings, sets_option, setting_options
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config
from radtransfer.environment import import_by
from radtransfer.errors import FoldsFailedError
from radtransfer.settings import Config

OPTIONS = {
    "data": "data.source",
    **TABLE_OPTIONS,
    "positive_from": "data.positive_from",
    "on_bad_image": "data.on_bad_image",
    "allow_leakage": "data.allow_leakage",
    "aspect": "images.aspect",
    "fundus_crop": "images.fundus_crop",
    "window": "images.window",
    "folds": "splits.folds",
    "fold": "splits.fold",
    "val_fraction": "splits.val_fraction",
    "train_size": "splits.train_size",
    "repeats": "splits.repeats",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "ignore_lambda": "model.ignore_lambda",
    "preprocessing": "model.preprocessing",
    "image_size": "model.image_size",
    "head": "model.head",
    "dropout": "model.dropout",
    "scheme": "transfer.scheme",
    "through": "transfer.through",
    "freeze_to": "transfer.freeze_to",
    "slim": "transfer.slim",
    "bn_init": "transfer.batch_norm",
    "recipe": "recipe",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "optimizer": "training.optimizer",
    "ema": "training.ema_momentum",
    "schedule": "training.schedule",
    "augmentation": "training.augmentation",
    "class_weights": "training.class_weights",
    "monitor": "training.monitor",
    "patience": "training.patience",
    "eval_every": "training.eval_every",
    "cache": "system.cache",
    "cache_features": "system.cache_features",
    "precision": "system.precision",
    "jit": "system.jit",
    "workers": "system.workers",
    "distribute": "system.distribute",
    "worker_index": "system.worker_index",
    "seed": "seed",
    "out": "out",
    "track": "track",
}


@click.command(short_help="Fine-tune a network on medical images, fold by fold.")
@click.argument("config", required=False, shell_complete=complete_run_config)
@setting_options(**OPTIONS)
@sets_option("Any setting by its dotted name, such as training.momentum=0.8.")
@click.option("--resume", is_flag=True, help="Go on with the same command's run where it stopped.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@break_lock_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, run one batch, estimate time and memory; start no run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def finetune(
    config: str | None,
    sets: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fine-tune a network on medical images; cross-validated, split by patient.

    CONFIG is a shipped name (`radtransfer configs list`) or a YAML file; options win over it.

    \b
    Example: radtransfer finetune quickstart
             radtransfer finetune --data images.csv --backbone resnet50 --weights imagenet --out runs/first
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    settings = load_config(config, sets=sets, options=given_settings(*told_apart(given)))
    import_by(partial(import_tensorflow, compute=settings.system.distribute == "none"))
    check_named(settings)
    from radtransfer.datasets import fitted

    progress, name = TerminalProgress(), Path(config).stem if config else None
    settings = fitted(settings, progress)
    flags = {"resume": resume, "overwrite": overwrite}
    finished = not dry_run and _is_finished(settings, name=name, **flags)
    from radtransfer.preparation import read_inputs

    # Whatever is wrong with them is told before TensorFlow is imported, where the data allows it.
    inputs = None if finished else read_inputs(settings, progress)
    import_tensorflow(compute=settings.system.distribute == "none")
    from radtransfer.dry_run import dry_run as estimate_run
    from radtransfer.finetune import finetune as run

    if dry_run:
        estimate = vars(estimate_run(settings, name=name, progress=progress, inputs=inputs))
        show_json(estimate) if as_json else show(*estimate_text(estimate).split("\n"))
        return
    try:
        result = run(settings, name=name, **flags, progress=progress, inputs=inputs)
    except FoldsFailedError as error:
        _print_result(error.result, as_json=as_json)
        raise
    _print_result(result, as_json=as_json)


def check_named(settings: Config) -> None:
    """See that every name in the settings, the data and the weights are there, before NumPy is imported.

    Errors as of `read_inputs`, which checks the same and more.
    """
    from radtransfer.datasets import check_source
    from radtransfer.pretrained.weight_sources import preprocessing_of
    from radtransfer.run_names import check_names

    check_names(settings)
    check_source(settings.data.source)
    preprocessing_of(settings.model.weights, backbone=settings.model.backbone)


def _is_finished(settings: Config, *, name: str | None, resume: bool, overwrite: bool) -> bool:
    """Whether the run that goes on is finished already; a run folder that cannot be used is told before the images."""
    from radtransfer.distribution.cluster import find_cluster
    from radtransfer.run_address import run_settings
    from radtransfer.runs import open_run, run_folder

    if find_cluster(settings.system) is not None:
        return False  # only one of the workers has the folder
    out = run_folder(settings, name=name, reuse=resume or overwrite)
    with open_run(out, run_settings(settings, out=out), resume=resume, overwrite=overwrite) as run:
        return run.finished


def told_apart(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options and their settings: --workers is a number of images decoded in parallel, or HOST:PORT,…."""
    if ":" not in (given["workers"] or ""):
        return given, OPTIONS
    return given | {"workers": None, "hosts": given["workers"]}, OPTIONS | {"hosts": "system.hosts"}


def _print_result(result: Any, *, as_json: bool) -> None:
    show_json(result.metrics) if as_json else show(*_result_text(result))


def _result_text(result: Any) -> list[str]:
    metrics = result.metrics
    auc = metrics["auc"]
    rows = [
        f"fold {fold:<3} AUC {_number(value)}" for fold, value in zip(metrics["folds"], auc["per_fold"], strict=True)
    ]
    if len(rows) > 1:
        rows.append(f"mean     AUC {_number(auc['mean'])} ± {_number(auc['sd'])} (sd over folds, not an interval)")
    low, high = auc["ci95"] or (None, None)
    patients = "patients unknown" if metrics["n_patients"] is None else f"{metrics['n_patients']} patients"
    sensitivity = f"{_number(metrics['sensitivity_at_90_specificity'])}{_whose(metrics)}"
    top5 = "" if metrics["top5_accuracy"] is None else f"   top-5 {_number(metrics['top5_accuracy'])}"
    rows += [
        f"pooled   AUC {_number(auc['pooled'])}  95 % interval {_number(low)} to {_number(high)}  "
        f"({metrics['n_images']} images, {patients})",
        f"accuracy {_number(metrics['accuracy'])}{top5}   sensitivity at 90 % specificity {sensitivity}   "
        f"Brier {_number(metrics['brier'])}",
    ]
    if result.path.is_dir():  # not where another worker has written it
        rows.append(f"run      {result.path}")
    return rows


def _whose(metrics: dict[str, Any]) -> str:
    """The class, grade or label of the sensitivity; "" for a mean over classes or labels."""
    if metrics.get("positive_class") is not None:
        return f" (positive class {metrics['positive_class']})"
    if metrics.get("positive_from") is not None:
        return f" (grade {metrics['positive_from']} or worse)"
    labels = list(metrics.get("n_per_class") or ())
    return f" (label {labels[0]})" if len(labels) == 1 else ""


def estimate_text(estimate: dict[str, Any]) -> str:
    """What `--dry-run` prints of an `Estimate`."""
    memory = estimate["peak_memory_mb"]
    rows = {
        "images": estimate["images"],
        "folds": estimate["folds"],
        "first step": _duration(estimate["first_step_seconds"]),
        "further steps": f"{_duration(estimate['step_seconds'])} each, {estimate['steps_per_epoch']} an epoch",
        "epoch": _duration(estimate["epoch_seconds"]),
        "whole run": f"about {_duration(3600 * estimate['total_hours'])}, less where patience ends it",
        "memory so far": "unknown" if memory is None else f"{memory:,.0f} MB",
    }
    return "\n".join(f"{title:<15}{text}" for title, text in rows.items())


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
