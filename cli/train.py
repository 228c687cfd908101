"""Commands that train, or show what training would start from: finetune, lr-find and plan."""

from pathlib import Path
from typing import Any

import click

from radtransfer.api import runs as api
from radtransfer.cli.main import complete_backbone, complete_run_config
from radtransfer.cli.options import (
    TABLE_OPTIONS,
    Command,
    Real,
    Whole,
    break_lock_option,
    given_settings,
    options_of,
    output_options,
    sets_option,
    setting_options,
    typed_words,
    verbose_option,
)
from radtransfer.cli.terminal import TerminalProgress, show, show_json, show_next, show_written
from radtransfer.config.load import load_config
from radtransfer.errors import ConfigError, FoldsFailedError
from radtransfer.files import decimal
from radtransfer.process import require_keras
from radtransfer.training.names import check_sources
from radtransfer.transfer.spec import SCHEMES

OPTIONS = {
    "data": "data.source",
    **TABLE_OPTIONS,
    **options_of("data", "positive_from", "on_bad_image", "allow_leakage"),
    **options_of("images", "aspect", "fundus_crop", "window"),
    **options_of("splits", "folds", "fold", "val_fraction", "train_size", "repeats"),
    **options_of("model", "backbone", "weights", "ignore_lambda", "preprocessing", "image_size", "head", "dropout"),
    **options_of("transfer", "scheme", "through", "freeze_to", "slim"),
    "bn_init": "transfer.batch_norm",
    "recipe": "recipe",
    **options_of("training", "epochs", "batch_size", "learning_rate", "optimizer"),
    "ema": "training.ema_momentum",
    **options_of("training", "schedule", "augmentation", "class_weights", "monitor", "patience", "eval_every"),
    **options_of("system", "cache", "cache_features", "precision", "jit", "workers", "distribute", "worker_index"),
    **{name: name for name in ("seed", "out", "track")},
}


DOZEN = (
    *("data", "image_root", "folds", "backbone", "weights", "image_size", "scheme", "freeze_to", "epochs"),
    *("batch_size", "learning_rate", "out", "dry_run"),
)
"""The options of `finetune` that its help shows first."""


