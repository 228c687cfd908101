"""Who holds a folder: by a lock of the system, or by a file where the file system has no locks."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest

from radtransfer.errors import DiskError, RunInUseError
from radtransfer.runs.lock import HOLDER, breaking_locks, locked

fcntl = pytest.importorskip("fcntl")

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def refusing(number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture
def no_locks(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))


HOLDING = """
import errno, fcntl, os, pathlib, sys
from radtransfer.errors import RunInUseError
from radtransfer.runs.lock import locked

def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = flock
sys.stdin.readline()
try:
    with locked(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except RunInUseError as error:
    print("busy", flush=True)
"""


def holding(out):
    return subprocess.Popen([sys.executable, "-c", HOLDING, out], stdin=-1, stdout=-1, text=True)


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def killed_holder(out):
    process = holding(out)
    go(process)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    return process.pid


def holder_elsewhere(out):
    facts = {"process": 7, "host": "node17", "machine": "0", "started": "1", "since": "2026-01-31T12:00:00+00:00"}
    (out / HOLDER).write_text(json.dumps(facts))


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_process_holds_is_busy(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(RunInUseError, match="in use by another process"), locked(tmp_path):
        pass
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    for _ in range(2):
        with locked(tmp_path):
            holder = json.loads((tmp_path / HOLDER).read_text())
            assert (holder["process"], holder["host"]) == (os.getpid(), socket.gethostname())
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_without_locks_a_running_process_is_named_and_one_that_was_killed_is_taken_over(tmp_path, no_locks):
    process = holding(tmp_path)
    go(process)
    assert process.stdout.readline() == "held\n"
    told = rf"in use by another process \(process {process.pid} on {socket.gethostname()}, since .*still running"
    for _ in range(2):
        with pytest.raises(RunInUseError, match=told), breaking_locks(), locked(tmp_path):
            pass
    process.kill()
    process.communicate()
    with locked(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()


def test_without_locks_the_same_process_holds_a_folder_once(tmp_path, no_locks):
    with locked(tmp_path), pytest.raises(RunInUseError, match="still running"), locked(tmp_path):
        pass


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path, no_locks):
    killed_holder(tmp_path)
    facts = json.loads((tmp_path / HOLDER).read_text())
    (tmp_path / HOLDER).write_text(json.dumps(facts | {"process": os.getpid()}))
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("text", [None, "", "{}", "process 7", '{"process": "x"}'])
def test_what_a_process_of_another_machine_holds_is_explained_and_can_be_broken(tmp_path, no_locks, text):
    holder_elsewhere(tmp_path)
    if text is not None:
        (tmp_path / HOLDER).write_text(text)
    who = r"process 7 on node17, since 2026-01-31T12:00:00\+00:00" if text is None else "unknown which"
    with pytest.raises(RunInUseError, match=rf"{who}.*no locks.*--break-lock"), locked(tmp_path):
        pass
    with breaking_locks(), locked(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_holder_on_a_machine_without_locks_is_seen_by_one_with_locks(tmp_path):
    holder_elsewhere(tmp_path)
    with pytest.raises(RunInUseError, match="node17"), locked(tmp_path):
        pass


def test_of_processes_that_find_the_same_dead_holder_one_takes_over(tmp_path):
    for _ in range(3):
        killed_holder(tmp_path)
        processes = [holding(tmp_path) for _ in range(5)]
        for process in processes:
            go(process)
        said = [process.stdout.readline() for process in processes]
        assert sorted(said) == ["busy\n"] * 4 + ["held\n"]
        for process in processes:
            process.communicate("\n")
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_one_that_was_killed_while_it_took_over_blocks_nobody(tmp_path, no_locks, monkeypatch):
    killed_holder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("radtransfer.runs.lock.atomic_write", lambda _: os._exit(9))
        pid = os.fork()
        if pid == 0:
            with locked(tmp_path):
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert len(list(tmp_path.glob(f"{HOLDER}*"))) == 2
    with locked(tmp_path):
        pass


def test_a_lock_file_that_finds_no_room_is_a_full_disk_and_is_not_left(tmp_path, no_locks, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskError, match="No space left"), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
