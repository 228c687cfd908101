"""One run after the other in this process."""

from pathlib import Path

from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.studies.engines.engine import Hear, Relay
from radtransfer.studies.run_cell import Outcome, own_networks, run_cell


class InProcess:
    """Computes one run after the other in this process; its progress is heard as it comes.

    Args:
        progress: Hears what a run does, besides whoever waits.
    """

    places = 1

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._waiting: list[tuple[str, Config, Path]] = []
        self._networks = None

    def submit(self, key: str, config: Config, path: Path) -> None:
        self._waiting.append((key, config, path))

    def wait(self, hear: Hear, seconds: float) -> list[tuple[str, Outcome]]:
        key, config, path = self._waiting.pop()
        self._networks = self._networks or own_networks()

        def both(name: str, arguments: tuple) -> None:
            getattr(self._progress, name)(*arguments)
            hear(key, name, arguments)

        return [(key, run_cell(config, path, progress=Relay(both), networks=self._networks))]

    def close(self) -> None:
        self._waiting.clear()
