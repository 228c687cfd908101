"""Commands on many runs: study, report, freeze-sweep and transfusion-sweep."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.finetune import OPTIONS as RUN_OPTIONS
from radtransfer.cli.main import complete_run_config, complete_study
from radtransfer.cli.options import break_lock_option, given_settings, positive_lines, sets_option, setting_options
from radtransfer.cli.terminal import TerminalProgress, import_tensorflow, number, show, show_json, show_written
from radtransfer.config.load import changed_config, load_config
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError, DiskError
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import before_hard_end
from radtransfer.studies.file import load_study
from radtransfer.studies.study import Study, study_folder

if TYPE_CHECKING:
    from radtransfer.studies.engines import Engine
    from radtransfer.studies.grid import PlannedRun, StudyPlan
    from radtransfer.studies.runs import StudyState

DEFAULT_CLUSTER = ""
"""What `--ray` without an address stands for."""


@dataclass(frozen=True)
class Places:
    """The options as they were given; None where one was not.

    Attributes:
        jobs: Runs at a time; 0 for this process.
        cluster: Address of a Ray cluster, or `DEFAULT_CLUSTER`.
        cpus: Of each run.
        gpus: Of each run.
    """

    jobs: int | None
    cluster: str | None
    cpus: int | None
    gpus: float | None

    def check(self) -> None:
        """Refuse what does not go together, before anything else is done.

        Raises:
            click.UsageError: It does not.
            ConfigError: Ray is asked for and not installed.
        """
        if self.cluster is None and self.gpus is not None:
            raise click.UsageError("--gpus-per-run needs --ray: nothing else hands out GPUs.")
        if self.jobs == 0 and self.cluster is not None:
            raise click.UsageError("--jobs 0 is this process, --ray is others. Leave one away.")
        if self.jobs == 0 and self.cpus is not None:
            raise click.UsageError("--cpus-per-run needs runs in processes of their own. Received: --jobs 0.")
        if self.cluster is not None:
            from radtransfer.studies.ray import require_ray

            require_ray()

    def engine(self, store: Path, *, note: Callable[[str], None]) -> "Engine":
        """Where the runs of `store` are computed; `note` hears what the user should know of it."""
        if self.cluster is not None:
            return self._ray_engine(store, note)
        if self.jobs == 0:
            from radtransfer.studies.engines import InProcess

            import_tensorflow()
            return InProcess()
        from radtransfer.studies.engines import Workers

        return Workers(self.jobs or 1, prepare=import_tensorflow, threads=self.cpus)

    def words(self) -> list[str]:
        """The options as they are typed."""
        if self.cluster is None:
            return ["--jobs", str(1 if self.jobs is None else self.jobs), *_option("--cpus-per-run", self.cpus)]
        sizes = (*_option("--cpus-per-run", self.cpus), *_option("--gpus-per-run", self.gpus))
        address = () if self.cluster == DEFAULT_CLUSTER else (self.cluster,)
        return [*_option("--jobs", self.jobs), *sizes, "--ray", *address]

    def _ray_engine(self, store: Path, note: Callable[[str], None]) -> "Engine":
        from radtransfer.studies.ray import Cluster, RayEngine

        cpus, gpus = self.cpus or 1, self.gpus or 0.0
        cluster = Cluster(self.cluster or None)
        try:
            if self.jobs is None:
                cluster.check_room(cpus=cpus, gpus=gpus)
            engine = RayEngine(cluster, store=store, cpus=cpus, gpus=gpus, places=self.jobs, prepare=import_tensorflow)
        except BaseException:
            cluster.close()
            raise
        machines, size = cluster.machines(), f"{cpus} threads" if cpus > 1 else "one thread"
        where = f"Ray {cluster.ray.__version__} on {len(machines)} machine{'s' if len(machines) > 1 else ''}"
        note(f"{where}: {engine.places} runs at a time, {size}{f' and {gpus:g} GPUs' if gpus else ''} each")
        idle = sum(machine.get("GPU", 0) for machine in machines)
        if idle and not gpus:
            note(f"no run will use any of its {idle:g} GPUs: ask for them with --gpus-per-run")
        return engine


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, f"{value:g}")


OPTIONS = {
    "data": "data.source",
    "image_root": "data.image_root",
    "outside_root": "data.outside_root",
    "track": "track",
}
STORE = "runs/studies"


@click.command(short_help="Compute every run of a study that is not there yet.")
@click.argument("config", shell_complete=complete_study)
@setting_options(**OPTIONS)
@sets_option(
    "Change the study: training.epochs=5 for every run, grid.seed=[0,1], arms.NAME.model.weights=FILE, "
    "sources.NAME.data.source=DIR."
)
@click.option("--arms", metavar="ARM,…", help="Only these arms.")
@click.option("--out", metavar="DIR", help="Folder of the study's tables.  [default: studies/<name>]")
@click.option("--runs", "store", metavar="DIR", default=STORE, show_default=True, help="Runs, shared by all studies.")
@click.option(
    "--jobs",
    type=click.IntRange(0),
    help="Runs at a time, each in a process of its own; 0: one after the other in this process.  "
    "[default: 1; with --ray what the cluster has room for]",
)
@click.option(
    "--ray",
    "cluster",
    is_flag=False,
    flag_value=DEFAULT_CLUSTER,
    metavar="[HOST:PORT]",
    help="Compute the runs on a Ray cluster: this one, that of RAY_ADDRESS, the one of this machine or, if there is "
    "none, one that is started for the study. `local` always starts one.",
)
@click.option(
    "--cpus-per-run",
    "cpus",
    type=click.IntRange(1),
    metavar="N",
    help="Threads of a run, and cores that are kept for it with --ray.  [default: all; with --ray 1]",
)
@click.option(
    "--gpus-per-run",
    "gpus",
    type=click.FloatRange(0),
    metavar="N",
    help="GPUs that are kept for a run with --ray; 0.5 lets two share one.  [default: 0]",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Compute at most N runs now.")
@break_lock_option
@click.option("--dry-run", is_flag=True, help="List the runs and estimate the time; compute none.")
@click.option("--no-timing", is_flag=True, help="With --dry-run: time no run, so that the list comes at once.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def study(
    config: str,
    sets: tuple[str, ...],
    arms: str | None,
    out: str | None,
    store: str,
    jobs: int | None,
    cluster: str | None,
    cpus: int | None,
    gpus: float | None,
    limit: int | None,
    dry_run: bool,
    no_timing: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compute every run of the study CONFIG that is not done yet, and tabulate them all.

    CONFIG is a shipped study (`radtransfer configs list`) or a YAML file. The same command goes on where it was
    stopped, and computes only what is new when the study has changed.

    \b
    Example: radtransfer study quick-advice --dry-run
             radtransfer study revisiting --data FOLDS --image-root IMAGES --jobs 2
             radtransfer study revisiting --data FOLDS --image-root IMAGES --ray --gpus-per-run 1
    """
    if no_timing and not dry_run:
        raise click.UsageError("--no-timing says how --dry-run lists the runs. Add --dry-run.")
    places = Places(jobs, cluster, cpus, gpus)
    places.check()
    chosen = [name.strip() for name in arms.split(",")] if arms else []
    asked = load_study(config, sets=sets, options=given_settings(given, OPTIONS), arms=chosen)
    from radtransfer.studies.grid import plan_study

    progress = TerminalProgress()
    plan = plan_study(asked, store=Path(store), progress=progress)
    progress.clear()
    if dry_run:
        for note in plan.notes:
            progress.note(note)
        _estimate(plan, jobs=jobs or 1, timing=not no_timing, as_json=as_json)
        return
    path = study_folder(asked, out)
    state = _compute(plan, path, places=places, limit=limit)
    table = json.loads((path / "table.json").read_text(encoding="utf-8"))
    show_json(table) if as_json else show(*_result_lines(table, path))
    from radtransfer.studies.runs import check_complete

    check_complete(state)