@click.command(cls=Command, first=DOZEN, rest="Run", short_help="Fine-tune a network on medical images, fold by fold.")
@click.argument("config", required=False, shell_complete=complete_run_config)
@setting_options(**OPTIONS)
@sets_option("Any setting by its dotted name, such as training.momentum=0.8.")
@click.option("--resume", is_flag=True, help="Continue the interrupted run of the same command.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@break_lock_option
@click.option(
    "--dry-run", is_flag=True, help="Check everything, run one batch, estimate time and memory; start no run."
)
@verbose_option
@output_options
def finetune(
    config: str | None, sets: tuple[str, ...], resume: bool, overwrite: bool, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Fine-tune a network on medical images, cross-validated and split by patient.

    CONFIG is a shipped name (`radtransfer configs list`) or a YAML file; options override it.

    \b
    Example:
      radtransfer finetune quickstart
      radtransfer finetune --data images.csv --backbone resnet50 \\
        --weights imagenet --out runs/first
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    settings = load_config(config, sets=sets, options=given_settings(*split_workers_option(given)))
    progress, name = TerminalProgress(), Path(config).stem if config else None
    if dry_run:
        settings = check_sources(settings, progress)
        from radtransfer.training.prepare import read_inputs

        inputs = read_inputs(settings, progress)
        require_keras()
        from radtransfer.training.plan import dry_run as estimate_run

        estimate = vars(estimate_run(settings, name=name, progress=progress, inputs=inputs))
        show_json(estimate) if as_json else show(*estimate_text(estimate).split("\n"))
        show_next(["finetune", *filter(None, [config]), *typed_words(*OPTIONS)])
        return
    try:
        run = api.finetune(config=settings, name=name, resume=resume, overwrite=overwrite, progress=progress)
    except FoldsFailedError as error:
        _show_result(error.result, as_json=as_json)
        raise
    _show_result(run, as_json=as_json)
    if run.path.is_dir():
        show_next(["evaluate", run.path, "--data", "OTHER_IMAGES"], ["report", run.path, "--out", "report"])


def split_workers_option(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options and their settings: --workers is a number of images decoded in parallel, or HOST:PORT,…."""
    if ":" not in (given["workers"] or ""):
        return given, OPTIONS
    return given | {"workers": None, "hosts": given["workers"]}, OPTIONS | {"hosts": "system.hosts"}


def _show_result(run: api.Run, *, as_json: bool) -> None:
    from radtransfer.evaluation.metrics import shown_metrics

    metrics = run.metrics
    if as_json:
        show_json(metrics)
        return
    auc = metrics["auc"]
    per_fold = zip(metrics["folds"], auc["per_fold"], strict=True)
    rows = [f"fold {fold:<3} AUC {decimal(value)}" for fold, value in per_fold]
    if len(rows) > 1:
        rows.append(f"mean     AUC {decimal(auc['mean'])} ± {decimal(auc['sd'])} (sd over folds, not an interval)")
    low, high = auc["ci95"] or (None, None)
    patients = "patients unknown" if metrics["n_patients"] is None else f"{metrics['n_patients']} patients"
    # The class, grade or label of the sensitivity; nothing for a mean over classes or labels.
    whose, labels = "", list(metrics.get("n_per_class") or ())
    if metrics.get("positive_class") is not None:
        whose = f" (positive class {metrics['positive_class']})"
    elif metrics.get("positive_from") is not None:
        whose = f" (grade ≥ {metrics['positive_from']})"
    elif len(labels) == 1:
        whose = f" (label {labels[0]})"
    shown = shown_metrics(metrics)
    figures = [f"{item.label} {decimal(metrics[item.name])}{whose if item.names_subject else ''}" for item in shown]
    rows += [
        f"pooled   AUC {decimal(auc['pooled'])}  95 % interval {decimal(low)} to {decimal(high)}  "
        f"({metrics['n_images']} images, {patients})",
        "   ".join(figures),
    ]
    if run.path.is_dir():  # not where another worker has written it
        rows.append(f"run      {run.path}")
    show(*rows)


def estimate_text(estimate: dict[str, Any]) -> str:
    """What `--dry-run` prints of an `Estimate`."""

    def duration(seconds: float) -> str:
        if seconds < 100:
            return f"{seconds:.2g} s"
        return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

    memory = estimate["peak_memory_mb"]
    rows = {
        "images": estimate["images"],
        "folds": estimate["folds"],
        "first step": duration(estimate["first_step_seconds"]),
        "further steps": f"{duration(estimate['step_seconds'])} each, {estimate['steps_per_epoch']} an epoch",
        "epoch": duration(estimate["epoch_seconds"]),
        "whole run": f"about {duration(3600 * estimate['total_hours'])}, less where patience ends it",
        "memory so far": "unknown" if memory is None else f"{memory:,.0f} MB",
    }
    return "\n".join(f"{title:<15}{text}" for title, text in rows.items())


_WITHOUT_MEANING = ("epochs", "learning_rate", "schedule", "monitor", "patience", "eval_every", "repeats", "ema")
_ITS_OWN = ("out", "track", "cache", "cache_features")
SHARED = {name: setting for name, setting in OPTIONS.items() if name not in (*_WITHOUT_MEANING, *_ITS_OWN)}


@click.command(
    "lr-find",
    cls=Command,
    first=(*(name for name in DOZEN if name in (*SHARED, "out")), "low", "high", "steps"),
    rest="Run",
    short_help="Suggest a learning rate after a few hundred steps.",
)
@click.argument("config", required=False, shell_complete=complete_run_config)
@setting_options(**SHARED)
@sets_option("Any setting.")
@click.option("--from", "low", metavar="X", type=Real(), default=1e-6, show_default=True, help="First learning rate.")
@click.option("--to", "high", metavar="X", type=Real(), default=1.0, show_default=True, help="Last learning rate.")
@click.option("--steps", type=Whole(20), default=240, show_default=True, help="Training steps.")
@click.option("--out", metavar="DIR", default="lr-find", show_default=True, help="Folder of the table and the figure.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier search in --out.")
@verbose_option
@output_options
def lr_find(
    config: str | None,
    sets: tuple[str, ...],
    low: float,
    high: float,
    steps: int,
    out: str,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a few hundred steps with a rising learning rate, and suggest where the loss falls most steeply.

    Give it the options of the run that you plan. It trains on the images of the first fold and starts no run; --out
    gets rates.csv, rates.json and the curve.

    \b
    Example:
      radtransfer lr-find quickstart
      radtransfer lr-find --data images.csv --backbone resnet50 \\
        --weights imagenet --steps 300
    """
    # Some recipes have no learning rate; here it does not matter.
    unused = {"training.learning_rate": high}
    settings = load_config(config, sets=sets, options={**given_settings(given, SHARED), **unused})
    progress, place = TerminalProgress(), Path(out)
    settings = check_sources(settings, progress)
    from radtransfer.files import check_new
    from radtransfer.training.lr_finder import FILES, steps_per_decade
    from radtransfer.training.prepare import read_inputs

    steps_per_decade(low, high, steps)
    check_new(place, FILES, overwrite=overwrite)
    inputs = read_inputs(settings, progress)
    require_keras()
    from radtransfer.training.lr_finder import find_rate, write_search

    rates = {"low": low, "high": high, "steps": steps}
    search = find_rate(settings, **rates, out=place, overwrite=overwrite, progress=progress, inputs=inputs)
    progress.clear()
    written = write_search(search, place)
    found = search.to_dict()
    show_json(found) if as_json else show(*_rate_lines(found))
    show_written(written)
    again = [*filter(None, [config]), *typed_words(*SHARED)]
    if found["suggested"] is None:
        show_next(["lr-find", *again, "--steps", 2 * steps, "--out", out, "--overwrite"])
    else:
        show_next(["finetune", *again, "--learning-rate", f"{found['suggested']:.2g}"])


def _rate_lines(found: dict[str, Any]) -> list[str]:
    from radtransfer.training.lr_finder import UPPER

    fall = f"{-found['slope']:.3g} per decade, {found['standard_errors_below_0']:.1f} times its standard error"
    if found["suggested"] is None:
        suggested = f"none: the loss falls nowhere by more than its noise (at most {fall}; 4 times are asked for)"
        suggested += "; give more --steps or larger batches"
    elif found["fell_early"]:
        suggested = f"{found['suggested']:.2g}, {found['rule']} ({found['lowest_loss_at']:.2g}); the loss fell most "
        suggested += f"steeply at {found['steepest_at']:.2g}, but only because it began high"
    else:
        suggested = f"{found['suggested']:.2g}, {found['rule']} ({fall})"
    rows = {"suggested": suggested}
    if not found["fell_early"]:
        rows["at most"] = f"{found['upper']:.2g}, {UPPER} ({found['lowest_loss_at']:.2g})"
    if found["diverged_at"] is not None:
        rows["diverged"] = f"at {found['diverged_at']:.2g}, where the search ended"
    rows["caveat"] = found["caveat"]
    return [f"{title:<11}{text}" for title, text in rows.items()]


PLAN_OPTIONS = {
    **options_of("model", "weights", "ignore_lambda"),
    **options_of("transfer", "scheme", "through", "freeze_to", "slim"),
    "bn_init": "transfer.batch_norm",
    **options_of("model", "preprocessing", "image_size"),
    "seed": "seed",
}


@click.command(short_help="Show how each stage is initialized, and what trains.")
@click.argument("backbone", required=False, shell_complete=complete_backbone)
@setting_options(**PLAN_OPTIONS)
@sets_option("Any setting, such as transfer.stages=….")
@click.option("--classes", type=Whole(2), help="Add preprocessing and a head of N classes.")
@click.option("--out", metavar="MODEL.keras", help="Write the initialized model.")
@click.option("--filters", metavar="PNG", help="Draw the first convolution and the weights' histograms.")
@output_options
def plan(
    backbone: str | None,
    sets: tuple[str, ...],
    classes: int | None,
    out: str | None,
    filters: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Show how each stage of BACKBONE is initialized and what trains; without BACKBONE, list the schemes.

    \b
    Example:
      radtransfer plan resnet50 --weights imagenet --scheme transfusion \\
        --through stage2
      radtransfer plan cbr_tiny --scheme gabor --filters conv1.png \\
        --out start.keras
    """
    if backbone is None:
        if any(value not in (None, ()) for value in (sets, classes, out, filters, *given.values())):
            raise ConfigError("A plan is that of a network: name one first, such as `radtransfer plan resnet50 …`.")
        if as_json:
            keys = ("description", "reference")
            show_json([{"scheme": n} | {key: getattr(scheme, key) for key in keys} for n, scheme in SCHEMES.items()])
            return
        width = max(len(scheme.description) for scheme in SCHEMES.values()) + 2
        show(f"{'scheme':<23}{'what it does':<{width}}where")
        show(*(f"{name:<23}{scheme.description:<{width}}{scheme.reference}" for name, scheme in SCHEMES.items()))
        show_next(["plan", "resnet50", "--weights", "imagenet", "--scheme", "transfusion", "--through", "stage2"])
        return
    config = load_config(sets=sets, options={**given_settings(given, PLAN_OPTIONS), "model.backbone": backbone})
    if filters is not None:
        from radtransfer.reports.figures import check_figure_path

        check_figure_path(Path(filters))
    if out is not None and (Path(out).suffix != ".keras" or Path(out).exists()):
        raise ConfigError(f"--out takes a new file that ends in .keras. Received: {out}.")
    from radtransfer.pretrained.source import resolve_weights
    from radtransfer.training.names import resolve_names

    resolve_names(config)
    resolve_weights(config.model.weights, backbone=backbone)
    require_keras()
    from radtransfer.training.plan import plan_network, plan_text, save_filters, save_planned

    network = plan_network(config, classes=classes, notify=TerminalProgress().note)
    record = {"backbone": backbone, "weights": config.model.weights} | network.plan.record()
    head = network.model if classes else None
    show_json(record) if as_json else show(*plan_text(network.plan, head=head).split("\n"))
    if out is not None:
        save_planned(network, Path(out))
    if filters is not None:
        save_filters(network, Path(filters))
    show_written([Path(path) for path in (out, filters) if path is not None])
    show_next(["finetune", "--data", "IMAGES", "--backbone", backbone, *typed_words(*PLAN_OPTIONS)])
