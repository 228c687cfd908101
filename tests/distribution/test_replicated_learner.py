import os
import subprocess
import sys
from pathlib import Path

from radtransfer.training.distributed import LOGICAL_CPUS


def test_a_learner_on_two_devices():
    """In a process of its own: devices are made before TensorFlow computes anything."""
    file = Path(__file__).with_name("two_devices.py")
    done = subprocess.run(
        [sys.executable, file], env=os.environ | {LOGICAL_CPUS: "2"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        line.split("(")[0][4:] for line in file.read_text().splitlines() if "def check_" in line
    ]
