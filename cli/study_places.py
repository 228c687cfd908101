"""Where `radtransfer study` computes its runs: what --jobs, --ray, --cpus-per-run and --gpus-per-run say together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from radtransfer.cli.tensorflow import import_tensorflow

if TYPE_CHECKING:
    from radtransfer.studies.engines.engine import Engine

DEFAULT_CLUSTER = ""
"""What `--ray` without an address stands for."""


@dataclass(frozen=True)
class Places:
    """The options as they were given; None where one was not.

    Attributes:
        jobs: Runs at a time; 0 for this process.
        cluster: Address of a Ray cluster, or `DEFAULT_CLUSTER`.
        cpus: Of each run.
        gpus: Of each run.
    """

    jobs: int | None
    cluster: str | None
    cpus: int | None
    gpus: float | None

    def check(self) -> None:
        """Refuse what does not go together, before anything else is done.

        Raises:
            click.UsageError: It does not.
            ConfigError: Ray is asked for and not installed.
        """
        if self.cluster is None and self.gpus is not None:
            raise click.UsageError("--gpus-per-run needs --ray: nothing else hands out GPUs.")
        if self.jobs == 0 and self.cluster is not None:
            raise click.UsageError("--jobs 0 is this process, --ray is others. Leave one away.")
        if self.jobs == 0 and self.cpus is not None:
            raise click.UsageError("--cpus-per-run needs runs in processes of their own. Received: --jobs 0.")
        if self.cluster is not None:
            from radtransfer.studies.engines.ray_cluster import require_ray

            require_ray()

    def engine(self, store: Path, *, note: Callable[[str], None]) -> "Engine":
        """Where the runs of `store` are computed; `note` hears what the user should know of it."""
        if self.cluster is not None:
            return self._ray_engine(store, note)
        if self.jobs == 0:
            from radtransfer.studies.engines.in_process import InProcess

            import_tensorflow()
            return InProcess()
        from radtransfer.studies.engines.local import Workers

        return Workers(self.jobs or 1, prepare=import_tensorflow, threads=self.cpus)

    def words(self) -> list[str]:
        """The options as they are typed."""
        if self.cluster is None:
            return ["--jobs", str(1 if self.jobs is None else self.jobs), *_option("--cpus-per-run", self.cpus)]
        sizes = (*_option("--cpus-per-run", self.cpus), *_option("--gpus-per-run", self.gpus))
        address = () if self.cluster == DEFAULT_CLUSTER else (self.cluster,)
        return [*_option("--jobs", self.jobs), *sizes, "--ray", *address]

    def _ray_engine(self, store: Path, note: Callable[[str], None]) -> "Engine":
        from radtransfer.studies.engines.ray import RayEngine
        from radtransfer.studies.engines.ray_cluster import Cluster

        cpus, gpus = self.cpus or 1, self.gpus or 0.0
        cluster = Cluster(self.cluster or None)
        try:
            if self.jobs is None:
                cluster.check_room(cpus=cpus, gpus=gpus)
            engine = RayEngine(cluster, store=store, cpus=cpus, gpus=gpus, places=self.jobs, prepare=import_tensorflow)
        except BaseException:
            cluster.close()
            raise
        machines, size = cluster.machines(), f"{cpus} threads" if cpus > 1 else "one thread"
        where = f"Ray {cluster.ray.__version__} on {len(machines)} machine{'s' if len(machines) > 1 else ''}"
        note(f"{where}: {engine.places} runs at a time, {size}{f' and {gpus:g} GPUs' if gpus else ''} each")
        idle = sum(machine.get("GPU", 0) for machine in machines)
        if idle and not gpus:
            note(f"no run will use any of its {idle:g} GPUs: ask for them with --gpus-per-run")
        return engine


def _option(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, f"{value:g}")