def _compute(plan: "StudyPlan", path: Path, *, places: Places, limit: int | None) -> "StudyState":
    """Run what is to be run, with its progress on the terminal and in the study's folder."""
    from radtransfer.cli.study_board import StudyBoard
    from radtransfer.studies.runs import open_study_folder, run_study

    words = ["radtransfer", "study", str(path / "study.yaml"), "--out", str(path), "--runs", str(plan.store)]
    again = shlex.join([*words, *places.words()])
    with open_study_folder(path) as folder:
        board = StudyBoard(folder)
        for note in folder.begin(plan):
            board.note(note)

        def tell() -> None:
            board.note(f"stopping; go on with: {again}")

        with before_hard_end(tell):
            engine = places.engine(plan.store, note=board.note)
        try:
            with before_hard_end(tell):
                state = run_study(plan, engine, limit=limit, listener=board)
            folder.write_progress(state, now=True)
        except (KeyboardInterrupt, DiskError):
            tell()
            raise
        finally:
            board.clear()
            engine.close()
            folder.write_table(plan)
    if state.left:
        board.note(f"{len(state.left)} runs are left, because of --limit; go on with: {again}")
    return state


def _estimate(plan: "StudyPlan", *, jobs: int, timing: bool, as_json: bool) -> None:
    """List the runs, and how long those that are to do will take, as far as that is known or timed."""
    speeds = _speeds(plan, timing=timing)
    rows = [_planned_row(plan, run, speeds.seconds(run)) for run in plan.runs.values()]
    todo = [row["seconds"] for row in rows if row["status"] != "done"]
    seconds = None if None in todo else round(sum(todo) / max(min(jobs, len(todo)), 1))
    counts = {"total": len(rows), "done": len(rows) - len(todo), "to_do": len(todo), "seconds": seconds}
    if as_json:
        show_json({"study": plan.study.name, **counts, "runs": rows})
        return
    from radtransfer.cli.study_board import duration

    show(*_planned_lines(plan.study, rows))
    at_most = f"at most {duration(seconds)} with --jobs {jobs}; early stopping makes it shorter"
    if seconds is None and not timing:
        at_most = "time unknown: without --no-timing, a run of each network is timed"
    at_most = at_most if todo else "nothing"
    show(f"{len(rows)} runs: {counts['done']} done, {len(todo)} to do, {at_most}")


