import json
import socket
import threading

import pytest
from distributed_command import free_hosts

from radtransfer.config.schema import SystemSettings
from radtransfer.errors import ConfigError, WorkerLostError
from radtransfer.training.cluster import Cluster, find_cluster, wait_for_workers
from radtransfer.training.distributed import join

HOSTS = ("one:2222", "two:2222")


def settings(**values):
    return SystemSettings(distribute="multiworker", **values)


def test_the_settings_name_the_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert find_cluster(settings(hosts=HOSTS, worker_index=1)) == Cluster(HOSTS, 1)


@pytest.mark.parametrize(("kind", "index", "number"), [("chief", 0, 0), ("worker", 1, 2)])
def test_tf_config_may_have_a_chief(monkeypatch, kind, index, number):
    cluster = {"chief": ["zero:1"], "worker": list(HOSTS)}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    assert find_cluster(settings()) == Cluster(("zero:1", *HOSTS), number)


@pytest.mark.parametrize(
    ("values", "environment", "message"),
    [
        ({}, None, "neither"),
        ({"hosts": HOSTS}, None, "--worker-index"),
        ({"hosts": HOSTS, "worker_index": 2}, None, "from 0 to 1"),
        ({"hosts": HOSTS[:1], "worker_index": 0}, None, "two or more"),
        ({"hosts": ("one", "two:2"), "worker_index": 0}, None, "HOST:PORT for each"),
        ({"hosts": ("one:0", "two:2"), "worker_index": 0}, None, "HOST:PORT for each"),
        ({}, "{", "TF_CONFIG: expected"),
        ({}, '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "TF_CONFIG: expected"),
        (
            {"worker_index": 1},
            json.dumps({"cluster": {"worker": HOSTS}, "task": {"type": "worker", "index": 0}}),
            "already contains an index",
        ),
    ],
)
def test_what_is_no_cluster_is_refused(monkeypatch, values, environment, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if environment is not None:
        monkeypatch.setenv("TF_CONFIG", environment)
    with pytest.raises(ConfigError, match=message):
        find_cluster(settings(**values))


@pytest.mark.parametrize("values", [{"hosts": HOSTS}, {"worker_index": 0}, {"hosts": HOSTS, "distribute": "mirrored"}])
def test_workers_belong_to_multiworker(values):
    with pytest.raises(ConfigError, match="needs --distribute multiworker"):
        join(SystemSettings(**values))


def test_workers_wait_for_each_other():
    hosts, came = tuple(free_hosts(2)), []
    first = threading.Thread(target=lambda: came.append(wait_for_workers(Cluster(hosts, 0), print)), daemon=True)
    first.start()
    first.join(0.5)
    assert not came
    # As a worker that found the first and went on: TensorFlow listens at its port.
    with socket.create_server(("127.0.0.1", int(hosts[1].rpartition(":")[2]))):
        first.join(10)
    assert came


def test_a_worker_that_does_not_come_is_named():
    hosts, told = tuple(free_hosts(2)), []
    with pytest.raises(WorkerLostError, match=f"waited 0 minutes for worker 1 \\({hosts[1]}\\)"):
        wait_for_workers(Cluster(hosts, 0), told.append, timeout=0.1)


def test_a_port_that_is_taken_is_told():
    hosts = tuple(free_hosts(2))
    with (
        socket.create_server(("", int(hosts[0].rpartition(":")[2]))),
        pytest.raises(ConfigError, match=f"worker 0 of 2 \\({hosts[0]}\\): its port cannot be used"),
    ):
        wait_for_workers(Cluster(hosts, 0), print)
