"""TensorFlow imported without its banner, and Ctrl-C and SIGTERM heard while it computes."""

import _thread
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from radtransfer.process import before_hard_end, end_after_signals, import_keras

_AGAIN = 0.05
"""Seconds after which an interrupt that was lost is given once more."""


_GRACE = 1.0
"""Seconds after which a process that was interrupted is ended wherever it is."""


def heed_interrupts(leave: Callable[[], None] = lambda: None) -> None:
    """Let SIGTERM interrupt like Ctrl-C, let no interrupt be lost, and none be answered late.

    Python drops what is raised while an object is finalized, so a signal that comes just then would go unheard and
    the command would run to its end. `leave` is called where the process is ended from outside its main thread.
    """

    def last() -> None:
        leave()
        os.write(2, b"Error: Interrupted.\n")

    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _heed
    end_after_signals(_GRACE, last=last)


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM: compiled modules turn an interrupt of their import into any other error."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _heed(unraisable) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Thread(target=_give_again, daemon=True).start()
    else:
        sys.__unraisablehook__(unraisable)


def _give_again() -> None:
    time.sleep(_AGAIN)
    _thread.interrupt_main(signal.SIGTERM)


def import_tensorflow(*, compute: bool = True) -> None:
    """Import TensorFlow and Keras; what they print to stderr is shown only if they fail.

    With `compute` it begins to use its devices, which prints as well; afterwards they cannot be arranged any more.

    The banner is written by compiled code past `sys.stderr`, before any log level is read: only the file
    descriptor can keep it away.
    """
    if "tensorflow" in sys.modules:
        import_keras()
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with (
        interrupts_later(),
        before_hard_end(lambda: os.dup2(shown, 2)),
        tempfile.TemporaryFile() as hidden,
    ):
        os.dup2(hidden.fileno(), 2)
        try:
            import_keras()
            import tensorflow as tf

            tf.config.list_physical_devices()
            if compute:
                tf.zeros([])
        except Exception:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
