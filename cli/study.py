"""Commands on many runs: study, report, freeze-sweep and transfusion-sweep."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.api.studies import StudyResult, make_report, run_study
from radtransfer.cli.main import complete_run_config, complete_study
from radtransfer.cli.options import (
    Command,
    Real,
    Whole,
    break_lock_option,
    given_settings,
    output_options,
    positive_lines,
    sets_option,
    setting_options,
    typed_words,
    verbose_option,
)
from radtransfer.cli.terminal import (
    TerminalProgress,
    draw,
    in_one_line,
    line,
    painted,
    show,
    show_json,
    show_next,
    show_written,
)
from radtransfer.cli.train import DOZEN
from radtransfer.cli.train import OPTIONS as RUN_OPTIONS
from radtransfer.config.load import changed_config, load_config
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, RadtransferError
from radtransfer.files import decimal
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import require_keras
from radtransfer.studies.file import load_study
from radtransfer.studies.study import STORE, Study

if TYPE_CHECKING:
    from radtransfer.studies.engines import Outcome
    from radtransfer.studies.grid import PlannedRun, StudyPlan
    from radtransfer.studies.runs import StudyState

OPTIONS = {
    "data": "data.source",
    "image_root": "data.image_root",
    "outside_root": "data.outside_root",
    "track": "track",
}

SWEPT = ("scheme", "through", "freeze_to", "slim")
SHARED = {name: setting for name, setting in RUN_OPTIONS.items() if name not in SWEPT}

EVAL_EVERY = 20
"""Steps between the points of a convergence curve, where the settings do not say."""

_COLORS = {"finished": "green", "partly": "yellow", "failed": "red"}


@click.command(short_help="Compute the missing runs of a study.")
@click.argument("config", shell_complete=complete_study)
@setting_options(**OPTIONS)
@sets_option(
    "Change the study: training.epochs=5 for every run, grid.seed=[0,1], arms.NAME.model.weights=FILE, "
    "sources.NAME.data.source=DIR."
)
@click.option("--arms", metavar="ARM,…", help="Only these arms.")
@click.option("--out", metavar="DIR", help="Folder of the study's tables.  [default: studies/<name>]")
@click.option("--runs", metavar="DIR", default=STORE, show_default=True, help="Runs, shared by all studies.")
@click.option(
    "--jobs",
    type=Whole(0),
    help="Runs at a time, each in its own process; 0: one after the other in this process.  "
    "[default: 1; with --ray as many as fit]",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[HOST:PORT]",
    help="Compute the runs on a Ray cluster: HOST:PORT, else the one in RAY_ADDRESS, else one on this machine, which "
    "is started if needed. `local` always starts one.",
)
@click.option(
    "--cpus-per-run",
    type=Whole(1),
    help="Threads per run; with --ray also the cores reserved for it.  [default: all; with --ray 1]",
)
@click.option(
    "--gpus-per-run",
    type=Real(0),
    help="GPUs reserved per run with --ray; 0.5 lets two runs share one.  [default: 0]",
)
@click.option("--limit", type=Whole(1), help="Compute at most N runs now.")
@break_lock_option
@click.option("--dry-run", is_flag=True, help="List the runs and estimate the time; compute none.")
@click.option("--no-timing", is_flag=True, help="With --dry-run: list the runs at once, without timing any.")
@output_options
def study(
    config: str,
    sets: tuple[str, ...],
    arms: str | None,
    out: str | None,
    runs: str,
    jobs: int | None,
    ray: str | None,
    cpus_per_run: int | None,
    gpus_per_run: float | None,
    limit: int | None,
    dry_run: bool,
    no_timing: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compute the missing runs of the study CONFIG, and show a table of all runs.

    CONFIG is a shipped study (`radtransfer configs list`) or a YAML file. Repeat the command to continue after
    an interruption, or after a change of the study: only what is new is computed.

    \b
    Example:
      radtransfer study quick-advice --dry-run
      radtransfer study revisiting --data FOLDS --image-root IMAGES --jobs 2
      radtransfer study revisiting --data FOLDS --image-root IMAGES --ray \\
        --gpus-per-run 1
    """
    if no_timing and not dry_run:
        raise click.UsageError("--no-timing says how --dry-run lists the runs. Add --dry-run.")
    jobs = 1 if jobs is None and ray is None else jobs
    places = {"jobs": jobs, "ray": ray, "cpus_per_run": cpus_per_run, "gpus_per_run": gpus_per_run}
    chosen = [name.strip() for name in arms.split(",")] if arms else []
    asked = load_study(config, sets=sets, options=given_settings(given, OPTIONS), arms=chosen)
    if dry_run:
        from radtransfer.studies.grid import estimate_study, plan_study

        progress, how = TerminalProgress(), {"jobs": jobs or 1, "timing": not no_timing}
        plan = plan_study(asked, store=Path(runs), progress=progress)
        progress.clear()
        for note in plan.notes:
            progress.note(note)
        estimate = estimate_study(plan, **how, progress=progress)
        show_json(estimate) if as_json else show(*_estimate_lines(plan, estimate, **how))
        show_next(["study", config, *typed_words(*OPTIONS, "arms", "out", *places, "runs", "limit")])
        return

    def tell(found: StudyResult) -> None:
        show_json(found.table) if as_json else show(*_result_lines(found.table, found.path))

    try:
        done = run_study(asked, out=out, runs=runs, **places, limit=limit, progress=StudyBoard())
    except RadtransferError as error:
        if error.result is not None:
            tell(error.result)
        raise
    tell(done)
    show_next(["report", done.path, "--out", "report"])


