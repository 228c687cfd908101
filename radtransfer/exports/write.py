"""Export a trained model with metadata and model card, and check in a new process that it predicts the same."""

import importlib.util
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data.image_check import examine_images
from radtransfer.data.readers import read_table
from radtransfer.data.run_data import LocatedImages, run_images
from radtransfer.errors import ConfigError, ExportError, RadtransferError, RunError
from radtransfer.evaluation.results import export_values
from radtransfer.exports.formats import EXPORT_FORMATS, Exportable, ExportFormat, run_python
from radtransfer.exports.metadata import LARGEST_DIFFERENCE, Exported, export_metadata, model_card, read_facts
from radtransfer.files import atomic_files, check_writable
from radtransfer.images.refs import ImageRef, read_contents
from radtransfer.pretrained.saved_model import open_model
from radtransfer.process import keras_defaults
from radtransfer.runs.folder import find_fold, finished_folds, read_rows, read_run, write_text

_IMAGES = 8
_ENCODED = ("jpeg", "png8", "png16")

_CHECK = """
import sys
import numpy as np
path, original, inputs, outputs = sys.argv[1:]
with np.load(inputs) as arrays:
    images, *encoded = arrays.values()
encoded = [contents.tobytes() for contents in encoded]
{read}
of_images = np.asarray(probabilities)
{read_bytes}
np.savez(outputs, of_images, np.asarray(probabilities))
"""


def export_run(
    run: str | Path, *, format: str, out: Path, fold: str | None = None, operating_point: str | None = None
) -> list[Exported]:
    """Export one fold of a run, or all (`fold` "all", into the folder `out`), each with a model card.

    All exports are checked before the first one is moved to its place. `operating_point` is the rule of a threshold,
    chosen on the fold's validation images and stored in the export.
    """
    kind = EXPORT_FORMATS[format]
    missing = [name for name in kind.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format {format} needs {', '.join(missing)}, which is not installed. Run: pip install "
            "'radtransfer[export]'"
        )
    path, targets = _targets(run, kind, out, fold)
    for target in targets.values():
        if target.exists():
            raise RunError(f"{target} exists; nothing was written. Choose another --out.")
    folder = next(iter(targets.values())).parent
    check_writable(folder)
    with atomic_files(folder, first="*.card.md") as staging:
        decided = {number: export_values(path, number, operating_point) for number in targets}
        exported = [
            _export_fold(path, number, kind, target, staging, decided[number]) for number, target in targets.items()
        ]
        for card in (item.card for item in exported):
            # An identical card was left by an interrupted export.
            if card.exists() and card.read_bytes() != (staging / card.name).read_bytes():
                raise RunError(f"{card} exists; nothing was written. Choose another --out.")
    return exported


def _targets(run: str | Path, kind: ExportFormat, out: Path, fold: str | None) -> tuple[Path, dict[int, Path]]:
    """The run folder, and where each fold goes."""
    if fold == "all":
        read_run(Path(run))
        numbers = finished_folds(Path(run))
        if not numbers:
            raise RunError(f"Run {run}: expected a finished fold, received none. Finish its training first.")
        return Path(run), {number: out / f"fold_{number}{kind.suffix}" for number in numbers}
    if fold is not None and not fold.isdigit():
        raise ConfigError(f"--fold expects a number or all. Received: {fold!r}.")
    path, number = find_fold(run, fold=None if fold is None else int(fold))
    return path, {number: out if out.name.endswith(kind.suffix) else out.with_name(out.name + kind.suffix)}


