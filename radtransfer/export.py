"""Take a trained model home, and prove in a fresh process that what was written predicts the same."""

import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from radtransfer import __version__
from radtransfer.cache import PART
from radtransfer.comparisons.comparison_images import run_images
from radtransfer.config import load_config
from radtransfer.datasets import read_table
from radtransfer.errors import ConfigError, RadtransferError, RunError
from radtransfer.examination.image_examination import examine_images
from radtransfer.export_formats import EXPORT_FORMATS
from radtransfer.export_formats.export_format import ExportFormat
from radtransfer.export_formats.metadata import write_metadata
from radtransfer.pipeline.batches import make_batches
from radtransfer.predictions.validation import export_values
from radtransfer.runs import find_fold, finished_folds, read_rows, read_run
from radtransfer.settings import ImageSettings

LARGEST_DIFFERENCE = 1e-5
"""Largest difference of a probability, after export, that is let pass."""

_IMAGES = 8

_CHECK = """
import sys
import numpy as np
path, original, inputs, outputs = sys.argv[1:]
images = np.load(inputs)
{read}
np.save(outputs, np.asarray(probabilities))
"""


@dataclass(frozen=True)
class Exported:
    """One exported model.

    Attributes:
        path: The file or folder written.
        size: Bytes.
        difference: Largest absolute difference of a probability, reloaded in a fresh process.
        images: How many of the run's images were compared; 0 where they are not on disk any more, and noise
            was used.
    """

    path: Path
    size: int
    difference: float
    images: int


def export_run(
    run: str | Path, *, format: str, out: Path, fold: str | None = None, operating_point: str | None = None
) -> list[Exported]:
    """Export one fold of a run, or all of them, each checked before it appears at its place.

    Args:
        run: A run folder, or RUN/fold_K.
        format: Key of `EXPORT_FORMATS`.
        out: File or folder to write; for all folds, a folder that gets `fold_K` for each.
        fold: A number, "all", or None where the run has one fold.
        operating_point: Rule of a threshold, chosen on the fold's validation images, that the export carries.

    Raises:
        UnknownNameError: No such format.
        RunError: Not a run, no such fold, or `out` exists.
        RadtransferError: What was written cannot be read, or predicts something else.
    """
    kind = EXPORT_FORMATS[format]
    if fold == "all":
        read_run(Path(run))
        if not finished_folds(Path(run)):
            raise RunError(f"Run {run} has no finished fold yet; nothing to export.")
        folds = {k: out / f"fold_{k}{kind.suffix}" for k in finished_folds(Path(run))}
        return [_export_fold(Path(run), k, kind, target, operating_point) for k, target in folds.items()]
    if fold is not None and not fold.isdigit():
        raise ConfigError(f"--fold expects a number or all. Received: {fold!r}.")
    path, number = find_fold(run, fold=None if fold is None else int(fold))
    return [_export_fold(path, number, kind, _with_suffix(out, kind.suffix), operating_point)]


def _export_fold(run: Path, fold: int, kind: ExportFormat, out: Path, operating_point: str | None) -> Exported:
    if out.exists():
        raise RunError(f"{out} exists; nothing was written. Choose another --out.")
    metadata = _metadata(run, fold) | export_values(run, fold, operating_point)
    original = run / f"fold_{fold}" / "model.keras"
    model = keras.models.load_model(original, compile=False)
    images, real = _sample_images(run, fold, model.input_shape[1])
    expected = model.predict(images, verbose=0)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=PART) as folder:
        part = Path(folder) / out.name
        kind.write(model, part)
        write_metadata(part, metadata)
        difference = float(np.abs(_predict_elsewhere(kind, part, original, images) - expected).max())
        if not difference <= LARGEST_DIFFERENCE:
            raise RadtransferError(
                f"The reloaded export predicts differently: by {difference:.2g}, "
                f"where {LARGEST_DIFFERENCE:g} is allowed. Nothing was written."
            )
        part.replace(out)
    return Exported(out, _size(out), difference, real)


def _metadata(run: Path, fold: int) -> dict[str, Any]:
    record, reading = read_run(run), run_images(run).images
    size = record["image_size"]
    return {
        "format": 1,
        "written_by": f"radtransfer {__version__}",
        "task": record["task"],
        "classes": record["classes"],
        "activation": record["head"],
        "positive_from": record.get("positive_from"),
        "input": {"shape": [None, size, size, 3], "preprocessing": record["preprocessing"], **asdict(reading)},
        "provenance": {"run": run.name, "fold": fold, "backbone": record["backbone"]},
    }


def _predict_elsewhere(kind: ExportFormat, path: Path, original: Path, images: np.ndarray) -> np.ndarray:
    """What a fresh Python, without this package, predicts from the export."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "images.npy", Path(folder) / "probabilities.npy"
        np.save(inputs, images)
        arguments = [str(item) for item in (path, original, inputs, outputs)]
        code = _CHECK.format(read=kind.read)
        # -P keeps the current folder off the path, so that only installed packages are found.
        process = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True)
        if process.returncode:
            last = process.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RadtransferError(f"The export cannot be read back: {last[0]}. Nothing was written.")
        return np.load(outputs)


def _sample_images(run: Path, fold: int, size: int) -> tuple[np.ndarray, int]:
    """Some of the fold's test images as the network gets them, float32 (images, size, size, 3), and their number."""
    tested = [row["path"] for row in read_rows(run / f"fold_{fold}" / "predictions.csv") if row["split"] == "test"]
    try:
        settings = load_config(str(run / "config.yaml"))
        table, reading = read_table(settings.data), settings.images
    except RadtransferError:
        table, reading = None, ImageSettings()
    where = dict(zip(table.paths, table.files, strict=True)) if table else {}
    files = [where[path] for path in tested if where.get(path)][:_IMAGES]
    if not files:
        return np.random.default_rng(0).uniform(0, 255, (_IMAGES, size, size, 3)).astype(np.float32), 0
    batches = make_batches(
        [str(file) for file in files],
        files,
        examine_images(files, reading),
        np.zeros((len(files), 1), np.float32),
        image_size=size,
        reading=reading,
        batch_size=len(files),
        workers=1,
    )
    return next(iter(batches.in_order()))[0].numpy(), len(files)


def _with_suffix(out: Path, suffix: str) -> Path:
    return out if out.name.endswith(suffix) else out.with_name(out.name + suffix)


def _size(path: Path) -> int:
    return sum(item.stat().st_size for item in ([path] if path.is_file() else path.rglob("*")) if item.is_file())
