"""Take a trained model home, and prove in a fresh process that what was written predicts the same."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radtransfer.cache import PART
from radtransfer.config import load_config
from radtransfer.datasets import read_table
from radtransfer.errors import ConfigError, RadtransferError, RunError
from radtransfer.examination.image_examination import examine_images
from radtransfer.export_formats import EXPORT_FORMATS
from radtransfer.export_formats.export_format import ExportFormat
from radtransfer.pipeline.batches import make_batches
from radtransfer.run_reading import read_rows
from radtransfer.run_reading import reading as reading_run
from radtransfer.runs import find_fold, finished_folds, read_run
from radtransfer.settings import ImageSettings
from radtransfer.weight_formats.keras_models import open_model

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


def export_run(run: str | Path, *, format: str, out: Path, fold: str | None = None) -> list[Exported]:
    """Export one fold of a run, or all of them, each checked before it appears at its place.

    Args:
        run: A run folder, or RUN/fold_K.
        format: Key of `EXPORT_FORMATS`.
        out: File or folder to write; for all folds, a folder that gets `fold_K` for each.
        fold: A number, "all", or None where the run has one fold.

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
        return [_export_fold(Path(run), k, kind, out / f"fold_{k}{kind.suffix}") for k in finished_folds(Path(run))]
    if fold is not None and not fold.isdigit():
        raise ConfigError(f"--fold expects a number or all. Received: {fold!r}.")
    path, number = find_fold(run, fold=None if fold is None else int(fold))
    return [_export_fold(path, number, kind, _with_suffix(out, kind.suffix))]


def _export_fold(run: Path, fold: int, kind: ExportFormat, out: Path) -> Exported:
    if out.exists():
        raise RunError(f"{out} exists; nothing was written. Choose another --out.")
    original = run / f"fold_{fold}" / "model.keras"
    if not original.is_file():
        raise RunError(f"Run {run} lacks fold_{fold}/model.keras, which is what is exported. Restore it.")
    model = open_model(original)
    images, real = _sample_images(run, fold, model.input_shape[1])
    expected = model.predict(images, verbose=0)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=PART) as folder:
        part = Path(folder) / out.name
        kind.write(model, part)
        difference = float(np.abs(_predict_elsewhere(kind, part, original, images) - expected).max())
        if not difference <= LARGEST_DIFFERENCE:
            raise RadtransferError(
                f"The reloaded export predicts differently: by {difference:.2g}, "
                f"where {LARGEST_DIFFERENCE:g} is allowed. Nothing was written."
            )
        part.replace(out)
    return Exported(out, _size(out), difference, real)


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
    with reading_run(run):
        rows = read_rows(run / f"fold_{fold}" / "predictions.csv")
        tested = [row["path"] for row in rows if row["split"] == "test"]
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
