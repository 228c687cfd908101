"""Import TensorFlow without its banner."""

import os
import sys
import tempfile

from radtransfer.cli.interrupts import interrupts_later


def import_tensorflow() -> None:
    """Import TensorFlow and Keras; what they print to stderr is shown only if they fail.

    The banner is written by compiled code past `sys.stderr`, before any log level is read: only the file
    descriptor can keep it away.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with interrupts_later(), tempfile.TemporaryFile() as hidden:
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
