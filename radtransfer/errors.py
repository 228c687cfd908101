"""The errors that users meet, and the exit code each one carries.

    RadtransferError                1   a bug, if ever seen bare
    ├── ConfigError                 2   a setting is unknown, missing or out of range
    │   ├── UnknownNameError        2   a name that no table holds
    │   └── RunError                2   a run folder that cannot be used as asked
    │       └── RunInUseError       2   another process is using it
    ├── DataError                   3   the images, labels or splits are not usable
    │   └── BadImageError           3   one image cannot be used
    ├── SimilarityError             3   activations that cannot be compared
    ├── WeightsError                4   a weights file cannot be used
    │   ├── WeightsNotFoundError    4
    │   └── WeightsMismatchError    4   it holds another architecture
    ├── TrainingError               5   training diverged or ran out of memory
    │   └── OutOfMemoryError        5   the latter
    ├── WorkerLostError             5   another process of a distributed training is gone
    ├── DiskError                   5   the disk is full, or fails
    ├── FoldsFailedError            6   some folds failed, the others are finished
    └── ExportError                 7   an export that cannot be read back, or predicts something else

A message says what was expected, what was received and what to do next.

What may be meant by a path that is not there.

Explicit tables of interchangeable things, each imported only when it is asked for.

What commands, options and settings are called in other programs: a table of names, and who is meant by one.
"""

import difflib
import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LISTED, _FEW = 20, 5
"""Names that a message lists, and how many more it lists rather than says that there are more."""

INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM."""


class RadtransferError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        settings: Names of the data settings that caused the error, where some did.
    """

    exit_code = 1

    def __init__(self, *message: Any, settings: Sequence[str] = ()):
        super().__init__(*message)
        self.settings = tuple(settings)


