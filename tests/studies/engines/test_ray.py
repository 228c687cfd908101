from types import SimpleNamespace

import pytest

from radtransfer.config.load import load_config
from radtransfer.studies import ray as engines
from radtransfer.studies.engines import Mailbox, Outcome
from radtransfer.studies.ray import ATTEMPTS, RayEngine


class RayError(Exception):
    pass


class OutOfMemoryError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class RayActorError(RayError):
    pass


class Ray:
    """Ray where every task ends at once, in the next of some ways."""

    exceptions = SimpleNamespace(
        RayError=RayError, OutOfMemoryError=OutOfMemoryError, RayTaskError=RayTaskError, RayActorError=RayActorError
    )

    def __init__(self, *ends):
        self.ends, self.tasks, self.options = list(ends), [], None

    def remote(self, **options):
        self.options = options
        handle = SimpleNamespace(remote=self._start)
        handle.options = lambda **_: handle
        return lambda function: handle

    def _start(self, task, mailbox):
        self.tasks.append(task)
        mailbox.box.post(task.key, task.attempt, "count", ("images checked", 1, 2))
        return object()

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, what):
        if isinstance(what, list):  # from the mailbox
            return what
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Makes an engine whose tasks end so; time passes when it waits."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(engines, "time", clock)

    def start_mailbox(self):
        box = Mailbox(self._store)
        return SimpleNamespace(box=box, take=SimpleNamespace(remote=box.take))

    monkeypatch.setattr(RayEngine, "_start_mailbox", start_mailbox)

    def make(*ends, **options):
        cluster = SimpleNamespace(ray=Ray(*ends), room=lambda **_: 3)
        return RayEngine(cluster, store=tmp_path / "store", **options)

    return make


def outcome_of(engine, tmp_path, sets=()):
    """What becomes of a run, and what is told of it."""
    told = []
    engine.submit("key", load_config(sets=sets), tmp_path / "store" / "key")
    for _ in range(1000):
        for key, outcome in engine.wait(lambda key, name, arguments: told.append((name, arguments[0])), 1.0):
            assert key == "key"
            return outcome, told
    raise TimeoutError


def test_a_run_that_is_lost_is_tried_again(engine, tmp_path):
    runner = engine(RayError("node died"), OutOfMemoryError("killed"), Outcome("finished"))
    outcome, told = outcome_of(runner, tmp_path)
    assert outcome == Outcome("finished")
    notes = [text for name, text in told if name == "message"]
    assert notes == [
        "its process or machine was lost; trying again",
        "memory ran out; trying again",
    ]
    assert [task.attempt for task in runner._ray.tasks] == [1, 2, 3]
    assert [name for name, _ in told].count("count") == 3


def test_a_run_that_is_always_lost_has_failed(engine, tmp_path):
    runner = engine(*[RayError("The worker died.\nLogs: …")] * ATTEMPTS)
    outcome, _ = outcome_of(runner, tmp_path)
    assert (outcome.status, outcome.exit_code) == ("failed", 5)
    assert outcome.error == f"In each of {ATTEMPTS} attempts its process or machine was lost: The worker died."


def test_an_error_of_its_own_is_not_tried_again(engine, tmp_path):
    outcome, _ = outcome_of(engine(RayTaskError(ModuleNotFoundError("No module named 'radtransfer'"))), tmp_path)
    assert (outcome.status, outcome.exit_code) == ("failed", 5)
    assert outcome.error == "It could not be computed: No module named 'radtransfer'"


def test_a_run_asks_for_what_it_is_given_and_gets_a_process_of_its_own(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    options = engine(cpus=4, gpus=0.5)._ray.options
    assert (options["num_cpus"], options["num_gpus"], options["max_calls"]) == (4, 0.5, 1)
    environment = options["runtime_env"]["env_vars"]
    assert environment["TF_NUM_INTRAOP_THREADS"] == environment["OMP_NUM_THREADS"] == "4"
    assert environment["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert engine()._ray.options["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_runs_at_a_time_are_those_asked_for_or_those_that_fit(engine):
    assert engine(places=64).places == 64
    runner = engine()
    assert runner.places == 3
    runner._cluster.room = lambda **_: 5
    assert runner.places == 3
    engines.time.sleep(10)
    assert runner.places == 5


def test_a_run_has_full_paths(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.csv").touch()
    runner = engine(Outcome("finished"), cpus=2)
    outcome_of(runner, tmp_path, sets=("data.source=images.csv", "data.image_root=images"))
    (task,) = runner._ray.tasks
    assert task.config.data.source == str(tmp_path / "images.csv")
    assert task.config.data.image_root == str(tmp_path / "images")
    assert task.config.system.workers == 2
    assert task.probe.is_file()
