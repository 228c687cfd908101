"""Ray nodes on this machine, as a program: it makes them, says where they are, and does what it is told on stdin.

kill    the second node is gone at once, like a machine that lost its power
idle    says how much of the cluster is in use, and how many actors live
"""

import logging
import os
import subprocess
import sys
from contextlib import contextmanager


class Nodes:
    """Two nodes with a core each, which another process holds."""

    def __init__(self, process):
        self._process = process
        self.address = self._answer()

    def kill_second(self):
        self._tell("kill")
        assert self._answer() == "killed"

    def in_use(self):
        """Cores in use, and actors alive."""
        self._tell("idle")
        cores, actors = self._answer().split()
        return float(cores), int(actors)

    def _tell(self, what):
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def _answer(self):
        """The next line that is ours, and not Ray's."""
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise EOFError(self._process.stderr.read())


@contextmanager
def two_nodes():
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            yield Nodes(process)
        finally:
            process.stdin.close()
            process.wait(60)


def main():
    # What else the machine computes is not to end these tests.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112  Ray spells it so
    import ray
    from ray.cluster_utils import Cluster

    # A lost node is noticed after seconds rather than half a minute.
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args=node | {"_system_config": checks, "include_dashboard": False}
    )
    second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    say(cluster.address)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
            say("killed")
        elif line.strip() == "idle":
            ray.init(cluster.address, logging_level=logging.CRITICAL, log_to_driver=False)
            used = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
            alive = [actor for actor in ray._private.state.actors().values() if actor["State"] != "DEAD"]
            ray.shutdown()
            say(f"{used} {len(alive)}")
    cluster.shutdown()


def say(text):
    print(f"> {text}", flush=True)


if __name__ == "__main__":
    main()
