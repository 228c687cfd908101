"""Import TensorFlow without its banner."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow and Keras; what they print to stderr is shown only if they fail.

    The banner is written by compiled code past `sys.stderr`, before any log level is read: only the file
    descriptor can keep it away.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with _interrupts_later(), tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()
            tf.zeros([])
        except Exception:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
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
