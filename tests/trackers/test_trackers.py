"""Each tracker with its real package: what it wrote is read back."""

import struct
import time

import pytest

from radtransfer.training.trackers import TRACKERS, TrackedRun, Tracker


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a run" / "trackers"
    folder.mkdir(parents=True)
    return TrackedRun("first", folder, {"training.epochs": 2, "out": None}, {"data": "48 images", "plan": "one\ntwo"})


@pytest.fixture(params=list(TRACKERS))
def tracker_class(request):
    pytest.importorskip(TRACKERS[request.param].package)
    return TRACKERS[request.param]


def events(folder):
    """(name, step) to the values that TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    assert b"48 images" in reader.Tensors("plan")[0].tensor_proto.string_val[0]
    names = [name for name in reader.Tags()["tensors"] if not name.startswith(("plan", "_hparams"))]
    return {
        (name, event.step): event.tensor_proto.float_val[0] if event.tensor_proto.float_val else _content(event)
        for name in names
        for event in reader.Tensors(name)
    }


def _content(event):
    return struct.unpack("<f", event.tensor_proto.tensor_content)[0]


def metrics(folder):
    from mlflow import MlflowClient

    client = MlflowClient(folder.as_uri())
    [experiment] = [item for item in client.search_experiments() if item.name == "radtransfer"]
    [made] = client.search_runs([experiment.experiment_id])
    assert made.info.run_name == "first" and made.info.status == "FINISHED"
    assert made.data.params["training.epochs"] == "2"
    assert "48 images" in made.data.tags["mlflow.note.content"]
    names = made.data.metrics
    return {(n, item.step): item.value for n in names for item in client.get_metric_history(made.info.run_id, n)}


def wandb_records(file):
    """The records of an offline W&B run: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def histories(folder):
    found, ids = {}, set()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(file):
            if record.HasField("run"):
                ids.add(record.run.run_id)
                assert record.run.display_name == "first" and "48 images" in record.run.notes
            if record.HasField("history"):
                row = {"/".join(item.nested_key) or item.key: float(item.value_json) for item in record.history.item}
                step = 0 if "run/auc_mean" in row else int(row["step"])
                found |= {(name, step): value for name, value in row.items() if name[0] not in "_s"}
    assert len(ids) == 1
    return found


READ = {"tensorboard": events, "mlflow": metrics, "wandb": histories}


def test_a_run_that_goes_on_is_one_run_with_every_point(tracker_class, run):
    tracker: Tracker = tracker_class()
    kept = tracker.start(run, {})
    assert kept and tracker.where
    tracker.log({"val_auc/fold_1": 0.5, "loss/fold_1": 2.0}, step=6)
    tracker.end("interrupted")
    time.sleep(1.1)  # W&B names what it writes by the second of its start

    tracker = tracker_class()
    assert tracker.start(run, kept) == kept
    tracker.log({"val_auc/fold_1": 0.75}, step=12)
    tracker.conclude({"run/auc_mean": 0.875})
    tracker.end("finished")

    expected = {
        ("val_auc/fold_1", 6): 0.5,
        ("loss/fold_1", 6): 2.0,
        ("val_auc/fold_1", 12): 0.75,
        ("run/auc_mean", 0): 0.875,
    }
    for _ in range(60):  # W&B's own process may still be writing
        if READ[tracker_class.package](run.folder) == expected:
            break
        time.sleep(0.5)
    assert READ[tracker_class.package](run.folder) == expected


def test_mlflow_goes_where_its_variables_say(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "breast")
    tracker = TRACKERS["mlflow"]()
    kept = tracker.start(run, {})
    tracker.end("failed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # a run goes on where it began
    tracker = TRACKERS["mlflow"]()
    assert tracker.start(run, kept) == kept
    tracker.log({"loss": 1.0}, step=1)
    made = mlflow.MlflowClient((tmp_path / "server").as_uri()).get_run(kept["run_id"])
    assert made.data.metrics == {"loss": 1.0} and made.info.status == "RUNNING"
    assert list(run.folder.iterdir()) == []


def test_wandb_can_be_turned_off_by_its_variable(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = TRACKERS["wandb"]()
    tracker.start(run, {})
    tracker.log({"loss": 1.0}, step=1)
    tracker.end("finished")
    assert tracker.where == "disabled"
    assert not list(run.folder.rglob("*.wandb"))
