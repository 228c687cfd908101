"""Many runs that differ in named settings: the one engine behind every sweep.

Each arm is a normal run folder below `runs/`; finished ones are kept, a killed one goes on, and one that fails does
not stop the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from radtransfer.config import changed_config
from radtransfer.errors import FoldsFailedError, RadtransferError, TrainingError
from radtransfer.finetune import finetune
from radtransfer.progress import Progress
from radtransfer.runs import finished_folds, read_rows, read_run
from radtransfer.settings import Config


@dataclass(frozen=True)
class Arm:
    """One setting of a study.

    Attributes:
        name: Of its run folder.
        settings: Dotted settings in which it differs.
        labels: What it is, as columns of the study's table.
    """

    name: str
    settings: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmResult:
    """What became of an arm.

    Attributes:
        arm: Which.
        path: Its run folder.
        metrics: What its `metrics.json` holds, if only of some folds; None if no fold was finished.
        error: Why it, or a fold of it, failed; None if all is well.
    """

    arm: Arm
    path: Path
    metrics: dict[str, Any] | None
    error: str | None = None

    def curves(self) -> list[list[dict[str, str]]]:
        """The rows of each finished fold's `curve.csv`."""
        files = [folder / "curve.csv" for folder in finished_folds(self.path).values()]
        return [read_rows(file) for file in files if file.exists()]

    def row(self) -> dict[str, Any]:
        """Its line in the study's table: labels, AUC over folds, the pooled AUC with its interval, and the run."""
        auc = (self.metrics or {}).get("auc") or {}
        low, high = auc.get("ci95") or (None, None)
        return {
            **self.arm.labels,
            "auc_mean": auc.get("mean"),
            "auc_sd": auc.get("sd"),
            "auc_pooled": auc.get("pooled"),
            "ci95_low": low,
            "ci95_high": high,
            "folds": len(auc.get("per_fold", [])),
            "trainable_parameters": self._trainable(),
            "run": str(self.path),
            "error": self.error,
        }

    def _trainable(self) -> int | None:
        if not (self.path / "run.json").exists():
            return None
        return read_run(self.path).get("plan", {}).get("trainable_parameters")


def run_arms(config: Config, arms: Sequence[Arm], *, out: Path, progress: Progress) -> list[ArmResult]:
    """Run every arm, or go on with it.

    Args:
        config: What the arms have in common.
        arms: In order; arms of one name are one run.
        out: Folder of the study.
        progress: Hears what happens.

    Raises:
        RadtransferError: Something that no arm could do better: settings, data or weights cannot be used.
        TrainingError: Every arm failed.
    """
    results: dict[str, ArmResult] = {}
    for number, arm in enumerate({arm.name: arm for arm in arms}.values(), start=1):
        progress.note(f"arm {number}: {arm.name}")
        path = out / "runs" / arm.name
        results[arm.name] = _run_arm(replace(changed_config(config, arm.settings), out=str(path)), arm, path, progress)
    if all(result.metrics is None for result in results.values()):
        raise TrainingError(next(iter(results.values())).error)
    return [replace(results[arm.name], arm=arm) for arm in arms]


def check_complete(results: Sequence[ArmResult]) -> None:
    """Raises FoldsFailedError if an arm failed; for after the table is written."""
    failed = {result.arm.name: result.error for result in results if result.error}
    if failed:
        reasons = " ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise FoldsFailedError(f"{len(failed)} of {len(results)} arms failed; the others are kept. {reasons}")


def _run_arm(config: Config, arm: Arm, path: Path, progress: Progress) -> ArmResult:
    try:
        return ArmResult(arm, path, finetune(config, resume=True, progress=progress).metrics)
    except FoldsFailedError as error:
        return ArmResult(arm, path, error.result.metrics, str(error))
    except TrainingError as error:
        return ArmResult(arm, path, None, str(error))
    except RadtransferError as error:
        raise type(error)(f"arm {arm.name}: {error}") from error
