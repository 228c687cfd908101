"""One run of a study, from settings to outcome: the unit of work that any engine calls, in any process."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from radtransfer.config import load_config
from radtransfer.errors import FoldsFailedError, RadtransferError, RunInUseError
from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.system_errors import system_error

if TYPE_CHECKING:  # it imports TensorFlow
    from radtransfer.networks import Networks

Status = Literal["finished", "partly", "failed", "busy"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: "finished"; "partly" if some folds failed; "failed"; "busy" if another process is computing it.
        error: Why it, or a fold of it, failed.
        exit_code: Of the error; 0 if there is none.
        seconds: That this call took.
    """

    status: Status
    error: str | None = None
    exit_code: int = 0
    seconds: float = 0.0


def run_cell(
    config: Config, path: Path, *, progress: Progress | None = None, networks: "Networks | None" = None
) -> Outcome:
    """Compute the run in `path`, or go on with it; errors are outcomes.

    The result depends on the settings alone: nothing that this process did before matters.

    Args:
        config: The settings; those that a run begun in `path` was begun with count where both mean the same.
        path: The run folder.
        progress: Hears what happens.
        networks: Those of earlier runs in this process; from `own_networks`.
    """
    started = time.monotonic()
    outcome = _outcome(config, path, progress, networks)
    return replace(outcome, seconds=round(time.monotonic() - started, 2))


def own_networks() -> "Networks":
    """Networks for a process that computes nothing but runs: what Keras keeps of earlier ones is forgotten.

    Not for each run: what was traced would have to be compiled again.
    """
    import keras

    from radtransfer.networks import Networks

    return Networks(before_building=keras.utils.clear_session)


def _outcome(config: Config, path: Path, progress: Progress | None, networks: "Networks | None") -> Outcome:
    from radtransfer.finetune import finetune

    try:
        finetune(_as_begun(config, path), resume=True, progress=progress, networks=networks or own_networks())
    except RunInUseError as error:
        return Outcome("busy", str(error), error.exit_code)
    except FoldsFailedError as error:
        return Outcome("partly", str(error), error.exit_code)
    except RadtransferError as error:
        return Outcome("failed", str(error), error.exit_code)
    except Exception as error:  # a bug in one run must not stop the others
        known = system_error(error)
        if known is not None:
            return Outcome("failed", str(known), known.exit_code)
        return Outcome("failed", f"Unexpected {type(error).__name__}: {error}", RadtransferError.exit_code)
    return Outcome("finished")


def _as_begun(config: Config, path: Path) -> Config:
    """The settings of the run that stands in `path`: another study may have written the same ones differently."""
    if not (path / "run.json").exists():
        return replace(config, out=str(path))
    begun = load_config(str(path / "config.yaml"))
    return replace(
        begun, out=str(path), track=config.track, system=replace(begun.system, workers=config.system.workers)
    )
