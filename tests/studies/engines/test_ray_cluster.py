import sys
from types import ModuleType, SimpleNamespace

import pytest

from radtransfer.errors import ConfigError
from radtransfer.studies.ray import Cluster


@pytest.fixture
def machines(monkeypatch):
    """The machines of a cluster to which this process is connected already."""
    nodes = []
    ray = ModuleType("ray")
    ray.exceptions, ray.init = SimpleNamespace(), None
    ray.is_initialized = lambda: True
    ray.nodes = lambda: nodes
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    return nodes


def node(cpus, gpus=0.0, alive=True):
    return {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("cpus", "gpus", "room"),
    [(1, 0, 20), (4, 0, 5), (3, 0, 6), (16, 0, 1), (17, 0, 0), (1, 1, 2), (1, 0.5, 4), (1, 0.1, 4 + 10), (8, 1, 1)],
)
def test_runs_fit_on_machines_not_across_them(machines, cpus, gpus, room):
    machines += [node(16.0, 1.0), node(4.0, 1.0), node(64.0, 8.0, alive=False), {"Alive": True, "Resources": {}}]
    assert Cluster().room(cpus=cpus, gpus=gpus) == room


def test_a_run_that_fits_nowhere_is_told_with_what_there_is(machines):
    machines += [node(2.0), node(4.0)]
    Cluster().check_room(cpus=4, gpus=0)
    with pytest.raises(ConfigError, match="has 4 CPUs and 1 GPUs for a run. Found: 2 CPUs and 0 GPUs, 4 CPUs and"):
        Cluster().check_room(cpus=4, gpus=1)


def test_a_study_is_not_led_from_outside_the_cluster(machines):
    with pytest.raises(ConfigError, match="a study must be started on a machine of the cluster"):
        Cluster("ray://head:10001")
