"""What happens on a machine of a Ray cluster: one run, in a process of its own."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radtransfer import __version__
from radtransfer.environment import import_keras, pin_variables
from radtransfer.errors import ConfigError, DataError, RadtransferError, WeightsError
from radtransfer.settings import Config
from radtransfer.studies.engines.collecting import compute_elsewhere
from radtransfer.studies.engines.engine import Relay
from radtransfer.studies.run_cell import Outcome, run_cell


@dataclass(frozen=True)
class Task:
    """An attempt at a run.

    Attributes:
        key: Of the run.
        attempt: Its number, of all attempts at all runs.
        config: Its settings, with full paths.
        path: Its folder, in full.
        probe: A file that the study has written into the store: who sees it, sees the store.
        prepare: Called first.
        version: Of radtransfer, where the study is.
    """

    key: str
    attempt: int
    config: Config
    path: Path
    probe: Path
    prepare: Callable[[], None] | None
    version: str


def compute(task: Task, mailbox: Any) -> Outcome:
    """Compute a run; `mailbox` is the handle of the study's `Mailbox`."""
    machine = socket.gethostname()

    def tell(name: str, arguments: tuple) -> None:
        mailbox.tell.remote(task.key, task.attempt, name, arguments)

    if task.version != __version__:
        reason = f"{machine} has radtransfer {__version__}, the study runs with {task.version}. Install the same."
        return Outcome("failed", reason, ConfigError.exit_code)
    tell("placed", (machine,))
    pin_variables()
    try:
        if task.prepare is not None:
            task.prepare()
        import_keras()
    except RadtransferError as error:
        return Outcome("failed", f"On {machine}: {error}", error.exit_code)
    outcome = _compute(task, mailbox, tell)
    if outcome.exit_code in (DataError.exit_code, WeightsError.exit_code):
        return replace(outcome, error=f"On {machine}: {outcome.error}")
    return outcome


def _compute(task: Task, mailbox: Any, tell: Callable[[str, tuple], None]) -> Outcome:
    if task.probe.is_file():
        return run_cell(task.config, task.path, progress=Relay(tell, seconds=1.0))
    tell("away", (socket.gethostname(),))
    return compute_elsewhere(_caller(mailbox), task.key, task.attempt, task.config, task.path, tell)


def _caller(mailbox: Any) -> Callable[..., Any]:
    """Calls the mailbox and waits; its errors come as they were raised."""
    import ray

    def call(method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(mailbox, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    return call
