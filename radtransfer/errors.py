"""Errors with their exit codes, suggestions for misspelled names, and lazily imported tables.

A message says what was expected, what was received and what to do.
"""

import difflib
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LISTED, _FEW = 20, 5  # names in a message, and how many more are listed rather than counted

INTERRUPTED = 130  # exit code after Ctrl-C or SIGTERM


class RadtransferError(Exception):
    """Base of all errors of this package.

    Attributes:
        settings: Names of the data settings that caused the error, where some did.
        result: What was finished nevertheless, if anything was.
    """

    exit_code = 1
    result: Any = None

    def __init__(self, *message: Any, settings: Sequence[str] = ()):
        super().__init__(*message)
        self.settings = tuple(settings)


class ConfigError(RadtransferError):
    """A setting is unknown, missing or out of range."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """An unknown name; the message gives the closest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, see: str | None = None):
        self.kind, self.name, self.known = kind, name, tuple(known)
        message = f"Unknown {kind} {name!r}. {closest_names(name, self.known)}"
        super().__init__(f"{message} See: {see}" if see else message)


class RunError(ConfigError):
    """A run folder exists, is in use, is unfinished or was made with other settings."""


class RunInUseError(RunError):
    """Another process has locked the folder."""


class DataError(RadtransferError):
    """Images, labels or splits that cannot give a valid result."""

    exit_code = 3


class BadImageError(DataError):
    """An unusable image; `reason` is the message without its name."""

    def __init__(self, ref: Any, reason: str):
        self.reason = reason
        super().__init__(f"{ref}: {reason}")


class SimilarityError(RadtransferError):
    """Activations that cannot be compared: too few, not finite, constant or of unequal length."""

    exit_code = 3


class WeightsError(RadtransferError):
    """An unusable weights file."""

    exit_code = 4


class WeightsNotFoundError(WeightsError):
    """The weights file does not exist."""


class WeightsMismatchError(WeightsError):
    """The file has weights of a different architecture, or only some of them."""


class TrainingError(RadtransferError):
    """Training diverged or ran out of memory."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """Too little memory of the device or the machine."""


class WorkerLostError(RadtransferError):
    """Another process of a distributed training has ended; all must resume the run."""

    exit_code = 5


class DiskError(RadtransferError):
    """The disk is full or fails; the same command can continue later."""

    exit_code = 5


class FoldsFailedError(RadtransferError):
    """Some folds failed; `result` has the results of the others."""

    exit_code = 6

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


class ExportError(RadtransferError):
    """An export that fails, cannot be read back, or predicts something else; nothing was written."""

    exit_code = 7


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names in `known` that are similar to `name`, the most similar first."""
    return difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)


def closest_names(name: str, known: Iterable[str]) -> str:
    """A sentence with the names closest to `name`, else with the known ones."""
    known = list(known)
    close = close_matches(name, known)
    if close:
        return f"Did you mean {' or '.join(repr(item) for item in close)}?"
    if len(known) <= _LISTED + _FEW:
        return f"Known: {', '.join(known)}."
    return f"Known: {', '.join(known[:_LISTED])} and {len(known) - _LISTED} more."


def suggest_path(path: Path | str) -> str:
    """A sentence (after a space) for messages that `path` does not exist: a similar path, or the missing folder."""
    path = Path(path).expanduser()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if not missing:
        return ""
    first = missing[-1]
    if name := closest_file_name(first):
        meant = first.with_name(name) / path.relative_to(first)
        if meant.exists():
            return f" Did you mean {str(meant)!r}?"
        return f" {str(first)!r} does not exist, but {str(first.with_name(name))!r} does."
    return "" if first == path else f" The folder {first} does not exist."