class StudyBoard(TerminalProgress):
    """A terminal shows a table of the running runs; elsewhere there is a line for each run that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._live = sys.stderr.isatty()
        self._lines = 0
        self._drawn = 0.0

    def study_changed(self, state: "StudyState") -> None:
        if self._quiet or not self._live or time.monotonic() - self._drawn <= 0.2:
            return
        self._drawn = time.monotonic()
        failed = f", {len(state.failed)} failed" if state.failed else ""
        seconds = state.seconds_left()
        left = "" if seconds is None else f", at most {duration(seconds)} left"
        counts = f"{len(state.done)}/{len(state.plan.runs)} done{failed}, {len(state.running)} running{left}"
        lines = [f"{state.plan.study.name}  {counts}"]
        for item in state.running.values():
            row, name = item.row, item.run.cell.name
            if "machine" in row:
                name = f"{name}  on {row['machine']}"
            doing = row.get("doing", "starting")
            if "epoch" in row:
                place = f"fold {row['fold']}/{row['folds']}  epoch {row['epoch']}/{row['epochs']}"
                doing = f"{place}  val AUC {decimal(row['val_auc'])}"
            lines.append(f"  {name}  {doing}")
        self.clear()
        show(*map(in_one_line, lines), err=True)
        self._lines = len(lines)

    def run_ended(self, state: "StudyState", run: "PlannedRun", outcome: "Outcome") -> None:
        from radtransfer.studies.tables import run_row

        row = run_row(state.plan, run.cell, run)
        auc = "" if row["auc"] is None else f"  AUC {row['auc']:.3f}"
        spread = "" if row["auc_sd"] is None else f" ± {row['auc_sd']:.3f}"
        place = f"{len(state.done) + len(state.failed)}/{len(state.plan.runs)}"
        status = painted(f"{outcome.status:<9}", fg=_COLORS.get(outcome.status))
        text = f" {run.cell.name}{auc}{spread}  {duration(outcome.seconds)}  {run.key}"
        errors = outcome.error.split("\n") if outcome.error else []
        self._say(line(f"{place:<10}", status, text), *(f"{'':<10}{error}" for error in errors))

    def clear(self) -> None:
        super().clear()
        if self._lines:
            draw(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0


def duration(seconds: float | None) -> str:
    """A time with a suitable unit."""
    if seconds is None:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _estimate_lines(plan: "StudyPlan", estimate: Mapping[str, Any], *, jobs: int, timing: bool) -> Iterator[str]:
    axes, rows, seconds = plan.study.axes, estimate["runs"], estimate["seconds"]
    table = [["run", "status", "arm", *map(_short, axes), "input", "time"]]
    for row in rows:
        labels = [_cell_text(row["labels"].get(name)) for name in axes]
        left = "" if row["status"] == "done" else duration(row["seconds"])
        table.append([row["run"], row["status"], row["arm"], *labels, row["preprocessing"], left])
    yield f"{plan.study.name}: {plan.study.title}"
    yield from _columns(table)
    yield from (f"{row['run']} failed before: {row['error']}" for row in rows if row["error"])
    at_most = f"at most {duration(seconds)} with --jobs {jobs}; early stopping makes it shorter"
    if seconds is None and not timing:
        at_most = "time unknown: without --no-timing, a run of each network is timed"
    at_most = at_most if estimate["to_do"] else "nothing"
    yield f"{len(rows)} runs: {estimate['done']} done, {estimate['to_do']} to do, {at_most}"


def _result_lines(table: Mapping[str, Any], path: Path) -> Iterator[str]:
    axes, threshold, runs = table["study"]["axes"], table["study"]["threshold"], table["runs"]
    steps = [] if threshold is None else [f"steps to {threshold:g}"]
    rows = [["arm", *map(_short, axes), "AUC mean ± sd", "pooled", "95 % interval", *steps, "trained", "status"]]
    for run in runs:
        labels = [_cell_text(run["labels"][name]) for name in axes]
        spread = "" if run["auc_sd"] is None else f" ± {decimal(run['auc_sd'])}"
        interval = f"{decimal(run['ci95_low'])} to {decimal(run['ci95_high'])}"
        cells = [run["arm"], *labels, f"{decimal(run['auc'])}{spread}", decimal(run["auc_pooled"]), interval]
        if steps:
            cells.append(f"{decimal(run['steps'], '.0f')} ({run['steps_reached']}/{run['steps_watched']})")
        trained = "" if run["trainable_parameters"] is None else f"{run['trainable_parameters']:,}"
        rows.append([*cells, trained, run["status"]])
    yield from _columns(rows)
    yield from positive_lines(runs)
    for run in runs:
        if run["error"]:
            yield f"{run['run']} {run['status']}: {run['error']}"
    yield f"table     {path / 'table.csv'}"


def _columns(rows: list[list[str]]) -> Iterator[str]:
    """Lines with every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()