def _speeds(plan: "StudyPlan", *, timing: bool) -> Any:
    """What is known of how fast networks train here; `timing` times one run of each that nothing is known about."""
    from radtransfer.studies.grid import rehearsal, store_speeds, untimed_runs

    speeds, progress = store_speeds(plan.store), TerminalProgress()
    for run in untimed_runs(plan, speeds) if timing else ():
        import_tensorflow()
        from radtransfer.errors import RadtransferError
        from radtransfer.training.plan import dry_run

        progress.note(f"timing {run.config.model.backbone} at {run.config.model.image_size} px")
        config = rehearsal(run)
        try:
            hours = dry_run(config).total_hours
        except RadtransferError as error:
            progress.note(f"{run.cell.name}: {error}")
            continue
        speeds.learn(run.identity, 3600 * hours, epochs=config.training.epochs * run.folds, images=run.images)
    return speeds


def _planned_row(plan: "StudyPlan", run: "PlannedRun", seconds: float | None) -> dict[str, Any]:
    cell, failure = run.cell, run.failure()
    waits = run.source is not None and not plan.runs[run.source].done
    status = "done" if run.done else "waiting" if waits else "failed" if failure else "to do"
    labels = {name: list(value) if isinstance(value, tuple) else value for name, value in cell.labels.items()}
    row = {"run": run.key, "status": status, "arm": cell.arm, "labels": labels, "source": run.source}
    row["preprocessing"] = run.config.model.preprocessing
    return row | {"seconds": None if run.done or seconds is None else round(seconds, 1), "error": failure}


def _planned_lines(asked: Study, rows: list[dict[str, Any]]) -> Iterator[str]:
    from radtransfer.cli.study_board import duration

    yield f"{asked.name}: {asked.title}"
    header = ["run", "status", "arm", *map(_short, asked.axes), "input", "time"]
    body = [
        [row["run"], row["status"], row["arm"], *(_cell_text(row["labels"].get(name)) for name in asked.axes)]
        + [row["preprocessing"], "" if row["status"] == "done" else duration(row["seconds"])]
        for row in rows
    ]
    yield from columns([header, *body])
    for row in rows:
        if row["error"]:
            yield f"{row['run']} failed before: {row['error']}"


def _result_lines(table: Mapping[str, Any], path: Path) -> Iterator[str]:
    axes, threshold = table["study"]["axes"], table["study"]["threshold"]
    steps = [] if threshold is None else [f"steps to {threshold:g}"]
    header = ["arm", *map(_short, axes), "AUC mean ± sd", "pooled", "95 % interval", *steps, "trained", "status"]
    yield from columns([header, *(_result_cells(row, axes, watched=bool(steps)) for row in table["runs"])])
    yield from positive_lines(table["runs"])
    for row in table["runs"]:
        if row["error"]:
            yield f"{row['run']} {row['status']}: {row['error']}"
    yield f"table     {path / 'table.csv'}"


