"""`radtransfer study`: a grid of runs that answers a question."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.cli.completions import complete_study
from radtransfer.cli.data_options import positive_lines
from radtransfer.cli.options import break_lock_option, given_settings, sets_option, setting_options
from radtransfer.cli.study_places import DEFAULT_CLUSTER, Places
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.errors import DiskError
from radtransfer.interruption import before_hard_end
from radtransfer.studies.study import Study, study_folder
from radtransfer.studies.study_file import load_study

if TYPE_CHECKING:
    from radtransfer.studies.plan import PlannedRun, StudyPlan
    from radtransfer.studies.study_runs import StudyState

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
    from radtransfer.studies.plan import plan_study

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
    from radtransfer.studies.study_runs import check_complete

    check_complete(state)


def _compute(plan: "StudyPlan", path: Path, *, places: Places, limit: int | None) -> "StudyState":
    """Run what is to be run, with its progress on the terminal and in the study's folder."""
    from radtransfer.cli.study_board import StudyBoard
    from radtransfer.studies.study_folder import open_study_folder
    from radtransfer.studies.study_runs import run_study

    again = shlex.join([*_again(path, plan.store), *places.words()])
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


def _again(path: Path, store: Path) -> list[str]:
    return ["radtransfer", "study", str(path / "study.yaml"), "--out", str(path), "--runs", str(store)]


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
    from radtransfer.studies.estimate import rehearsal, store_speeds, untimed_runs

    speeds, progress = store_speeds(plan.store), TerminalProgress()
    for run in untimed_runs(plan, speeds) if timing else ():
        import_tensorflow()
        from radtransfer.dry_run import dry_run
        from radtransfer.errors import RadtransferError

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
    interval = f"{_number(row['ci95_low'])} to {_number(row['ci95_high'])}"
    trained = "" if row["trainable_parameters"] is None else f"{row['trainable_parameters']:,}"
    reached = f"{_number(row['steps'], 0)} ({row['steps_reached']}/{row['steps_watched']})"
    labels = [_cell_text(row["labels"][name]) for name in axes]
    spread = "" if row["auc_sd"] is None else f" ± {_number(row['auc_sd'])}"
    figures = [f"{_number(row['auc'])}{spread}", _number(row["auc_pooled"]), interval]
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


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
