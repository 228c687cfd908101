import os
import signal
import subprocess
import sys

import pytest

from radtransfer.cli.terminal import interrupts_later


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
from radtransfer.cli.terminal import heed_interrupts

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


DEAF = """
import hashlib, sys, threading
from pathlib import Path
from radtransfer.cli.terminal import heed_interrupts
from radtransfer.process import on_forced_exit
from radtransfer.files import atomic_folder
from radtransfer.files import atomic_write

heed_interrupts()
out = Path(sys.argv[1])
with on_forced_exit(lambda: print("a block that was left", file=sys.stderr)):
    pass
with on_forced_exit(lambda: print("how to go on", file=sys.stderr, flush=True)):
    with on_forced_exit(lambda: 1 / 0), atomic_folder(out / "results") as folder, atomic_write(out / "file") as part:
        (folder / "half").touch()
        part.write_text("half")
        threading.Timer(1, print, ["ready"], {"flush": True}).start()  # when the main thread is deaf
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes in which Python answers nothing
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_python_cannot_answer_the_process_ends_with_nothing_half_written(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=120) == 130
        assert process.stderr.read() == "how to go on\nError: Interrupted.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_library_call_handles_no_signal():
    code = "import radtransfer.training.run, radtransfer.evaluation.results, signal\n"
    code += "print(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{signal.SIG_DFL} {signal.default_int_handler} -1\n"
