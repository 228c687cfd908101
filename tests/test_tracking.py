"""How trackers follow a run folder."""

import json

import pytest

from radtransfer.config.load import load_config
from radtransfer.errors import ConfigError
from radtransfer.process import Progress
from radtransfer.runs.folder import write_json, write_rows
from radtransfer.training import trackers as tracking
from radtransfer.training.trackers import TRACKERS, Tracker, check_trackers

HISTORY = ("epoch", "step", "loss", "val_auc")


class Recorder(Tracker):
    """Keeps what it is told; raises in the method named by `breaks`."""

    package, where = "json", "here"
    told: list = []
    breaks: str | None = None

    def _tell(self, *what):
        if what[0] == self.breaks:
            raise ValueError(f"no {self.breaks}\nwith details")
        self.told.append(what)

    def start(self, run, kept):
        self._tell("start", dict(kept))
        return {"id": "7"}

    def log(self, metrics, *, step):
        self._tell("log", step, metrics)

    def conclude(self, metrics):
        self._tell("conclude", metrics)

    def end(self, status):
        self._tell("end", status)


class Notes(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(tracking, "TRACKERS", {"recorder": Recorder, "mlflow": Recorder})
    monkeypatch.setattr(Recorder, "told", [])
    return Recorder


def write_history(run, *rows, fold="fold_1"):
    (run / fold).mkdir(parents=True, exist_ok=True)
    write_rows(run / fold / "history.csv", HISTORY, rows)


def track(run, work, *, names=("recorder",)):
    """Track `run` while `work` is done on the tracked progress; gives the notes."""
    progress = Notes()
    config = load_config(options={"track": ",".join(names)})
    with tracking.tracked(config, run, progress) as tracked:
        tracked.plan({"data": "48 images"})
        work(tracked)
    return progress.notes


def tell_epoch(progress):
    progress.epoch(1, 1, 2, {})


def test_every_epoch_test_and_result_is_shown_once(recorder, tmp_path):
    def work(progress):
        write_history(tmp_path, (1, 6, 0.7, 0.5))
        tell_epoch(progress)
        write_history(tmp_path, (1, 6, 0.7, 0.5), (2, 12, 0.6, ""))
        tell_epoch(progress)
        write_json(
            tmp_path / "fold_1" / "metrics.json",
            {"auc": 0.9, "per_class": {"a,b": 0.8}, "seed": 3, "none": None, "val": {"auc": 0.7}},
        )
        progress.fold(1, 1, {})
        write_json(tmp_path / "metrics.json", {"auc": {"mean": 0.9, "ci95": [0.1, 0.2]}, "n_images": 48})

    track(tmp_path, work)
    assert recorder.told == [
        ("start", {}),
        ("log", 6, {"epoch/fold_1": 1, "loss/fold_1": 0.7, "val_auc/fold_1": 0.5}),
        ("log", 12, {"epoch/fold_1": 2, "loss/fold_1": 0.6}),
        ("log", 12, {"test_auc/fold_1": 0.9, "test_per_class_a_b/fold_1": 0.8, "best_val_auc/fold_1": 0.7}),
        ("conclude", {"run/auc_mean": 0.9, "run/n_images": 48}),
        ("end", "finished"),
    ]


def test_a_resumed_run_goes_on_and_catches_up(recorder, tmp_path):
    def stopped(progress):
        write_history(tmp_path, (1, 6, 0.7, 0.5))
        tell_epoch(progress)
        write_history(tmp_path, (1, 6, 0.7, 0.5), (2, 12, 0.6, 0.6))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track(tmp_path, stopped)
    state = json.loads((tmp_path / "trackers" / "state.json").read_text())
    state["recorder"]["shown"]["fold_1"] = 1  # killed before it came to show the second epoch
    write_json(tmp_path / "trackers" / "state.json", state)
    assert recorder.told[-1] == ("end", "interrupted")
    recorder.told.clear()

    track(tmp_path, lambda progress: None)
    assert [item[:2] for item in recorder.told] == [("start", {"id": "7"}), ("log", 12), ("end", "finished")]


def test_the_head_phase_has_series_of_its_own(recorder, tmp_path):
    write_history(tmp_path, (1, 6, 0.7, 0.5), fold="fold_2/head_phase")
    write_history(tmp_path, (1, 6, 0.6, 0.6), fold="fold_2")
    track(tmp_path, lambda progress: None)
    names = [set(item[2]) for item in recorder.told if item[0] == "log"]
    assert names == [
        {"head_epoch/fold_2", "head_loss/fold_2", "head_val_auc/fold_2"},
        {"epoch/fold_2", "loss/fold_2", "val_auc/fold_2"},
    ]


@pytest.mark.parametrize("breaks", ["start", "log", "conclude", "end"])
def test_a_tracker_that_fails_is_left_out_and_told_once(recorder, monkeypatch, tmp_path, breaks):
    class Broken(Recorder):
        told = []

    monkeypatch.setattr(Broken, "breaks", breaks)
    monkeypatch.setitem(tracking.TRACKERS, "recorder", Broken)

    def work(progress):
        for epoch in (1, 2):
            write_history(tmp_path, *((i, 6 * i, 0.7, 0.5) for i in range(1, epoch + 1)))
            tell_epoch(progress)
        write_json(tmp_path / "metrics.json", {"auc": {"mean": 0.9}})

    notes = track(tmp_path, work, names=("recorder", "mlflow"))
    assert [text for text in notes if "failed" in text] == [
        f"recorder failed and is off until the run is resumed; training continues: no {breaks}"
    ]
    assert [item[0] for item in recorder.told] == ["start", "log", "log", "conclude", "end"]  # the other one goes on


def test_a_damaged_state_stops_no_training(recorder, tmp_path):
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "state.json").write_text("[", encoding="utf-8")
    done = []
    notes = track(tmp_path, lambda progress: done.append(True))
    assert done and "recorder failed" in notes[0]


def test_without_trackers_nothing_is_written(tmp_path):
    progress = Progress()
    with tracking.tracked(load_config(), tmp_path, progress) as same:
        assert same is progress
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(TRACKERS["wandb"], "package", "no_such_package")
    with pytest.raises(ConfigError, match=r"--track wandb: not installed. Run: pip install 'radtransfer\[track\]'"):
        check_trackers(("wandb",))