@keras_defaults()
def _export_fold(
    run: Path, fold: int, kind: ExportFormat, target: Path, staging: Path, decided: dict[str, object]
) -> Exported:
    from radtransfer.images.decode import can_read_encoded, encoded_image

    facts, original = read_facts(run, fold), run / f"fold_{fold}" / "model.keras"
    model = open_model(original)
    size = model.input_shape[1]
    metadata = export_metadata(facts, size=size) | decided
    samples = sample_images(run, fold, size=size, reading=facts.reading)
    from_bytes = None
    if kind.read_bytes and can_read_encoded(facts.reading):
        from_bytes = partial(encoded_image, image_size=size, reading=facts.reading)
    part = staging / target.name
    expected = model.predict(samples.images, verbose=0)  # before writing, which might change the model
    kind.write(Exportable(model, metadata, from_bytes), part)
    if from_bytes is None:
        samples = replace(samples, encoded=[], encoded_rows=[])
    of_images, of_files = predict_elsewhere(kind, part, original, samples)
    difference, bytes_difference = _difference(of_images, expected), None
    if samples.encoded:
        bytes_difference = _difference(of_files, expected[samples.encoded_rows])
    written = sum(item.stat().st_size for item in (part, *part.rglob("*")) if item.is_file())
    exported = Exported(
        path=target,
        card=target.with_name(f"{target.name}.card.md"),
        size=written,
        difference=difference,
        bytes_difference=bytes_difference,
        images=samples.real,
        inside=metadata["input"]["inside"],
        caller=metadata["input"]["caller"],
        usage=kind.usage,
        positive_class=metadata["positive_class"],
    )
    write_text(staging / exported.card.name, model_card(facts, size=size, check=exported, values=metadata))
    return exported


@dataclass(frozen=True, eq=False)
class Samples:
    """Images for the comparison of an export with its model."""

    images: np.ndarray  # network inputs, float32 (images, size, size, 3), RGB, 0–255
    encoded: list[bytes]  # the contents of the files that are JPEGs or PNGs
    encoded_rows: list[int]  # their rows in `images`
    real: int  # number of images of the run; 0 for random images


def sample_images(run: Path, fold: int, *, size: int, reading: ImageSettings) -> Samples:
    """Some test images of a fold, or random images if these are missing or damaged."""
    try:
        table = read_table(run_images(run).data)
        rows = read_rows(run / f"fold_{fold}" / "predictions.csv")
        tested = [row["path"] for row in rows if row.get("split") == "test"]
        where = dict(zip(table.paths, table.files, strict=True))
        found = [where[path] for path in tested if where.get(path) is not None]
        if found:
            chosen = np.linspace(0, len(found) - 1, min(_IMAGES, len(found))).astype(int)
            return _read([found[number] for number in chosen], size, reading, real=len(chosen))
    except (RadtransferError, OSError):
        pass
    # Coarse patterns of low contrast, for which no network is confident.
    rng, step, files = np.random.default_rng(0), max(1, size // 6), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_IMAGES):
            coarse = rng.integers(64, 192, (8, 9, 3), np.uint8)
            files.append(Path(folder) / f"{number}.png")
            Image.fromarray(np.kron(coarse, np.ones((step, step, 1), np.uint8))).save(files[-1])
        return _read(files, size, reading, real=0)


def _read(places: list[ImageRef], size: int, reading: ImageSettings, *, real: int) -> Samples:
    facts = examine_images(places, reading)
    located = LocatedImages(tuple(map(str, places)), tuple(places), facts, reading, ())
    batches = located.batches(image_size=size, batch_size=len(places))
    images = next(iter(batches.in_order()))[0].numpy()
    rows = [row for row, fact in enumerate(facts) if fact.decoder in _ENCODED]
    return Samples(images, [read_contents(places[row]) for row in rows], rows, real)


def predict_elsewhere(
    kind: ExportFormat, path: Path, original: Path, samples: Samples
) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of an export in a new process without this package, for images and for encoded files.

    Without encoded files, the second result is the same as the first.
    """
    read_bytes = kind.read_bytes if samples.encoded and kind.read_bytes else ""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "probabilities.npz"
        np.savez(inputs, samples.images, *(np.frombuffer(contents, np.uint8) for contents in samples.encoded))
        code = _CHECK.format(read=kind.read, read_bytes=read_bytes)
        run_python(code, [path, original, inputs, outputs], failure="The export cannot be read back")
        with np.load(outputs) as arrays:
            of_images, of_files = arrays.values()
    return of_images, of_files


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of two arrays of probabilities; ExportError if it is too large."""
    if found.shape != expected.shape:
        raise ExportError(
            f"Expected probabilities {expected.shape} from the reloaded export, received {found.shape}. Nothing was "
            "written; try another --format."
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ExportError(
            f"Expected the reloaded export to predict the same within {LARGEST_DIFFERENCE:g}, received a difference of "
            f"{difference:.2g}. Nothing was written; try another --format."
        )
    return difference
