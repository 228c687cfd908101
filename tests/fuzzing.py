"""Many random inputs, cheaply: how many, and what must be true of whatever becomes of each.

The suite draws a few, always the same. `RADTRANSFER_FUZZ=5000 pytest tests/fuzz` draws that many for each test, new
ones every time.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from radtransfer.errors import RadtransferError

ASKED = int(os.environ.get("RADTRANSFER_FUZZ", 0))
SECONDS = 30
"""In which every input must have an answer."""


def fuzzed(examples: int) -> settings:
    """Settings of a property: `examples` inputs, or as many as were asked for."""
    return settings(
        max_examples=ASKED or examples,
        derandomize=not ASKED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate] if os.environ.get("NOSHRINK") else list(Phase),
    )


def answer(work: Callable[..., Any], *arguments: Any, names: str | None = None, codes: tuple = (2, 3, 4)) -> Any:
    """What `work` gives, or the error it raises, which must be one that users are promised.

    Args:
        work: Called with `arguments`.
        names: What the message must hold, such as the name of the file.
        codes: The exit codes that are documented for this mistake.
    """
    with _in_time():
        try:
            return work(*arguments)
        except RadtransferError as error:
            message = str(error)
            assert error.exit_code in codes, (error.exit_code, message)
            assert message.strip(), type(error)
            assert names is None or names in message, (names, message)
            return error


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
