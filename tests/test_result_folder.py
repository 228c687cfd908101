import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from radtransfer.errors import DiskError, RunError
from radtransfer.files import atomic_folder, check_new, check_out

RESULT = ("a.csv", "b.csv", "cross_*.png", "figures/*.png")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_result(out, text, *names):
    with atomic_folder(out, RESULT, last="a.csv") as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)


def of_others(out, kind):
    """What others have in the folder: it decides how the new files take their places."""
    if kind == "files":
        (out / "notes.txt").write_text("mine")
        (out / "figures" / "sketch.svg").write_text("mine")
    elif kind == "folders":
        (out / "more" / "empty").mkdir(parents=True)
        (out / "more" / "notes.txt").write_text("mine")
    return {name: "mine" for name in contents(out) if (out / name).read_text() == "mine"}


def test_a_folder_is_made_with_its_parents(tmp_path):
    write_result(tmp_path / "a" / "b", "1", "a.csv")
    assert contents(tmp_path) == {"a/b/a.csv": "1"}


@pytest.mark.parametrize("others", ["none", "files", "folders"])
def test_a_new_result_takes_the_place_of_all_of_the_earlier_one(tmp_path, others):
    out = tmp_path / "out"
    write_result(out, "1", "a.csv", "b.csv", "figures/x.png", "figures/y.png")
    theirs = of_others(out, others)
    write_result(out, "2", "a.csv", "cross_cka.png", "figures/x.png")
    assert contents(tmp_path) == {
        f"out/{name}": text
        for name, text in ({"a.csv": "2", "cross_cka.png": "2", "figures/x.png": "2"} | theirs).items()
    }


@pytest.mark.parametrize("others", ["none", "files", "folders"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("a bug")])
def test_a_result_that_stops_half_way_leaves_the_earlier_one(tmp_path, others, error):
    out = tmp_path / "out"
    write_result(out, "1", "a.csv", "b.csv", "figures/x.png")
    of_others(out, others)
    before = contents(tmp_path)
    with pytest.raises((DiskError, KeyboardInterrupt, ValueError)), atomic_folder(out, RESULT) as folder:
        (folder / "a.csv").write_text("2")
        raise error
    assert contents(tmp_path) == before
    with pytest.raises((DiskError, KeyboardInterrupt, ValueError)), atomic_folder(tmp_path / "x" / "y") as folder:
        raise error
    assert contents(tmp_path) == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("others", ["none", "files", "folders"])
def test_an_interrupt_or_error_while_files_take_their_places_takes_all_of_it_back(tmp_path, others, monkeypatch):
    out = tmp_path / "out"
    write_result(out, "1", "a.csv", "b.csv", "figures/x.png")
    theirs = of_others(out, others)
    before, after = {"a.csv": "1", "b.csv": "1", "figures/x.png": "1"}, {"a.csv": "2", "figures/z.png": "2"}
    for number in range(20):
        left, replace = [number], os.replace

        def fail(source, target, *, left=left, replace=replace, **_):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", fail)
            try:
                write_result(out, "2", "a.csv", "figures/z.png")
            except KeyboardInterrupt:
                assert contents(tmp_path) == {f"out/{name}": text for name, text in (before | theirs).items()}
                continue
        break
    assert contents(tmp_path) == {f"out/{name}": text for name, text in (after | theirs).items()}


@pytest.mark.skipif(sys.platform != "linux", reason="folders cannot be exchanged in one step")
@pytest.mark.parametrize("others", ["none", "files"])
def test_a_kill_at_any_file_operation_leaves_the_earlier_result_or_the_new_one(tmp_path, others):
    out, code = tmp_path / "out", KILLED
    whole = {"a.csv": "2", "figures/x.png": "2"}
    outcomes = set()
    for number in range(60):
        write_result(out, "1", "a.csv", "b.csv", "figures/x.png")
        theirs = of_others(out, others)
        done = subprocess.run([sys.executable, "-c", code, str(out), str(number)], capture_output=True, text=True)
        found = contents(out)
        earlier = {"a.csv": "1", "b.csv": "1", "figures/x.png": "1"}
        assert found in (earlier | theirs, whole | theirs), number
        outcomes.add(found["a.csv"])
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
    assert outcomes == {"1", "2"}
    assert list(tmp_path.iterdir()) == [out]


KILLED = """
import os, pathlib, signal, sys
from radtransfer.files import atomic_folder

out, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def kill(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "open", "ctypes.call_function"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
with atomic_folder(out, ("a.csv", "b.csv", "figures/*.png")) as folder:
    (folder / "a.csv").write_text("2")
    (folder / "figures").mkdir()
    (folder / "figures" / "x.png").write_text("2")
"""


def test_what_a_killed_process_left_goes_with_the_next_result(tmp_path):
    code = "import os, sys, pathlib\nfrom radtransfer.files import atomic_folder\n"
    code += "with atomic_folder(pathlib.Path(sys.argv[1])) as folder:\n    os._exit(9)\n"
    subprocess.run([sys.executable, "-c", code, tmp_path / "out"])
    assert [path.name[:6] for path in tmp_path.iterdir()] == [".part-"]
    write_result(tmp_path / "out", "1", "a.csv")
    assert contents(tmp_path) == {"out/a.csv": "1"}


def test_results_in_the_current_folder_and_through_a_link_stay_there(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_result(tmp_path / "link", "1", "a.csv")
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "real")
    inode = Path.cwd().stat().st_ino
    write_result(Path(), "2", "a.csv", "b.csv")
    assert (tmp_path / "real").stat().st_ino == inode
    assert contents(tmp_path / "real") == {"a.csv": "2", "b.csv": "2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_keeps_its_rights(tmp_path):
    (tmp_path / "out").mkdir(mode=0o750)
    write_result(tmp_path / "out", "1", "a.csv")
    write_result(tmp_path / "out", "2", "a.csv")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_checking_makes_nothing(tmp_path):
    check_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "run", "below a file"])
def test_a_run_or_a_file_is_refused(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "run":
        out.mkdir()
        (out / "run.json").write_text("{}")
    else:
        out.write_text("")
        out = out / "below" if kind == "below a file" else out
    with pytest.raises(RunError, match="Choose another"):
        check_out(out)


def test_an_earlier_result_is_refused_unless_it_may_be_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    check_new(tmp_path, ["a.csv", "b.csv"], overwrite=False)
    (tmp_path / "b.csv").write_text("")
    check_new(tmp_path, ["a.csv", "b.csv"], overwrite=True)
    with pytest.raises(RunError, match=r"b\.csv exists\. Use --overwrite"):
        check_new(tmp_path, ["a.csv", "b.csv"], overwrite=False)


def test_a_star_stands_for_any_letters(tmp_path):
    (tmp_path / "cross_cka.png").write_text("")
    check_new(tmp_path / "nowhere", ["cross_*.png"], overwrite=False)
    with pytest.raises(RunError, match=r"cross_cka\.png exists"):
        check_new(tmp_path, ["a.csv", "cross_*.png"], overwrite=False)
