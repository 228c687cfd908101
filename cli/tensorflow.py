"""Import TensorFlow without its banner."""

import os
import sys
import tempfile

from radtransfer.cli.interrupts import interrupts_later
from radtransfer.environment import import_keras
from radtransfer.interruption import before_hard_end


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