def _short(axis: str) -> str:
    return axis.rpartition(".")[2]


def _cell_text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@click.command(short_help="Make a page of figures, tables and advice from runs.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--published",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Published results, in the layout of Juodelyte et al. 2023.",
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the report.")
@click.option(
    "--threshold",
    type=Real(0, 1),
    help="Count the training steps to this AUC.  [default: one that every arm reaches]",
)
@click.option(
    "--cca/--no-cca", default=True, show_default=True, help="Compare the layers of each arm before and after training."
)
@output_options
def report(
    runs: tuple[Path, ...], published: Path | None, out: Path, threshold: float | None, cca: bool, as_json: bool
) -> None:
    """Write report.html, report.json, figures/ (PNG and SVG) and tables/ (CSV and Markdown) to --out.

    RUNS are run folders, a study, or folders of runs; those that differ in their seed alone are one arm. An earlier
    report in --out is replaced.

    --published reads AUC.csv, CCA_<target>.csv and similarity.csv of a folder, whatever targets, sources, layers and
    folds they hold.

    \b
    Example:
      radtransfer report runs/imagenet runs/scratch --out report
      radtransfer report --published results/ --out report
    """
    if bool(runs) == (published is not None):
        raise click.UsageError("Expected RUNS or --published DIR, and not both.")
    options = {"threshold": threshold, "cca": cca, "progress": TerminalProgress()}
    made = make_report(list(runs) or None, out=out, published=published, **options)
    show_json(made.values) if as_json else show_written(made.files[:2])
    show_next(["-m", "webbrowser", made.files[0]], program="python")


SWEEP_FIRST = (*(name for name in DOZEN if name not in (*SWEPT, "dry_run")), "stages")


def _sweep_options(command: Callable) -> Callable:
    decorators = [
        click.argument("config", required=False, shell_complete=complete_run_config),
        setting_options(**{name: setting for name, setting in SHARED.items() if name != "out"}),
        click.option("--out", metavar="DIR", help="Folder of the runs, the table and the figures; required."),
        sets_option("Any setting by its dotted name."),
        click.option("--stages", metavar="STAGE,…", help="Only these stages.  [default: all]"),
        break_lock_option,
        verbose_option,
        output_options,
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@click.command(
    "freeze-sweep",
    cls=Command,
    first=SWEEP_FIRST,
    rest="Run",
    short_help="Freeze up to every stage, pretrained and random.",
)
@_sweep_options
def freeze_sweep_command(
    config: str | None, sets: tuple[str, ...], stages: str | None, as_json: bool, **given: Any
) -> None:
    """Freeze up to every stage: pretrained, pretrained with the rest random, and random features (App. E).

    Repeat the command to continue after an interruption. --out gets sweep.csv, sweep.json, a figure and the runs.

    \b
    Example:
      radtransfer freeze-sweep --data images.csv --backbone resnet50 \\
        --weights imagenet --out sweeps/freeze
    """
    settings, out = _settings(config, sets, given)
    chosen = _stages(settings, stages)
    from radtransfer.data.readers import drop_unfit_settings
    from radtransfer.studies.runs import check_complete
    from radtransfer.studies.tables import freeze_sweep, write_freeze_sweep

    progress = SweepProgress()
    sweep = freeze_sweep(drop_unfit_settings(settings, progress), chosen)
    plan, state = _run_sweep(sweep.study, out, progress)
    rows = write_freeze_sweep(sweep, plan, out)
    show_json(rows) if as_json else show(*_sweep_lines(rows, ("variant", "through")))
    check_complete(state, what="arms")
    show_next(["report", out / "runs", "--out", "report"])


@click.command(
    "transfusion-sweep",
    cls=Command,
    first=(*SWEEP_FIRST, "eval_every", "threshold"),
    rest="Run",
    short_help="Reuse weights up to every stage, train everything.",
)
@_sweep_options
@click.option(
    "--threshold",
    type=Real(0, 1),
    default=0.8,
    show_default=True,
    help="Count the steps to this AUC.",
)
def transfusion_sweep_command(
    config: str | None, sets: tuple[str, ...], stages: str | None, as_json: bool, threshold: float, **given: Any
) -> None:
    """Reuse weights up to every stage, train everything, and count the steps to an AUC (Fig. 7).

    Repeat the command to continue after an interruption. --out gets sweep.csv, sweep.json, two figures and the runs.

    \b
    Example:
      radtransfer transfusion-sweep --data images.csv --backbone resnet50 \\
        --weights imagenet --eval-every 10 --threshold 0.85 \\
        --out sweeps/transfusion
    """
    settings, out = _settings(config, sets, given)
    if settings.training.eval_every is None:
        settings = changed_config(settings, {"training.eval_every": EVAL_EVERY})
    chosen = _stages(settings, stages)
    from radtransfer.data.readers import drop_unfit_settings
    from radtransfer.studies.runs import check_complete
    from radtransfer.studies.tables import transfusion_sweep, write_transfusion_sweep

    progress = SweepProgress()
    sweep = transfusion_sweep(drop_unfit_settings(settings, progress), chosen, threshold=threshold)
    plan, state = _run_sweep(sweep.study, out, progress)
    rows = write_transfusion_sweep(sweep, plan, out)
    if not any(row["steps_watched"] for row in rows):
        every = settings.training.eval_every
        progress.note(f"no fold takes as many steps as --eval-every {every}: there are no curves. Give a smaller one")
    show_json(rows) if as_json else show(*_sweep_lines(rows, ("through",)))
    check_complete(state, what="arms")
    show_next(["report", out / "runs", "--out", "report"])


class SweepProgress(TerminalProgress):
    """Says which arm comes next."""

    def run_started(self, run: "PlannedRun") -> None:
        self.note(f"arm {run.cell.arm}: {run.path}")


def _run_sweep(study: Study, out: Path, progress: TerminalProgress) -> "tuple[StudyPlan, StudyState]":
    """Compute the study, with its runs below OUT/runs."""
    from radtransfer.files import check_out
    from radtransfer.studies.engines import InProcess
    from radtransfer.studies.grid import plan_study
    from radtransfer.studies.runs import run_study

    check_out(out)
    plan = plan_study(study, store=out / "runs", progress=progress)
    for run in plan.runs.values():
        if run.done:
            progress.note(f"{run.path} is already finished")
    require_keras()
    return plan, run_study(plan, InProcess(progress), progress)


def _settings(config: str | None, sets: tuple[str, ...], given: dict[str, Any]) -> tuple[Config, Path]:
    settings = load_config(config, sets=sets, options=given_settings(given, SHARED))
    if settings.out is None:
        raise ConfigError("A sweep needs --out DIR: the folder of its runs, table and figures.")
    if settings.model.weights == "random":
        raise ConfigError("A sweep compares pretrained with random. Received: --weights random. Give --weights.")
    if settings.transfer.stages:
        raise ConfigError("A sweep sets the plan of every run itself. Received: transfer.stages. Remove them.")
    return settings, Path(settings.out)


def _stages(settings: Config, chosen: str | None) -> list[str]:
    """The stages asked for, in the network's order."""
    backbone = BACKBONES[settings.model.backbone]
    asked = [name.strip() for name in chosen.split(",")] if chosen else list(backbone.stages)
    for name in asked:
        backbone.stage_end(name)  # raises for an unknown stage
    return [name for name in backbone.stages if name in asked]


def _sweep_lines(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> Iterator[str]:
    """The lines of a sweep's table; steps with the number of watched folds that reached the threshold."""
    steps = ["steps (folds)"] if "steps_mean" in rows[0] else []
    table = [[*labels, "AUC mean ± sd", "pooled", "95 % interval", *steps]]
    for row in rows:
        interval = f"{decimal(row['ci95_low'])} to {decimal(row['ci95_high'])}"
        auc = f"{decimal(row['auc_mean'])} ± {decimal(row['auc_sd'])}"
        cells = [*(str(row[label]) for label in labels), auc, decimal(row["auc_pooled"]), interval]
        if steps:
            never = "never" if row["steps_watched"] else "n/a"
            mean = never if row["steps_mean"] is None else f"{row['steps_mean']:.0f}"
            cells.append(f"{mean} ({row['steps_reached']}/{row['steps_watched']})")
        table.append(cells)
    yield from _columns(table)
    yield from positive_lines(rows)