def closest_file_name(path: Path, wanted: Callable[[Path], bool] = lambda _: True) -> str | None:
    """The most similar name in the folder of `path`, ignoring case and - or _; None if none is similar."""
    try:
        names = {
            _plain_option(item.name): item.name
            for item in itertools.islice(path.parent.iterdir(), 10_000)
            if not item.name.startswith(".") and wanted(item)
        }
    except OSError:
        return None
    close = difflib.get_close_matches(_plain_option(path.name), names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def no_model(given: str) -> WeightsNotFoundError:
    """The error for a missing model."""
    return WeightsNotFoundError(
        f"No model at {given}. Expected a run (RUN or RUN/fold_K), an exported .keras file or a SavedModel folder."
        f"{suggest_path(Path(given).expanduser())}"
    )


class Table(Mapping[str, Any]):
    """A read-only mapping from names to objects, imported on access; listing the names imports nothing.

    Args:
        kind: Kind of the objects for messages ("backbone").
        entries: Name to `"module:attribute"`, in the order shown to users.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]):
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """The entry called `name`, else UnknownNameError."""
        self.check(name)
        module, attribute = self._entries[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def get(self, name: str | None, default: Any = None) -> Any:
        """The entry called `name`, or `default`."""
        return self[name] if name in self._entries else default

    def check(self, name: str) -> None:
        """Raises UnknownNameError for an unknown name; imports nothing."""
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


COMMAND_SYNONYMS = {
    "finetune": "train training fit fine-tune fine-tuning tune learn run start resume",
    "study": "grid sweep experiment experiments benchmark",
    "lr-find": "lr lr-finder find-lr learning-rate",
    "evaluate": "test testing eval val validate score metrics",
    "predict": "infer inference classify apply prediction predictions",
    "extract": "features embed embeddings encode activations",
    "export": "save convert deploy onnx tflite savedmodel",
    "card": "model-card",
    "explain": "gradcam grad-cam cam saliency heatmap heatmaps interpret",
    "compare-cca": "cca svcca cka similarity compare",
    "report": "html summary summarize plot plots figures results",
    "backbones": "models model networks architectures archs",
    "plan": "schemes scheme",
    "doctor": "info env environment version versions",
    "configs": "config settings recipes",
    # Commands in groups, with and without their group
    "data check": "check dataset stats",
    "check": "validate stats describe verify scan lint",
    "data split": "split folds",
    "split": "folds kfold",
    "data prepare": "prepare preprocess",
    "prepare": "preprocess convert",
    "data preview": "preview",
    "preview": "show view plot",
    "weights inspect": "inspect",
    "inspect": "info show describe",
    "weights fetch": "fetch download",
    "fetch": "download get pull",
    "verify": "hash sha256 checksum",
    "validate": "check lint test",
    "show": "print cat view",
    "list": "ls",
}
"""Command to synonyms in other programs."""

OPTIONS = {
    "backbone": "model arch architecture network net encoder model-name base-model",
    "learning-rate": "lr base-lr init-lr initial-lr",
    "epochs": "epoch num-epochs n-epochs max-epochs",
    "batch-size": "bs batch batchsize",
    "out": "output output-dir output-path output-file out-dir outdir out-file save save-dir save-path save-to dest "
    "destination logdir log-dir workdir work-dir run-dir run-name exp-name experiment-name results results-dir",
    "data": "dataset datasets data-dir datadir data-path data-root dataset-path train-data train-dir input inputs csv "
    "images image root",
    "images": "data dataset input inputs image files",
    "image-root": "image-dir images-dir img-dir image-folder",
    "weights": "pretrained pretrained-weights weights-path init checkpoint ckpt load load-weights",
    "run": "model checkpoint ckpt weights model-path",
    "model": "run checkpoint ckpt weights model-path",
    "file": "weights checkpoint path input",
    "config": "cfg settings yaml file",
    "resume": "continue resume-from restart",
    "overwrite": "force replace clobber",
    "image-size": "img-size imgsz input-size input-shape resolution size",
    "optimizer": "opt optim optimiser",
    "schedule": "scheduler lr-schedule lr-scheduler",
    "augmentation": "aug augment augmentations transform transforms data-augmentation",
    "precision": "amp fp16 bf16 half mixed-precision dtype",
    "workers": "num-workers n-workers threads",
    "jobs": "n-jobs num-jobs parallel processes workers num-workers",
    "gpus-per-run": "gpu gpus device devices cuda num-gpus",
    "distribute": "strategy ddp num-gpus gpus multi-gpu",
    "seed": "random-seed random-state manual-seed",
    "folds": "kfold k-fold kfolds k-folds n-folds num-folds n-splits cv",
    "val-fraction": "val-split validation-split validation-fraction val-size val-ratio",
    "label-column": "label labels target targets label-col class-column",
    "patient-column": "patient patients patient-id group groups group-column",
    "path-column": "path-col image-column image-col file-column filename-column",
    "patience": "early-stopping early-stop",
    "freeze-to": "freeze freeze-until freeze-layers freeze-up-to frozen frozen-stages",
    "bn-init": "bn batch-norm",
    "scheme": "method strategy",
    "class-weights": "class-weight balanced",
    "monitor": "metric",
    "ema": "ema-decay",
    "track": "logger tracker wandb mlflow tensorboard",
    "format": "fmt type",
    "operating-point": "threshold cutoff",
    "similarity": "measure metric method",
    "layer": "layers stage",
    "layers": "layer stage stages",
    "dry-run": "dryrun",
    "stages": "through freeze-to stage layers",
    "from": "lr learning-rate min-lr start-lr",
    "to": "lr learning-rate max-lr end-lr",
    "name": "model backbone arch architecture network",
    # Settings with other names than their options
    "source": "data dataset data-dir data-path train-dir path",
    "weight-decay": "wd l2 decay",
    "ema-momentum": "ema-decay",
}
"""Option, argument or last part of a setting to synonyms in other programs."""

SECTIONS = {
    "data": "dataset datasets",
    "images": "image",
    "splits": "split",
    "model": "network net",
    "training": "train trainer fit optim optimization hyperparameters",
    "system": "hardware device",
}
"""Section of the settings to synonyms."""

GPU = ("gpu", "gpus", "device", "devices", "cuda", "gpu-id", "gpu-ids")
"""Common options of other programs that most commands here do not have."""


def meant_names(word: str, known: Iterable[str], table: Mapping[str, str]) -> list[str]:
    """Those of `known` that `word` is a synonym for in `table`, ignoring case and - or _."""
    word, spelled = _plain_option(word), {_plain_option(name): name for name in known}
    if word in spelled:
        return [spelled[word]]
    return [spelled[name] for name, others in table.items() if name in spelled and word in others.split()]


def _plain_option(name: str) -> str:
    return name.strip().lower().lstrip("-").replace("_", "-")
