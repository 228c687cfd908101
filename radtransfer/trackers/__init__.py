"""Programs that show how a training goes, by name; whatever they show stands in the run's CSVs as well.

To add one, write a file with a subclass of `Tracker` and give it a line here.
"""

import importlib.util
from collections.abc import Iterable

from radtransfer.errors import ConfigError
from radtransfer.registry import Table

TRACKERS = Table(
    "tracker",
    {
        "tensorboard": "radtransfer.trackers.tensorboard:TensorBoard",
        "mlflow": "radtransfer.trackers.mlflow:MLflow",
        "wandb": "radtransfer.trackers.wandb:WeightsAndBiases",
    },
)

INSTALL = "pip install 'radtransfer[track]'"


def check_trackers(names: Iterable[str]) -> None:
    """Raises ConfigError if a tracker is unknown or its package is not installed; imports no such package."""
    missing = [name for name in names if importlib.util.find_spec(TRACKERS[name].package) is None]
    if missing:
        raise ConfigError(f"--track {','.join(missing)}: not installed. Run: {INSTALL}; or leave it away.")