class ConfigError(RadtransferError):
    """A setting is unknown, missing or out of range."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name that no table holds; the message gives the closest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, see: str | None = None):
        self.kind, self.name, self.known = kind, name, tuple(known)
        message = f"Unknown {kind} {name!r}. {closest_names(name, self.known)}"
        super().__init__(f"{message} See: {see}" if see else message)


class RunError(ConfigError):
    """A run folder exists, is in use, is unfinished or was made with other settings."""


class RunInUseError(RunError):
    """Another process holds the lock of a folder."""


class DataError(RadtransferError):
    """Images, labels or splits that cannot give a valid result."""

    exit_code = 3


class BadImageError(DataError):
    """An image that cannot be used; `reason` says why, without its name."""

    def __init__(self, place: Any, reason: str):
        self.reason = reason
        super().__init__(f"{place}: {reason}")


class SimilarityError(RadtransferError):
    """Activations that cannot be compared: too few, not finite, constant or of unequal length."""

    exit_code = 3


class WeightsError(RadtransferError):
    """A weights file that cannot be used."""

    exit_code = 4


class WeightsNotFoundError(WeightsError):
    """No weights file where one was named."""


class WeightsMismatchError(WeightsError):
    """The file holds weights of another architecture, or only part of them."""


class TrainingError(RadtransferError):
    """Training diverged or ran out of memory."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """There is not enough memory, of the device or of the machine, for a step."""


class WorkerLostError(RadtransferError):
    """Another process of a distributed training is gone, so that none can go on; the run is resumed by all."""

    exit_code = 5


class DiskError(RadtransferError):
    """The disk is full or fails: nothing that was asked for is wrong, and the same command goes on later."""

    exit_code = 5


class FoldsFailedError(RadtransferError):
    """Some folds failed; the others are finished and kept, and `result` holds what they gave."""

    exit_code = 6

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


class ExportError(RadtransferError):
    """An export that cannot be made, cannot be read back, or predicts something else; nothing was written."""

    exit_code = 7


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """The names in `known` that `name` may have meant, the nearest first, three at most."""
    return difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)


def closest_names(name: str, known: Iterable[str]) -> str:
    """A sentence with the names closest to `name`; with all of them, or the first, when none is close."""
    known = list(known)
    close = close_matches(name, known)
    if close:
        return f"Did you mean {' or '.join(repr(item) for item in close)}?"
    if len(known) <= _LISTED + _FEW:
        return f"Known: {', '.join(known)}."
    return f"Known: {', '.join(known[:_LISTED])} and {len(known) - _LISTED} more."


_CLOSE = 0.7
_ENTRIES = 10_000


def suggest_path(path: Path | str) -> str:
    """A sentence, with a space before it, for the end of a message that `path` is not there.

    It names the path that differs from it by a slip of the finger, else the first folder of it that is missing;
    it is empty where neither says anything new.
    """
    path = Path(path).expanduser()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if not missing:
        return ""
    first = missing[-1]
    if name := closest_file_name(first):
        meant = first.with_name(name) / path.relative_to(first)
        if meant.exists():
            return f" Did you mean {str(meant)!r}?"
        return f" There is no {str(first)!r}, but a {str(first.with_name(name))!r}."
    return "" if first == path else f" There is no folder {first}."


def closest_file_name(path: Path, wanted: Callable[[Path], bool] = lambda _: True) -> str | None:
    """The name in the folder of `path` that is closest to its own, case and - or _ apart, if one is close."""
    try:
        beside = {
            _plain(item.name): item.name
            for item in itertools.islice(path.parent.iterdir(), _ENTRIES)
            if not item.name.startswith(".") and wanted(item)
        }
    except OSError:
        return None
    close = difflib.get_close_matches(_plain(path.name), beside, n=1, cutoff=_CLOSE)
    return beside[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def no_model(given: str) -> WeightsNotFoundError:
    """The error that no trained model lies at `given`."""
    return WeightsNotFoundError(
        f"No model at {given}. Expected a run (RUN or RUN/fold_K), an exported .keras file or a SavedModel folder."
        f"{suggest_path(Path(given).expanduser())}"
    )


class Table(Mapping[str, Any]):
    """A read-only mapping from a name to the value that `"module:attribute"` points at.

    Iterating over names imports nothing, so that commands which only list them stay instant.

    Args:
        kind: What the table holds, as it is called in messages ("backbone").
        entries: Name to `"module:attribute"`, in the order in which users see them.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]):
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """The entry called `name`.

        Raises:
            UnknownNameError: No such entry; names the closest ones.
        """
        self.check(name)
        module, attribute = self._entries[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def get(self, name: str | None, default: Any = None) -> Any:
        """The entry called `name`, or `default`."""
        return self[name] if name in self._entries else default

    def check(self, name: str) -> None:
        """Raises UnknownNameError if there is no entry called `name`; imports nothing."""
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
    # Of the groups; from outside they are named with their group.
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
"""Command to its other names, those of a group with the group before them."""

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
    # Settings that are called otherwise than their options.
    "source": "data dataset data-dir data-path train-dir path",
    "weight-decay": "wd l2 decay",
    "ema-momentum": "ema-decay",
}
"""Option, argument or last part of a setting to its other names."""

SECTIONS = {
    "data": "dataset datasets",
    "images": "image",
    "splits": "split",
    "model": "network net",
    "training": "train trainer fit optim optimization hyperparameters",
    "system": "hardware device",
}
"""Section of the settings to its other names."""

GPU = ("gpu", "gpus", "device", "devices", "cuda", "gpu-id", "gpu-ids")
"""What most commands have no option for."""


def meant_names(word: str, known: Iterable[str], table: Mapping[str, str]) -> list[str]:
    """Those of `known` that `word` stands for here or in other programs; case, and - or _, make no difference."""
    word, spelled = _plain_synonyms(word), {_plain_synonyms(name): name for name in known}
    if word in spelled:
        return [spelled[word]]
    return [spelled[name] for name, others in table.items() if name in spelled and word in others.split()]


def _plain_synonyms(name: str) -> str:
    return name.strip().lower().lstrip("-").replace("_", "-")
