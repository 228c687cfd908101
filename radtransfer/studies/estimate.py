"""How long a study will take: from what runs of the same network and size took, or from one that is timed."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtransfer.config import changed_config
from radtransfer.runs import finished_folds
from radtransfer.settings import Config, TransferSettings
from radtransfer.studies.plan import PlannedRun, StudyPlan

_NETWORK = ("model.backbone", "model.image_size")
_STEP = ("training.batch_size", "transfer.scheme", "transfer.through", "transfer.freeze_to", "transfer.slim")


@dataclass
class Speeds:
    """Seconds per image and epoch, validation included, by what decides them.

    Attributes:
        exact: By network, size, batch and plan.
        rough: By network and size.
    """

    exact: dict[tuple, float] = field(default_factory=dict)
    rough: dict[tuple, float] = field(default_factory=dict)

    def learn(self, identity: Mapping[str, Any], seconds: float, *, epochs: int, images: int) -> None:
        """`epochs`, over all folds, on a table of `images` took `seconds`."""
        rate = seconds / max(epochs * images, 1)
        self.exact[_values(identity, _NETWORK + _STEP)] = rate
        self.rough[_values(identity, _NETWORK)] = rate

    def learn_run(self, identity: Mapping[str, Any], path: Path) -> None:
        """The run in `path` was finished; one that is not tells nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = _read(path / "run.json")
            if record["status"] == "finished":
                epochs = sum(_read(fold / "metrics.json")["epochs"] for fold in finished_folds(path).values())
                self.learn(identity, record["timings"]["seconds"], epochs=epochs, images=record["data"]["images"])

    def seconds(self, run: PlannedRun) -> float | None:
        """What is left of a run, at most, since patience may stop it; None where nothing like it was timed."""
        known = self.exact.get(_values(run.identity, _NETWORK + _STEP), self.rough.get(_values(run.identity, _NETWORK)))
        folds = run.folds - len(finished_folds(run.path))
        return None if known is None else known * run.images * run.config.training.epochs * folds


def store_speeds(store: Path) -> Speeds:
    """What the finished runs in `store` tell."""
    speeds = Speeds()
    for card in sorted(store.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):  # not a run's card
            speeds.learn_run(_read(card)["identity"], card.with_suffix(""))
    return speeds


def untimed_runs(plan: StudyPlan, speeds: Speeds) -> Iterator[PlannedRun]:
    """One of each network and size that is still to be computed and that nothing is known about."""
    seen = set()
    for run in plan.runs.values():
        network = _values(run.identity, _NETWORK)
        if not run.done and network not in seen and network not in speeds.rough:
            seen.add(network)
            yield run


def rehearsal(run: PlannedRun) -> Config:
    """What to time in place of `run`, whose weights may not be there yet: the same network, all of it trained."""
    plain = {"model.weights": "random", "transfer": TransferSettings(), "training.eval_every": None}
    return changed_config(run.config, plain)


def _values(identity: Mapping[str, Any], names: tuple[str, ...]) -> tuple:
    return tuple(identity[name] for name in names)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
