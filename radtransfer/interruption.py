"""How a process of ours ends within two seconds of Ctrl-C or SIGTERM, also where Python cannot answer.

Python raises KeyboardInterrupt in the main thread between two of its instructions: not while TensorFlow computes, which
for the first step of a large network takes many seconds. So another thread waits for the signal too. If the process
is still there a moment later, that thread takes away what is half written, says how to go on, and ends the process;
what is left is what a kill leaves, and the same command goes on from it.

Only a process that runs nothing but radtransfer calls `end_after_signals`; in a notebook nothing here does anything.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

from radtransfer.errors import INTERRUPTED

_PATIENCE = 0.4
"""Seconds that the last actions have: one of them may wait for something that the main thread holds."""

_actions: list[list[Callable[[], object]]] = []


@contextlib.contextmanager
def before_hard_end(action: Callable[[], object]) -> Iterator[None]:
    """Have `action` called, in another thread, if the process is ended while the block runs and cannot be left."""
    entry = [action]
    _actions.append(entry)
    try:
        yield
    finally:
        _actions[:] = [other for other in _actions if other is not entry]


def end_after_signals(grace: float, *, last: Callable[[], object] = lambda: None) -> None:
    """End this process `grace` seconds after SIGINT or SIGTERM, as far as Python handles them; to be called once.

    `last` is called in the end.
    """
    _actions.append([last])
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_wait_and_end, args=(heard, grace), daemon=True).start()


def _wait_and_end(heard: int, grace: float) -> None:
    while os.read(heard, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    time.sleep(grace)
    last = threading.Thread(target=_act, daemon=True)
    last.start()
    last.join(_PATIENCE)
    os._exit(INTERRUPTED)


def _act() -> None:
    """The latest first, as when the blocks are left."""
    for (action,) in reversed(list(_actions)):
        with contextlib.suppress(Exception):
            action()
