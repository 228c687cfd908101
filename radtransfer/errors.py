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
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

_LISTED, _FEW = 20, 5
"""Names that a message lists, and how many more it lists rather than says that there are more."""

INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM."""


class RadtransferError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        misfits: Names of the data settings that do not fit the data or each other, where that is what is wrong.
    """

    exit_code = 1

    def __init__(self, *message: Any, misfits: Sequence[str] = ()):
        super().__init__(*message)
        self.misfits = tuple(misfits)


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


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The names in `known` that `name` may have meant, the nearest first, three at most."""
    return difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)


def closest_names(name: str, known: Iterable[str]) -> str:
    """A sentence with the names closest to `name`; with all of them, or the first, when none is close."""
    known = list(known)
    close = near_names(name, known)
    if close:
        return f"Did you mean {' or '.join(repr(item) for item in close)}?"
    if len(known) <= _LISTED + _FEW:
        return f"Known: {', '.join(known)}."
    return f"Known: {', '.join(known[:_LISTED])} and {len(known) - _LISTED} more."
