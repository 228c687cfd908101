"""`radtransfer freeze-sweep` and `transfusion-sweep`: how deep weights should be reused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from radtransfer.backbones import BACKBONES
from radtransfer.cli.completions import complete_run_config
from radtransfer.cli.data_options import positive_lines
from radtransfer.cli.finetune import OPTIONS
from radtransfer.cli.options import break_lock_option, given_settings, sets_option, setting_options
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import changed_config, load_config
from radtransfer.errors import ConfigError
from radtransfer.settings import Config

SWEPT = ("scheme", "through", "freeze_to", "slim")
SHARED = {name: setting for name, setting in OPTIONS.items() if name not in SWEPT}

EVAL_EVERY = 20
"""Steps between the points of a convergence curve, where the settings do not say."""


def _sweep_options(command: Callable) -> Callable:
    decorators = [
        click.argument("config", required=False, shell_complete=complete_run_config),
        setting_options(**SHARED),
        sets_option("Any setting by its dotted name."),
        click.option("--stages", metavar="STAGE,…", help="Only these stages.  [default: all]"),
        break_lock_option,
        click.option("--json", "as_json", is_flag=True, help="Print the table as JSON."),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@click.command("freeze-sweep", short_help="Freeze up to every stage, pretrained and random.")
@_sweep_options
def freeze_sweep_command(
    config: str | None, sets: tuple[str, ...], stages: str | None, as_json: bool, **given: Any
) -> None:
    """Freeze up to every stage: pretrained, pretrained with the rest random, and random features (App. E).

    The same command goes on where it was stopped. --out gets sweep.csv, sweep.json, a figure and the runs.

    \b
    Example: radtransfer freeze-sweep --data images.csv --backbone resnet50 --weights imagenet --out sweeps/freeze
    """
    settings, out = _settings(config, sets, given)
    chosen = _stages(settings, stages)
    from radtransfer.datasets import fitted
    from radtransfer.studies.study_runs import check_complete
    from radtransfer.studies.sweeps import freeze_sweep, write_freeze_sweep

    progress = TerminalProgress()
    sweep = freeze_sweep(fitted(settings, progress), chosen)
    plan, state = _run(sweep.study, out, progress)
    rows = write_freeze_sweep(sweep, plan, out)
    show_json(rows) if as_json else show(*_table(rows, ("variant", "through")))
    check_complete(state, what="arms")


@click.command("transfusion-sweep", short_help="Reuse weights up to every stage, train everything.")
@_sweep_options
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.8, show_default=True, help="AUC to be reached.")
def transfusion_sweep_command(
    config: str | None, sets: tuple[str, ...], stages: str | None, as_json: bool, threshold: float, **given: Any
) -> None:
    """Reuse weights up to every stage, train everything, and count the steps to an AUC (Fig. 7).

    The same command goes on where it was stopped. --out gets sweep.csv, sweep.json, two figures and the runs.

    \b
    Example: radtransfer transfusion-sweep --data images.csv --backbone resnet50 --weights imagenet
                 --eval-every 10 --threshold 0.85 --out sweeps/transfusion
    """
    settings, out = _settings(config, sets, given)
    if settings.training.eval_every is None:
        settings = changed_config(settings, {"training.eval_every": EVAL_EVERY})
    chosen = _stages(settings, stages)
    from radtransfer.datasets import fitted
    from radtransfer.studies.study_runs import check_complete
    from radtransfer.studies.sweeps import transfusion_sweep, write_transfusion_sweep

    progress = TerminalProgress()
    sweep = transfusion_sweep(fitted(settings, progress), chosen, threshold=threshold)
    plan, state = _run(sweep.study, out, progress)
    rows = write_transfusion_sweep(sweep, plan, out)
    if not any(row["steps_watched"] for row in rows):
        every = settings.training.eval_every
        progress.note(f"no fold takes as many steps as --eval-every {every}: there are no curves. Give a smaller one")
    show_json(rows) if as_json else show(*_table(rows, ("through",)))
    check_complete(state, what="arms")


def _run(study: Any, out: Path, progress: TerminalProgress) -> tuple[Any, Any]:
    """The study's plan, and how far it has come; its runs go below OUT/runs."""
    from radtransfer.result_folder import check_out
    from radtransfer.studies.engines.in_process import InProcess
    from radtransfer.studies.plan import plan_study
    from radtransfer.studies.study_runs import StudyListener, run_study

    check_out(out)
    plan = plan_study(study, store=out / "runs", progress=progress)
    for run in plan.runs.values():
        if run.done:
            progress.note(f"{run.path} is finished; nothing is left to do")
    import_tensorflow()
    listener = StudyListener()
    listener.note = progress.note
    listener.started = lambda _, run: progress.note(f"arm {run.cell.arm}: {run.path}")
    return plan, run_study(plan, InProcess(progress), listener=listener)


def _settings(config: str | None, sets: tuple[str, ...], given: dict[str, Any]) -> tuple[Config, Path]:
    settings = load_config(config, sets=sets, options=given_settings(given, SHARED))
    if settings.out is None:
        raise ConfigError("A sweep needs --out DIR: the folder of its runs, table and figures.")
    if settings.model.weights == "random":
        raise ConfigError("A sweep compares pretrained with random. Received: --weights random. Give --weights.")
    if settings.transfer.stages:
        raise ConfigError("A sweep sets the plan of every run itself. Received: transfer.stages. Leave them away.")
    return settings, Path(settings.out)


def _stages(settings: Config, chosen: str | None) -> list[str]:
    """The stages asked for, in the network's order."""
    card = BACKBONES[settings.model.backbone]
    asked = [name.strip() for name in chosen.split(",")] if chosen else list(card.stages)
    for name in asked:
        card.stage_end(name)  # raises if there is no such stage
    return [name for name in card.stages if name in asked]


def _table(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[str]:
    header = "".join(f"{label:<{_width(rows, label)}}" for label in labels)
    steps = "  steps (folds)" if "steps_mean" in rows[0] else ""
    lines = [f"{header}AUC mean ± sd   pooled  95 % interval{steps}"]
    for row in rows:
        start = "".join(f"{row[label]:<{_width(rows, label)}}" for label in labels)
        figures = f"{_number(row['auc_mean'])} ± {_number(row['auc_sd'])}   {_number(row['auc_pooled'])}  "
        interval = f"{_number(row['ci95_low'])} to {_number(row['ci95_high'])}"
        reached = f"  {_reached(row)}" if steps else ""
        lines.append(f"{start}{figures}{interval}{reached}")
    return [*lines, *positive_lines(rows)]


def _width(rows: Sequence[dict[str, Any]], label: str) -> int:
    return max(len(label), *(len(str(row[label])) for row in rows)) + 2


def _number(value: float | None) -> str:
    return "  n/a" if value is None else f"{value:.3f}"


def _reached(row: dict[str, Any]) -> str:
    """Mean steps to the threshold, and in how many of the folds that were watched."""
    mean = "never" if row["steps_watched"] else "n/a"
    if row["steps_mean"] is not None:
        mean = f"{row['steps_mean']:.0f}"
    return f"{mean} ({row['steps_reached']}/{row['steps_watched']})"
