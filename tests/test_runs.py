import json
import subprocess
import sys

import pytest

from radtransfer.config.load import config_values, load_config
from radtransfer.errors import RunError
from radtransfer.runs.folder import atomic_write, find_fold, open_run, read_run, write_json, write_rows, write_text

SETTINGS = config_values(load_config(sets=("training.epochs=5",)))


@pytest.fixture
def run_folder(tmp_path):
    """A run of fold 1 and 2, fold 3 not finished."""
    out = tmp_path / "run"
    with open_run(out, SETTINGS) as run:
        run.begin(SETTINGS)
        for number in (1, 2):
            write_json(run.fold(number) / "metrics.json", {})
        run.fold(3)
    return out


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="boom"), atomic_write(path) as part:
        part.write_text("new, half")
        raise ValueError("boom")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_a_table_for_people_holds_no_formula_and_one_for_commands_every_name_as_it_is(tmp_path):
    rows = [["=HYPERLINK(1)", -0.5, "-0.5"], ["@x", None, "ok"]]
    for for_people, mark in ((True, "'"), (False, "")):
        write_rows(tmp_path / "a.csv", ["path", "+label", "auc"], rows, for_people=for_people)
        first, *lines = (tmp_path / "a.csv").read_text().splitlines()
        assert first == f"path,{mark}+label,auc"
        assert lines == [f"{mark}=HYPERLINK(1),-0.5,-0.5", f"{mark}@x,,ok"]


def test_json_refuses_what_json_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_an_existing_run_is_never_touched_without_a_flag(run_folder):
    with pytest.raises(RunError, match="Use --resume to continue it, --overwrite"), open_run(run_folder, SETTINGS):
        pass
    assert (run_folder / "fold_2" / "metrics.json").exists()


def test_overwrite_replaces_the_run_only_once_the_new_one_begins(run_folder):
    (run_folder / "notes.txt").write_text("mine")
    with open_run(run_folder, SETTINGS, overwrite=True) as run:
        assert run.record == {}
        assert (run_folder / "fold_2" / "metrics.json").exists()
        run.begin(SETTINGS)
        assert {item.name for item in run_folder.iterdir()} == {".lock", "config.yaml", "run.json", "notes.txt"}


def test_overwrite_refuses_a_folder_that_is_not_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("three years of work")
    with (
        pytest.raises(RunError, match=r"thesis\.tex.*Nothing was written"),
        open_run(tmp_path, SETTINGS, overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_resume_goes_on_and_starts_where_there_is_nothing(run_folder, tmp_path):
    with open_run(run_folder, SETTINGS, resume=True) as run:
        assert run.record["status"] == "running"
    with open_run(tmp_path / "new", SETTINGS, resume=True) as run:
        assert run.record == {}


def test_resume_with_other_settings_names_the_difference(run_folder):
    changed = config_values(load_config(sets=("training.epochs=6",)))
    with pytest.raises(RunError, match=r"training\.epochs 5 → 6"), open_run(run_folder, changed, resume=True):
        pass


def test_resume_may_decode_with_another_number_of_workers(run_folder):
    changed = config_values(load_config(sets=("training.epochs=5", "system.workers=7")))
    with open_run(run_folder, changed, resume=True) as run:
        assert run.record["status"] == "running"


def test_a_second_process_is_refused_and_the_lock_dies_with_its_process(tmp_path):
    out = tmp_path / "run"
    code = (
        "import sys, pathlib; from radtransfer.runs.folder import open_run\n"
        f"with open_run(pathlib.Path({str(out)!r}), {{}}): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with (
            pytest.raises(RunError, match=f"in use by another process .process {holder.pid}"),
            open_run(out, {}),
        ):
            pass
        holder.kill()
    with open_run(out, {}):
        pass


def test_a_damaged_record_is_an_error_not_a_new_run(run_folder):
    (run_folder / "run.json").write_text('{"status": "fin')
    with pytest.raises(RunError, match="cannot be read"):
        read_run(run_folder)


def test_a_fold_is_found_by_path_or_number(run_folder):
    assert find_fold(run_folder / "fold_2") == (run_folder, 2)
    assert find_fold(run_folder, fold=1) == (run_folder, 1)


def test_a_fold_must_be_named_where_there_are_several(run_folder):
    with pytest.raises(RunError, match=r"it has 2 finished folds. Finished folds: 1, 2"):
        find_fold(run_folder)
    with pytest.raises(RunError, match="fold 3 is not finished"):
        find_fold(run_folder, fold=3)


def test_a_folder_without_record_is_not_a_run(tmp_path):
    with pytest.raises(RunError, match=r"expected a run\.json"):
        find_fold(tmp_path)


def test_leftovers_of_a_killed_writer_are_removed(run_folder):
    write_text(run_folder / ".part-99-model.keras", "half")
    with open_run(run_folder, SETTINGS, resume=True):
        assert not (run_folder / ".part-99-model.keras").exists()
    assert json.loads((run_folder / "run.json").read_text())["status"] == "running"


def test_a_setting_that_came_later_does_not_block_resuming(run_folder):
    config = run_folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "momentum" not in line))
    with open_run(run_folder, SETTINGS, resume=True) as run:
        assert run.record["status"] == "running"


def test_an_overwriting_that_is_killed_leaves_nothing_that_calls_itself_finished(tmp_path, monkeypatch):
    from radtransfer.runs import folder as runs

    out = tmp_path / "run"
    with open_run(out, {}) as run:
        run.begin({})
        run.update(status="finished")
        run.fold(1)
    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), open_run(out, {}, overwrite=True) as run:
            run.begin({})
    assert read_run(out)["status"] == "replaced"
    with open_run(out, {"seed": 1}, resume=True) as run:
        assert not run.finished
        run.begin({"seed": 1})
    assert not (out / "fold_1").exists()
    assert read_run(out)["status"] == "running"
