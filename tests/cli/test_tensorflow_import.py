import os
import signal

import pytest

from radtransfer.cli.tensorflow import _interrupts_later


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_import(number):
    def stop(*_):
        raise AssertionError("too early")

    before, done = signal.signal(number, stop), []
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts_later():
            os.kill(os.getpid(), number)
            done.append("imported")
        assert done == ["imported"]
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupts_later():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
