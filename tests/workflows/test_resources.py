"""What happens when the machine gives out: disk, memory, permissions."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from radtransfer import files as whole_file_module
from radtransfer.errors import DiskError, RunError
from radtransfer.files import atomic_write
from radtransfer.runs.folder import write_json


def full_disk_after(monkeypatch, writes):
    """Let so many files be written, and none after them."""
    sync, left = os.fsync, [writes]

    def fsync(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    monkeypatch.setattr(whole_file_module.os, "fsync", fsync)


def check_same(out, other):
    for name in ("metrics.json", "predictions.csv", "fold_1/history.csv", "fold_2/history.csv"):
        assert (out / name).read_bytes() == (other / name).read_bytes(), name


def test_a_disk_that_is_full_stops_the_run_which_goes_on_later(
    radtransfer, table_options, finished_run, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    arguments = ("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", out)
    with monkeypatch.context() as patch:
        full_disk_after(patch, 13)
        outcome = radtransfer(*arguments)
    assert outcome.code == 5, outcome.err
    assert f"Cannot write {out}" in outcome.err
    assert "No space left on device" in outcome.err
    assert f"resume with: radtransfer finetune {out / 'config.yaml'} --out {out} --resume" in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(out.rglob(".part-*"))
    outcome = radtransfer("finetune", out / "config.yaml", "--out", out, "--resume")
    assert outcome.code == 0, outcome.err
    check_same(out, finished_run.path)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_a_study_on_a_full_disk_says_how_to_go_on(radtransfer, table_options, tmp_path, monkeypatch):
    text = f"base: {{data: {{source: {table_options[1]}}}, splits: {{folds: 1}}}}\narms: {{scratch: {{}}}}\n"
    (tmp_path / "s.yaml").write_text(text)
    full_disk_after(monkeypatch, 0)
    outcome = radtransfer(
        "study", tmp_path / "s.yaml", "--out", tmp_path / "s", "--runs", tmp_path / "runs", "--jobs", 0
    )
    assert outcome.code == 5, outcome.err
    assert f"Cannot write {tmp_path / 's' / 'study.yaml'}" in outcome.err


WRITERS = {
    "text": "part.write_bytes(bytes(200_000))",
    "arrays": "import numpy; numpy.savez(part.open('wb'), a=numpy.ones(50_000))",
    "hdf5": "import h5py, numpy; h5py.File(part, 'w').create_dataset('a', data=numpy.ones(50_000)).file.close()",
}


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_tells_a_file_that_cannot_grow(tmp_path, writer):
    code = (
        "import pathlib, resource, sys\n"
        "from radtransfer.errors import DiskError\nfrom radtransfer.files import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n    with atomic_write(path) as part:\n        " + WRITERS[writer] + "\n"
        "except DiskError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True)
    assert f"Cannot write {tmp_path / 'x'}: File too large" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_network_that_cannot_be_written_is_told_once_and_without_traceback(table_options, tmp_path):
    code = (
        "import resource\nfrom radtransfer.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\nmain()\n"
    )
    arguments = ["finetune", *map(str, table_options), "--folds", "1", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("Cannot write") == 1
    assert "initial.weights.h5: File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"a": 1})
    full_disk_after(monkeypatch, 0)
    with pytest.raises(DiskError, match="a.json"):
        write_json(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_gone_is_a_mistake_of_the_command(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        write_json(tmp_path / "gone" / "a.json", {})


def test_what_is_read_inside_is_not_called_unwritable(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "source").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such devices")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", 1)
    assert os.read(reader, 10) == b"1\n"
    os.close(reader)
    assert not (tmp_path / "pipe").is_file()
    with pytest.raises(DiskError, match="/dev/full: No space left"), atomic_write(Path("/dev/full")) as part:
        part.write_text("x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written_is_named(radtransfer, table_options, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    outcome = radtransfer("finetune", *table_options, "--out", tmp_path / "locked" / "run")
    assert outcome.code == 2
    assert "locked" in outcome.err


@pytest.mark.parametrize("out", ["/proc/run", "/dev/null/run"])
def test_a_place_where_nothing_can_be_made_is_named(radtransfer, table_options, out):
    for command in (("finetune", *table_options), ("data", "split", *table_options[1:4])):
        outcome = radtransfer(*command, "--out", out)
        assert outcome.code == 2, outcome.err
        assert out in outcome.err


def test_no_memory_before_training_says_what_helps(radtransfer, table_options, tmp_path, monkeypatch):
    from radtransfer.training import run as finetune

    def run_out(*_, **__):
        raise MemoryError("Unable to allocate 40.0 GiB")

    monkeypatch.setattr(finetune, "prepare", run_out)
    outcome = radtransfer("finetune", *table_options, "--out", tmp_path / "run")
    assert outcome.code == 5
    assert "Out of memory (Unable to allocate 40.0 GiB)" in outcome.err
    assert "--batch-size" in outcome.err


def test_an_interrupt_before_the_first_epoch_prints_the_line_that_goes_on(
    radtransfer, table_options, finished_run, tmp_path, monkeypatch
):
    from radtransfer.training import run as finetune

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "prepare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        outcome = radtransfer("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", out)
    assert outcome.code == 130
    assert f"resume with: radtransfer finetune {out / 'config.yaml'} --out {out} --resume" in outcome.err
    outcome = radtransfer("finetune", out / "config.yaml", "--out", out, "--resume")
    assert outcome.code == 0, outcome.err
    check_same(out, finished_run.path)


def test_an_interrupt_before_overwriting_leaves_the_run_that_stands(radtransfer, table_options, tmp_path, monkeypatch):
    from radtransfer.training import run as finetune

    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text('{"status": "finished"}')
    monkeypatch.setattr(finetune, "prepare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    outcome = radtransfer("finetune", *table_options, "--out", out, "--overwrite")
    assert outcome.code == 130
    assert "is unchanged" in outcome.err
    assert not (out / "config.yaml").exists()


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(tmp_path):
    from radtransfer.errors import TrainingError
    from radtransfer.training.loop import check_finite

    row = {"epoch": 3, "learning_rate": 0.1}
    with pytest.raises(TrainingError, match="No epoch was finished before it"):
        check_finite(float("nan"), row, tmp_path)
    (tmp_path / "checkpoint.npz").touch()
    with pytest.raises(TrainingError, match=f"last good checkpoint, of epoch 2, is {tmp_path / 'checkpoint.npz'}"):
        check_finite(float("inf"), row, tmp_path)


@pytest.mark.parametrize("writes", [0, 2, 4])
def test_an_evaluation_that_stops_before_its_figures_leaves_the_folder_as_it_was(
    radtransfer, finished_run, tmp_path, monkeypatch, writes
):
    for out, before in ((tmp_path / "new", []), (tmp_path / "old", ["bad_images.txt", "metrics.json", "pr.png"])):
        for name in before:
            out.mkdir(exist_ok=True)
            (out / name).write_text("before")
        with monkeypatch.context() as patch:
            full_disk_after(patch, writes)
            outcome = radtransfer("evaluate", finished_run.path, "--out", out, "--overwrite", "--draws", 100)
        assert outcome.code == 5, outcome.err
        assert f"Cannot write {out}: No space left on device (" in outcome.err
        assert re.search(r"[\d.]+ .?B free in /", outcome.err)
        assert [path.read_text() for path in out.glob("*")] == ["before"] * len(before)
    assert not list(tmp_path.rglob(".part-*"))
    outcome = radtransfer("evaluate", finished_run.path, "--out", out, "--overwrite", "--draws", 100)
    assert outcome.code == 0, outcome.err
    assert (out / "bad_images.txt").read_text() == "before"
    assert (out / "pr.png").stat().st_size > 1000


@pytest.fixture(params=["no folder", "full"])
def unusable_cache(request, tmp_path, monkeypatch):
    """A cache folder that nothing can be written to."""
    if request.param == "no folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "file"))
        return
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    make = Path.mkdir

    def mkdir(path, *arguments, **named):
        if (tmp_path / "cache") in (path, *path.parents):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        make(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_a_cache_that_cannot_be_written_stops_nothing_and_is_told_once(
    radtransfer, table_options, finished_run, tmp_path, unusable_cache
):
    out = tmp_path / "run"
    outcome = radtransfer("finetune", *table_options, "--folds", 1, "--dry-run", "--out", out)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("cannot be written") == 1 and "RADTRANSFER_CACHE" in outcome.err
    frozen = ("--weights", finished_run.path / "fold_1", "--scheme", "freezeall", "--augmentation", "none")
    outcome = radtransfer("finetune", *table_options, "--folds", 1, "--epochs", 1, *frozen, "--out", out)
    assert outcome.code == 0, outcome.err
    assert not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize("asked", [("--cache", "disk"), ("--cache-features", "--scheme", "freezeall")])
def test_a_cache_that_was_asked_for_and_cannot_be_written_ends_the_run(
    radtransfer, table_options, finished_run, tmp_path, unusable_cache, asked
):
    options = ("--folds", 1, "--epochs", 1, "--weights", finished_run.path / "fold_1", "--augmentation", "none")
    outcome = radtransfer("finetune", *table_options, *options, *asked, "--out", tmp_path / "run")
    assert outcome.code == 5, outcome.err
    assert "RADTRANSFER_CACHE" in outcome.err and "Traceback" not in outcome.err


@contextlib.contextmanager
def files_of_at_most(size):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = {
    "export": (("export", "RUN/fold_1", "--format", "savedmodel"), "out"),
    "report": (("report", "RUN", "--no-cca"), "out"),
    "prepare": (("data", "prepare", "DATA", "--image-size", 32), "out"),
    "split": (("data", "split", "DATA"), "out.csv"),
    "predict": (("predict", "RUN/fold_1", *["DATA"] * 8), "out.csv"),
    "extract": (("extract", "RUN/fold_1", "DATA", "--layer", "stage1", "--pool", "none"), "out.npz"),
    "card": (("card", "RUN/fold_1"), "out.md"),
}


@pytest.mark.parametrize("command", FULL)
def test_every_command_that_writes_tells_a_full_disk_and_leaves_nothing(
    radtransfer, finished_run, table_options, tmp_path, command
):
    words, out = FULL[command]
    words = [str(word).replace("RUN", str(finished_run.path)) for word in words]
    words = [item for word in words for item in (table_options[1:4] if word == "DATA" else [word])]
    with files_of_at_most(1000):
        outcome = radtransfer(*words, "--out", tmp_path / out)
    assert outcome.code == 5, outcome.err
    assert re.search(r"File too large \(.*1 kB: ulimit -f\)", outcome.err), outcome.err
    left = {path.name for path in tmp_path.rglob("*")}
    assert left <= ({"out", ".lock", "prepare.json"} if command == "prepare" else set())


def test_a_run_that_another_machine_holds_goes_on_with_break_lock(radtransfer, table_options, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    holder = {"process": 7, "host": "node17", "machine": "0", "started": "1", "since": "2026-01-31T12:00:00+00:00"}
    (out / ".lock-holder").write_text(json.dumps(holder))
    arguments = ("finetune", *table_options, "--folds", 1, "--epochs", 1, "--out", out)
    outcome = radtransfer(*arguments)
    assert outcome.code == 2
    assert "process 7 on node17, since 2026-01-31T12:00:00" in outcome.err and "--break-lock" in outcome.err
    outcome = radtransfer(*arguments, "--break-lock")
    assert outcome.code == 0, outcome.err
    assert not (out / ".lock-holder").exists()
    assert "RADTRANSFER_BREAK_LOCK" not in os.environ
