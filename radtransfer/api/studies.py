"""Studies of many runs, and reports on runs."""

import html
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.api.progress import shown
from radtransfer.api.runs import Run
from radtransfer.api.settings import PathLike, frame, given_values, paths, settings_of
from radtransfer.errors import ConfigError, RadtransferError, RunError
from radtransfer.process import Progress
from radtransfer.studies.study import STORE, Study

if TYPE_CHECKING:
    import pandas as pd


class StudyResult:
    """The folder of a study.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        if not (self.path / "table.json").is_file():
            raise RunError(
                f"{self.path}: not the folder of a study: expected a table.json in it. Run `radtransfer study` first."
            )

    def __fspath__(self) -> str:
        return str(self.path)

    @cached_property
    def table(self) -> dict[str, Any]:
        """The content of `table.json`."""
        return json.loads((self.path / "table.json").read_text(encoding="utf-8"))

    def to_frame(self) -> "pd.DataFrame":
        """A row per run."""
        rows = [{**row["labels"], **{name: value for name, value in row.items() if name not in ("labels", "folds")}}
                for row in self.table["runs"]]  # fmt: skip
        return frame(rows)

    @property
    def runs(self) -> list[Run]:
        """The runs with at least one finished fold."""
        return [Run(row["path"]) for row in self.table["runs"] if row["folds"]]

    def __repr__(self) -> str:
        done = sum(row["status"] == "finished" for row in self.table["runs"])
        return f"StudyResult({str(self.path)!r}, {done} of {len(self.table['runs'])} runs finished)"

    def _repr_html_(self) -> str:
        shown = self.to_frame()[["arm", "status", "auc", "auc_sd", "auc_pooled", "ci95_low", "ci95_high"]]
        return f"<b>{html.escape(str(self.path))}</b>" + shown.to_html(index=False)


def run_study(
    config: PathLike | Study,
    *,
    data: Any = None,
    out: PathLike | None = None,
    runs: PathLike | None = None,
    arms: Sequence[str] = (),
    jobs: int | None = None,
    ray: str | None = None,
    cpus_per_run: int | None = None,
    gpus_per_run: float | None = None,
    limit: int | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> StudyResult:
    """Compute all unfinished runs of a study; the command `radtransfer study`.

    Other arguments are described in `radtransfer.api`; `data` and settings apply to all runs.

    Args:
        config: A shipped study, a YAML file, or a `Study`.
        out: Folder of the study; by default `studies/NAME`.
        runs: Folder of runs that all studies share; by default `runs/studies`.
        arms: Only these arms.
        jobs: Number of runs in parallel, each in its own process; 0, the default without `ray`, computes one run after
            the other in this process.
        ray: Compute on a Ray cluster: HOST:PORT, "local", or "" for the running cluster, else one on this machine.
        cpus_per_run: Threads per run.
        gpus_per_run: GPUs reserved per run, with `ray`.
        limit: Compute at most this number of runs.

    Raises:
        ConfigError: The study cannot be read. TrainingError: Runs failed; the others are kept and in the table, and the
            `result` of the error is the study.

    Example:
        >>> study = rt.run_study("study.yaml", data="images.csv", image_root="images", quiet=True)
        >>> study.to_frame()["status"].tolist()
        ['finished', 'finished']
    """
    with shown(progress, quiet) as progress:
        from radtransfer.studies.engines import Places
        from radtransfer.studies.file import load_study

        places = Places(jobs, ray, cpus_per_run, gpus_per_run)
        places.check()
        if not isinstance(config, Study):
            given = given_values(settings_of(data, settings=settings))
            config = load_study(os.fspath(config), options=given, arms=list(arms))
        from radtransfer.studies.grid import plan_study
        from radtransfer.studies.runs import check_complete, compute_study

        plan = plan_study(config, store=Path(STORE if runs is None else runs), progress=progress)
        path = Path("studies") / config.name if out is None else Path(out)
        progress.clear()
        state = compute_study(plan, path, places, progress, limit=limit)
        found = StudyResult(path)
        try:
            check_complete(state)
        except RadtransferError as error:
            error.result = found
            raise
        return found


class Report:
    """A written report.

    Attributes:
        path: Its folder.
        files: The written files, the page first.
    """

    def __init__(self, path: Path, files: Sequence[Path]):
        self.path, self.files = path, tuple(files)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The content of `report.json`."""
        return json.loads((self.path / "report.json").read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"Report({str(self.files[0])!r})"

    def _repr_html_(self) -> str:
        return f"<a href='{html.escape(str(self.files[0]))}'>{html.escape(str(self.files[0]))}</a>"


def make_report(
    runs: Any = None,
    *,
    out: PathLike,
    published: PathLike | None = None,
    threshold: float | None = None,
    cca: bool = True,
    quiet: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write a report on a study or on runs; the command `radtransfer report`.

    `quiet` and `progress` are described in `radtransfer.api`.

    Args:
        runs: The result of `run_study`, the folder of a study, a run, or several runs.
        out: Folder of the report. An earlier report in it is replaced.
        published: Instead of runs, a folder of results in the format of Juodelyte et al.
        threshold: Count the training steps until this AUC.
        cca: Whether to compare layers and filters, too.

    Raises:
        RunError: These are not runs, or runs that cannot be compared.

    Example:
        >>> report = rt.make_report("runs/first", out="report", cca=False, quiet=True)
        >>> [file.name for file in report.files[:2]]
        ['report.html', 'report.json']
    """
    if (runs is None) == (published is None):
        raise ConfigError("Expected either runs or a folder of published results.")
    with shown(progress, quiet) as progress:
        from radtransfer.files import check_out
        from radtransfer.reports.page import report_time

        check_out(Path(out))
        before = report_time(Path(out))
        if published is not None:
            from radtransfer.reports.published_report import report_published

            files = report_published(Path(published), Path(out))
        else:
            from radtransfer.reports.report import report_runs

            several = [Path(path) for path in paths(runs)]
            files = report_runs(several, Path(out), threshold=threshold, cca=cca, progress=progress)
        progress.clear()
        if before:
            progress.note(f"replaced the report of {before} in {out}")
        return Report(Path(out), files)
