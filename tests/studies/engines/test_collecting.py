import json
import os
from pathlib import Path

import pytest

from radtransfer.config.load import load_config
from radtransfer.config.yaml_text import write_yaml
from radtransfer.errors import RunInUseError
from radtransfer.runs.folder import write_json, write_text
from radtransfer.runs.lock import locked
from radtransfer.studies import engines as collecting
from radtransfer.studies import engines as mailbox
from radtransfer.studies.engines import Mailbox, Outcome, compute_remotely

RUN, SOURCE = "0123456789ab", "ba9876543210"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(mailbox, "CHUNK", 1000)
    monkeypatch.setattr(collecting, "CHUNK", 1000)
    store = tmp_path / "my store"
    (store / SOURCE / "fold_1").mkdir(parents=True)
    (store / SOURCE / "fold_1" / "model.keras").write_bytes(os.urandom(2500))
    write_json(store / SOURCE / "run.json", {"status": "finished", "out": str(store / SOURCE)})
    return store


def caller(box):
    return lambda method, *arguments: getattr(box, method)(*arguments)


def compute(box, store, attempt=1, tell=lambda *_: None):
    config = load_config(sets=(f"model.weights={store / SOURCE}",))
    return compute_remotely(caller(box), RUN, attempt, config, store / RUN, tell)


def record(folder, status, weights):
    """What a run says of itself, with paths in it."""
    write_text(folder / "config.yaml", write_yaml({"out": str(folder), "model": {"weights": weights}}))
    write_json(folder / "run.json", {"status": status, "weights": {"file": f"{weights}/fold_1/model.keras"}})


def test_a_run_is_computed_in_a_copy_and_stands_in_the_store_as_if_computed_there(store, monkeypatch):
    sent = os.urandom(2000)
    seen, places = [], []

    def run_cell(config, path, *, progress):
        weights = Path(config.model.weights)
        places.append(path)
        assert store not in path.parents
        model = (weights / "fold_1" / "model.keras").read_bytes()
        assert model == (store / SOURCE / "fold_1" / "model.keras").read_bytes()
        assert json.loads((weights / "run.json").read_text())["out"] == str(weights)
        (path / "fold_1").mkdir()
        (path / "fold_1" / "checkpoint.npz").write_bytes(sent)
        (path / "fold_1" / "empty.csv").touch()
        record(path, "running", str(weights))
        progress.fold(1, 2, {})
        seen.append((store / RUN / "fold_1" / "checkpoint.npz").read_bytes())
        (path / "fold_1" / "checkpoint.npz").unlink()
        record(path, "finished", str(weights))
        return Outcome("partly", f"{path}/metrics.json holds the others", 6)

    monkeypatch.setattr(collecting, "run_cell", run_cell)
    told = []
    box = Mailbox(store)
    outcome = compute(box, store, tell=lambda name, _: told.append(name))
    assert outcome == Outcome("partly", f"{store / RUN}/metrics.json holds the others", 6)
    assert (seen, told) == ([sent], ["fold"])
    assert sorted(box.files(RUN)) == ["config.yaml", "fold_1/empty.csv", "run.json"]
    found = {name: (store / RUN / name).read_bytes() for name in ("config.yaml", "run.json")}
    record(store / RUN, "finished", str(store / SOURCE))
    assert {name: (store / RUN / name).read_bytes() for name in found} == found
    assert not places[0].exists()
    with locked(store / RUN):
        pass


def test_a_run_goes_on_from_what_the_store_holds_and_an_interrupted_one_is_sent_back(store, monkeypatch):
    (store / RUN).mkdir()
    record(store / RUN, "interrupted", str(store / SOURCE))

    def run_cell(config, path, *, progress):
        begun = json.loads((path / "run.json").read_text())
        assert begun["weights"]["file"] == f"{config.model.weights}/fold_1/model.keras"
        (path / "checkpoint.npz").write_bytes(b"further")
        raise KeyboardInterrupt

    monkeypatch.setattr(collecting, "run_cell", run_cell)
    with pytest.raises(KeyboardInterrupt):
        compute(Mailbox(store), store)
    assert (store / RUN / "checkpoint.npz").read_bytes() == b"further"
    assert json.loads((store / RUN / "run.json").read_text())["weights"]["file"].startswith(str(store))


def test_a_run_that_another_process_computes_is_busy(store):
    (store / RUN).mkdir()
    with locked(store / RUN):
        outcome = compute(Mailbox(store), store)
    assert outcome.status == "busy"


def test_an_attempt_that_was_given_up_changes_nothing(store):
    box = Mailbox(store)
    box.open(RUN, 1)
    box.write(RUN, 1, "run.json", 0, b"old")
    box.open(RUN, 2)
    for call in (
        lambda: box.write(RUN, 1, "run.json", 0, b"old"),
        lambda: box.keep(RUN, 1, ["run.json"], []),
        lambda: box.close(RUN, 1),
    ):
        with pytest.raises(RunInUseError, match="continues on another machine"):
            call()
    box.write(RUN, 2, "run.json", 0, b"new")
    box.keep(RUN, 2, ["run.json"], [])
    box.close(RUN, 2)
    with pytest.raises(RunInUseError, match="continues on another machine"):
        box.open(RUN, 1)
    assert (store / RUN / "run.json").read_bytes() == b"new"
    assert list(box.files(RUN)) == ["run.json"]


def test_files_that_say_how_far_a_run_is_are_kept_last(store):
    for name in ("fold_1/metrics.json", "fold_1/model.keras", "run.json", "predictions.csv", ".lock"):
        file = store / RUN / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    names = list(Mailbox(store).files(RUN))
    assert names == ["fold_1/model.keras", "predictions.csv", "fold_1/metrics.json", "run.json"]


def test_a_mailbox_that_was_started_again_goes_on(store):
    before = Mailbox(store)
    before.open(RUN, 1)
    before.write(RUN, 1, "model.keras", 0, b"abc")
    before.write(RUN, 1, "model.keras", 3, b"def")
    before._locks[RUN].close()  # as when its process ends
    box = Mailbox(store)
    box.write(RUN, 1, "model.keras", 3, b"def")
    with pytest.raises(RunInUseError), locked(store / RUN):
        pass
    for _ in range(2):
        box.keep(RUN, 1, ["model.keras"], ["gone"])
    box.close(RUN, 1)
    assert (store / RUN / "model.keras").read_bytes() == b"abcdef"
