import os
import signal
import subprocess
import sys

import pytest

from radtransfer.cli.interrupts import interrupts_later


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_import(number):
    def stop(*_):
        raise AssertionError("too early")

    before, done = signal.signal(number, stop), []
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_later():
            os.kill(os.getpid(), number)
            done.append("imported")
        assert done == ["imported"]
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_later():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


FINALIZED = """
import signal, time
from radtransfer.cli.interrupts import heed_interrupts

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        [None for _ in range(10)]

heed_interrupts()
try:
    Finalized()
    for _ in range(600):
        time.sleep(0.1)
except KeyboardInterrupt:
    print("heard")
"""


def test_an_interrupt_is_not_lost_in_a_finalizer():
    outcome = subprocess.run([sys.executable, "-c", FINALIZED], capture_output=True, text=True)
    assert (outcome.stdout, outcome.stderr) == ("heard\n", "")