def _result_cells(row: Mapping[str, Any], axes: list[str], *, watched: bool) -> list[str]:
    interval = f"{number(row['ci95_low'])} to {number(row['ci95_high'])}"
    trained = "" if row["trainable_parameters"] is None else f"{row['trainable_parameters']:,}"
    reached = f"{number(row['steps'], '.0f')} ({row['steps_reached']}/{row['steps_watched']})"
    labels = [_cell_text(row["labels"][name]) for name in axes]
    spread = "" if row["auc_sd"] is None else f" ± {number(row['auc_sd'])}"
    figures = [f"{number(row['auc'])}{spread}", number(row["auc_pooled"]), interval]
    return [row["arm"], *labels, *figures, *([reached] if watched else []), trained, row["status"]]


def columns(rows: list[list[str]]) -> Iterator[str]:
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
    "--published", metavar="DIR", type=click.Path(path_type=Path), help="Results as Juodelyte et al. publish theirs."
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder of the report.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="AUC to count steps to.  [default: one that every arm reaches]"
)
@click.option(
    "--cca/--no-cca", default=True, show_default=True, help="Compare the layers of each arm before and after training."
)
def report(runs: tuple[Path, ...], published: Path | None, out: Path, threshold: float | None, cca: bool) -> None:
    """Write report.html, report.json, figures/ (PNG and SVG) and tables/ (CSV and Markdown) to --out.

    RUNS are run folders, a study, or folders of runs; those that differ in their seed alone are one arm. An earlier
    report in --out is replaced.
    --published reads AUC.csv, CCA_<target>.csv and similarity.csv of a folder, whatever targets, sources, layers and
    folds they hold.

    \b
    Example: radtransfer report runs/imagenet runs/scratch --out report
             radtransfer report --published results/ --out report
    """
    if bool(runs) == (published is not None):
        raise click.UsageError("Expected RUNS or --published DIR, and not both.")
    from radtransfer.files import check_out
    from radtransfer.reports.page import report_time

    check_out(out)
    progress, before = TerminalProgress(), report_time(out)
    if published is not None:
        from radtransfer.reports.published_report import report_published

        written = report_published(published, out)
    else:
        from radtransfer.reports.report import report_runs

        written = report_runs(runs, out, threshold=threshold, cca=cca, progress=progress)
        progress.clear()
    if before:
        progress.note(f"replaced the report of {before} in {out}")
    show_written(written[:2])


SWEPT = ("scheme", "through", "freeze_to", "slim")
SHARED = {name: setting for name, setting in RUN_OPTIONS.items() if name not in SWEPT}

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
    from radtransfer.data.readers import fitted
    from radtransfer.studies.runs import check_complete
    from radtransfer.studies.tables import freeze_sweep, write_freeze_sweep

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
    from radtransfer.data.readers import fitted
    from radtransfer.studies.runs import check_complete
    from radtransfer.studies.tables import transfusion_sweep, write_transfusion_sweep

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
    from radtransfer.files import check_out
    from radtransfer.studies.engines import InProcess
    from radtransfer.studies.grid import plan_study
    from radtransfer.studies.runs import StudyListener, run_study

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
        figures = f"{number(row['auc_mean'])} ± {number(row['auc_sd'])}   {number(row['auc_pooled'])}  "
        interval = f"{number(row['ci95_low'])} to {number(row['ci95_high'])}"
        reached = f"  {_reached(row)}" if steps else ""
        lines.append(f"{start}{figures}{interval}{reached}")
    return [*lines, *positive_lines(rows)]


def _width(rows: Sequence[dict[str, Any]], label: str) -> int:
    return max(len(label), *(len(str(row[label])) for row in rows)) + 2


def _reached(row: dict[str, Any]) -> str:
    """Mean steps to the threshold, and in how many of the folds that were watched."""
    mean = "never" if row["steps_watched"] else "n/a"
    if row["steps_mean"] is not None:
        mean = f"{row['steps_mean']:.0f}"
    return f"{mean} ({row['steps_reached']}/{row['steps_watched']})"
