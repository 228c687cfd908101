"""TensorFlow's banner stays away from the user's terminal."""

import re
import subprocess
import sys

import pytest

IMPORT = "from radtransfer.cli.terminal import import_tensorflow; import_tensorflow()"

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


def limited(code, *, limit="RLIMIT_AS", size=2 * 2**30):
    """What `python -c code` does with a limit on its memory, in bytes."""
    resource = pytest.importorskip("resource")
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(getattr(resource, limit), (size, size)),
    )


COMMAND = "import sys; from radtransfer.cli.main import main; sys.argv[1:] = {}; main()"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what is used")
@pytest.mark.parametrize(
    ("limit", "size", "needed"), [("RLIMIT_AS", 2 * 2**30, 2.4), ("RLIMIT_DATA", 500_000_000, 0.6)]
)
def test_too_little_memory_for_tensorflow_is_told_before_it_is_imported(limit, size, needed, tmp_path):
    command = ["finetune", "--data", "synthetic_fundus:images=60,size=32", "--out", str(tmp_path / "run")]
    for arguments in (command, ["plan", "cbr_tiny"]):
        done = limited(COMMAND.format(arguments), limit=limit, size=size)
        assert done.returncode == 5, done.stderr
        told = re.search(r"TensorFlow needs ([\d.]+) GB .* of the ([\d.]+) GB .* ([\d.]+) GB are free", done.stderr)
        assert float(told[1]) >= needed
        assert abs(float(told[2]) - size / 1e9) < 0.01
        assert float(told[3]) < float(told[2])
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what is used")
def test_what_needs_no_tensorflow_runs_with_little_memory():
    done = limited(COMMAND.format(["configs", "show", "quickstart"]), size=2**30)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what is used")
def test_a_library_that_builds_a_network_tells_it_too():
    done = limited("import radtransfer; radtransfer.build_backbone('cbr_tiny')")
    assert done.returncode == 1
    assert "OutOfMemoryError: TensorFlow needs" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what is used")
def test_each_worker_of_a_study_tells_it(tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text("base: {data: {source: 'synthetic_fundus:images=60,size=32'}, model: {backbone: cbr_tiny}}\n")
    study.write_text(study.read_text() + "arms: {scratch: {}, other: {seed: 1}}\n")
    command = ["study", str(study), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--jobs", "2"]
    done = limited(f"if __name__ == '__main__':\n    {COMMAND.format(command)}")
    assert done.returncode == 5, done.stderr
    assert done.stdout.count("TensorFlow needs") + done.stderr.count("TensorFlow needs") >= 2
    assert "Traceback" not in done.stderr
