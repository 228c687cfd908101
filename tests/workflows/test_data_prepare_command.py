import json
import signal
import time

import pytest
import warm_process

TINY = ("--backbone", "cbr_tiny", "--image-size", "24", "--batch-size", "8", "--learning-rate", "1e-3")


def data(tiny_images):
    return (tiny_images / "images.csv", "--image-root", tiny_images / "images")


def prepare_command(tiny_images, out, *more):
    return ("data", "prepare", *data(tiny_images), "--image-size", 24, "--out", out, *more)


def test_training_on_the_prepared_set_gives_the_run_on_the_images(radtransfer, tiny_images, table_options, tmp_path):
    outcome = radtransfer(*prepare_command(tiny_images, tmp_path / "set"))
    assert outcome.code == 0, outcome.err
    assert f"--data tfds:{tmp_path / 'set'}" in outcome.err
    runs = {}
    for name, options in (("images", table_options), ("set", ("--data", f"tfds:{tmp_path / 'set'}", *TINY))):
        out = tmp_path / name / "run"
        outcome = radtransfer("finetune", *options, "--folds", 2, "--epochs", 1, "--out", out)
        assert outcome.code == 0, outcome.err
        runs[name] = {file: (out / file).read_bytes() for file in ("folds.csv", "predictions.csv", "metrics.json")}
    assert runs["images"] == runs["set"]


def test_two_processes_write_the_same_bytes(tiny_images, tmp_path):
    sets = []
    for out in (tmp_path / "a", tmp_path / "b"):
        warm_process.run(*prepare_command(tiny_images, out), check=True)
        sets.append({path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"})
    for contents in sets:  # it says when it was written
        contents["provenance.json"] = json.loads(contents["provenance.json"]) | {"prepared": None}
    assert sets[0] == sets[1]


def test_only_json_is_on_stdout(radtransfer, tiny_images, tmp_path):
    outcome = radtransfer(*prepare_command(tiny_images, tmp_path / "set", "--encoding", "jpeg", "--json"))
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["path"], result["images"], result["splits"]) == (str(tmp_path / "set"), 48, {"train": 48})


def test_mistakes_have_their_exit_codes(radtransfer, tiny_images, tmp_path):
    assert radtransfer("data", "prepare", "tfds:chexpert", "--out", tmp_path / "a").code == 3
    assert radtransfer(*prepare_command(tiny_images, tmp_path / "set")).code == 0
    outcome = radtransfer(*prepare_command(tiny_images, tmp_path / "set", "--encoding", "jpeg"))
    assert (outcome.code, "--overwrite" in outcome.err) == (2, True)
    assert radtransfer(*prepare_command(tiny_images, tmp_path / "set", "--encoding", "jpeg", "--overwrite")).code == 0


SLOWLY = """
import time
from radtransfer.cli.terminal import import_tensorflow
import_tensorflow()
from radtransfer.data import prepared
from radtransfer.cli.main import main
from radtransfer.cli.terminal import TerminalProgress
prepared.SHARD_BYTES, prepared._BATCH_BYTES = 24 * 24 * 3 * 2, 24 * 24 * 12
TerminalProgress.count = lambda *arguments: time.sleep(0.05)
main()
"""
"""The command with two images in a shard, which takes a while for each."""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_a_killed_command_goes_on(tiny_images, tmp_path, how):
    out = tmp_path / "set"
    command = prepare_command(tiny_images, out, "--json")
    with warm_process.start(*command, program=SLOWLY) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not list(out.glob("radtransfer-*")):
            time.sleep(0.002)
        process.send_signal(getattr(signal, how))
        _, error = process.communicate()
    assert process.returncode == (130 if how == "SIGTERM" else -signal.SIGKILL), error
    assert "Traceback" not in error
    written = {file: file.stat().st_mtime_ns for file in out.glob("radtransfer-*")}
    assert 0 < len(written) < 24
    finished = warm_process.run(*command, program=SLOWLY)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["shards"] == 24
    assert {file: file.stat().st_mtime_ns for file in written} == written
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("note")]
    assert lines == []
