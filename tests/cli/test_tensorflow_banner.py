"""TensorFlow's banner stays away from the user's terminal."""

import subprocess
import sys

IMPORT = "from radtransfer.cli.tensorflow import import_tensorflow; import_tensorflow()"

INTERRUPTED_IMPORT = f"""
import os, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "keras":
            os.write(2, b"banner")
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
try:
    {IMPORT}
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_importing_tensorflow_prints_nothing():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_an_interrupted_import_prints_nothing():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == ""
