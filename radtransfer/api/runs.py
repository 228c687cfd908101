"""Fine-tuning, and its result: `Run`."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radtransfer.api.progress import shown
from radtransfer.api.settings import ConfigLike, PathLike, frame, settings_of, table_html
from radtransfer.config.load import load_config
from radtransfer.config.schema import Config
from radtransfer.errors import FoldsFailedError
from radtransfer.process import Progress, require_keras

if TYPE_CHECKING:
    import keras
    import pandas as pd


class Run:
    """The result of fine-tuning: a run folder.

    Every function that takes the path of a run takes a `Run` as well.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: PathLike, *, metrics: dict[str, Any] | None = None):
        self.path = Path(path)
        self._metrics = metrics

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the finished folds."""
        from radtransfer.runs.folder import finished_folds

        return tuple(finished_folds(self.path))

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`, such as `accuracy`, and `auc` with `mean`, `sd`, `pooled` and `ci95`."""
        from radtransfer.runs.read import read_record

        if self._metrics is None:
            self._metrics = read_record(self.path / "metrics.json")
        return self._metrics

    @cached_property
    def config(self) -> Config:
        """The settings, such as `config.training.epochs`."""
        return load_config(str(self.path / "config.yaml"))

    def predictions(self, *, fold: int | None = None, split: Literal["test", "val"] = "test") -> "pd.DataFrame":
        """A row per image: `path`, `patient`, `label`, `p_CLASS` (0 to 1), `fold`.

        Args:
            fold: One fold; None for all finished folds.
            split: Test or validation images.

        Raises:
            RunError: There is no such fold, or its predictions were deleted.
        """
        rows = self._rows("predictions.csv", fold)
        found = frame([row for row in rows if row["split"] == split])
        probabilities = [name for name in found.columns if name.startswith("p_")]
        return found.astype(dict.fromkeys(probabilities, float)).drop(columns="split")

    def history(self, *, fold: int | None = None) -> "pd.DataFrame":
        """A row per epoch: `epoch`, `step`, `learning_rate`, `loss`, `val_loss`, `val_auc`, `val_accuracy`, `fold`."""
        import pandas as pd

        found = frame(self._rows("history.csv", fold))
        return frame({name: pd.to_numeric(values) for name, values in found.items()})

    def model(self, *, fold: int | None = None) -> "keras.Model":
        """The trained network of a fold, a plain Keras model of RGB images, 0–255; give `fold` if there are several."""
        require_keras()
        from radtransfer.pretrained.saved_model import open_model
        from radtransfer.runs.folder import find_fold
        from radtransfer.runs.read import run_file

        run, number = find_fold(self.path, fold=fold)
        return open_model(run_file(run, f"fold_{number}/model.keras"))

    def _rows(self, name: str, fold: int | None) -> list[dict[str, Any]]:
        from radtransfer.runs.folder import find_fold
        from radtransfer.runs.read import read_rows, run_file

        chosen = self.folds if fold is None else (find_fold(self.path, fold=fold)[1],)
        return [
            row | {"fold": number}
            for number in chosen
            for row in read_rows(run_file(self.path, f"fold_{number}/{name}"))
        ]

    def _summary(self) -> dict[str, Any]:
        from radtransfer.runs.folder import read_run

        record = read_run(self.path)
        rows = {"network": record.get("backbone"), "status": record.get("status"), "folds": self.folds}
        if self._metrics or (self.path / "metrics.json").is_file():
            auc = self.metrics["auc"]
            ends = [f"{value:.3f}" for value in auc["ci95"] or ()]
            rows["AUC"] = "undefined" if auc["pooled"] is None else f"{auc['pooled']:.3f}"
            rows["AUC"] += f"  (95 % interval {' to '.join(ends)})" if ends else ""
        return rows

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {', '.join(f'{name}: {value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return table_html(str(self.path), self._summary())


def finetune(
    data: Any = None,
    *,
    config: ConfigLike | None = None,
    out: PathLike | None = None,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a network on every fold and write a run folder; the command `radtransfer finetune`.

    `data`, `config`, `settings` (such as `backbone="resnet50"`, `weights="imagenet"`, `fold=1`), `quiet` and
    `progress` are described in `radtransfer.api`.

    Args:
        data: The images; None for those of `config`.
        config: A shipped name, a YAML file, or a checked `Config`.
        out: The run folder; by default a new one below `runs/`.
        name: Name of that new folder; by default the name of `config`.
        resume: Continue the same run where it stopped; the result is the same.
        overwrite: Replace the run in `out`.
        callbacks: Keras callbacks. Called for each fold: `set_model`, `set_params`, `on_train_begin`,
            `on_epoch_begin` (epochs from 0), `on_epoch_end` with `loss`, `val_loss`, `val_auc`, `val_accuracy` and
            `learning_rate`, `on_train_end`. `model.stop_training = True` ends the fold after the epoch. A resumed run
            calls them for the remaining epochs.
        quiet: Show warnings only.
        progress: Receives notes, counts and epochs.
        settings: Any setting.

    Raises:
        ConfigError, DataError, WeightsError, RunError: Something cannot be used; raised before training.
        TrainingError: All folds failed. FoldsFailedError: Some failed; its `result` is the run.

    Example:
        >>> settings = {"backbone": "cbr_tiny", "image_size": 24, "folds": 2, "epochs": 1}
        >>> run = rt.finetune("images.csv", image_root="images", **settings, out="runs/second", quiet=True)
        >>> run.folds, len(run.predictions()), sorted(run.metrics["auc"])
        ((1, 2), 48, ['ci95', 'mean', 'per_class', 'per_fold', 'pooled', 'sd'])
    """
    with shown(progress, quiet) as progress:
        place = {} if out is None else {"out": os.fspath(out)}
        checked = settings_of(data, config=config, settings=settings | place)
        from radtransfer.training.names import check_sources

        checked = check_sources(checked, progress)
        if name is None and isinstance(config, (str, os.PathLike)):
            name = Path(config).stem
        finished = _is_finished(checked, name=name, resume=resume, overwrite=overwrite)
        from radtransfer.training.prepare import read_inputs

        # Report mistakes before TensorFlow is imported, where the data allow it.
        inputs = None if finished else read_inputs(checked, progress)
        require_keras()
        from radtransfer.training.run import finetune as train

        options = {"resume": resume, "overwrite": overwrite, "progress": progress, "callbacks": callbacks}
        try:
            result = train(checked, name=name, inputs=inputs, **options)
        except FoldsFailedError as error:
            error.result = Run(error.result.path, metrics=error.result.metrics)
            raise
        return Run(result.path, metrics=result.metrics)


def _is_finished(config: Config, *, name: str | None, resume: bool, overwrite: bool) -> bool:
    """Whether the run to continue is already finished; RunError if the folder cannot be used."""
    from radtransfer.runs.folder import open_run, run_folder
    from radtransfer.training.address import run_settings
    from radtransfer.training.cluster import find_cluster

    if find_cluster(config.system) is not None:
        return False  # only one of the workers has the folder
    out = run_folder(config, name=name, reuse=resume or overwrite)
    with open_run(out, run_settings(config, out=out), resume=resume, overwrite=overwrite) as run:
        return run.finished


def load_run(path: PathLike) -> Run:
    """The run in a folder.

    Raises:
        RunError: It is not a run directory.

    Example:
        >>> rt.load_run("runs/first").metrics["n_images"]
        48
    """
    from radtransfer.runs.folder import read_run

    with shown():
        read_run(Path(path))
    return Run(path)
