"""Results of a transfer study as Juodelyte et al. publish theirs: CSV files of one folder, known by their names.

AUC.csv            target, source, freeze, fold, AUC
CCA_<target>.csv   model1, model2, fold, (stimuli), and a column per layer
similarity.csv     target, model1, model2, freeze, fold, prob ("real" or "rand"), value

Targets, sources, folds and layers are whatever the files hold. A value that is no number from 0 to 1 is an error; one
that is missing (empty, NaN) is left out with a note, and so is a repeated line.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023 (arXiv 2302.08272), results/ of DovileDo/revisiting-transfer.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from radtransfer.errors import DataError
from radtransfer.reports.published.lines import LAYER, Once, read_lines

_CCA_FILE = re.compile(r"CCA_(.+)\.csv")


@dataclass(frozen=True)
class Auc:
    """The AUC of one fold."""

    target: str
    source: str
    freeze: str
    fold: str
    value: float


@dataclass(frozen=True)
class LayerPair:
    """Two networks compared layer by layer, on one fold; `values` leaves out the layers that have none.

    Attributes:
        target: Of the file.
        model1, model2: `<target>-<source>-<freeze>` after fine-tuning, `<source>` or `random` before it.
        stimuli: The images on which they were compared; empty where the file does not say.
        values: CCA by layer, 0–1.
    """

    target: str
    model1: str
    model2: str
    fold: str
    stimuli: str
    values: dict[str, float]


@dataclass(frozen=True)
class PredictionPair:
    """How often two networks are right or wrong together: `prob` is "real" (observed) or "rand" (by chance)."""

    target: str
    model1: str
    model2: str
    freeze: str
    fold: str
    prob: str
    value: float


@dataclass
class Published:
    """What a folder holds.

    Attributes:
        folder: Which.
        auc, pairs, predictions: The lines, in the order of the files.
        layers: In the order of the columns.
        files: What was read.
        ignored: Names of the other files and folders.
        notes: What was left out, and why.
    """

    folder: Path
    auc: list[Auc] = field(default_factory=list)
    pairs: list[LayerPair] = field(default_factory=list)
    predictions: list[PredictionPair] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        """In the order in which they are met."""
        return list(dict.fromkeys(item.target for item in (*self.auc, *self.pairs, *self.predictions)))


def read_published(folder: Path) -> Published:
    """Read every file of `folder` that is known by its name.

    Raises:
        DataError: Not a folder, nothing in it is known, a column is missing, or a line (which is named) is malformed.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder with AUC.csv, CCA_<target>.csv or similarity.csv. Received: {folder}.")
    found = Published(folder)
    for path in sorted(folder.iterdir()):
        target = _CCA_FILE.fullmatch(path.name)
        if not path.is_file() or not (target or path.name in ("AUC.csv", "similarity.csv")):
            found.ignored.append(path.name)
            continue
        found.files.append(path.name)
        if target:
            _read_pairs(path, target[1], found)
        elif path.name == "AUC.csv":
            _read_auc(path, found)
        else:
            _read_predictions(path, found)
    if not found.files:
        others = ", ".join(found.ignored[:5]) or "nothing"
        raise DataError(f"{folder}: expected AUC.csv, CCA_<target>.csv or similarity.csv, found {others}.")
    return found


def _read_auc(path: Path, found: Published) -> None:
    lines, _ = read_lines(path, ("target", "source", "freeze", "fold", "AUC"), found.notes)
    once = Once(path, found.notes)
    for line in lines:
        key = tuple(line.text(name) for name in ("target", "source", "freeze", "fold"))
        value = line.share("AUC")
        if once.new(line, key, value):
            found.auc.append(Auc(*key, value))


def _read_predictions(path: Path, found: Published) -> None:
    names = ("target", "model1", "model2", "freeze", "fold", "prob")
    lines, _ = read_lines(path, (*names, "value"), found.notes)
    once = Once(path, found.notes)
    for line in lines:
        key = tuple(line.text(name) for name in names)
        if key[-1] not in ("real", "rand"):
            raise line.error(f"expected 'real' or 'rand' in column 'prob', received {key[-1]!r}")
        value = line.share("value")
        if once.new(line, key, value):
            found.predictions.append(PredictionPair(*key, value))


def _read_pairs(path: Path, target: str, found: Published) -> None:
    lines, header = read_lines(path, ("model1", "model2", "fold"), found.notes, also=("stimuli",))
    layers = [name for name in header if LAYER.fullmatch(name)]
    if not layers:
        raise DataError(f"{path}: expected columns of layers such as conv1, block1. Received: {', '.join(header)}.")
    found.layers += [name for name in layers if name not in found.layers]
    once = Once(path, found.notes)
    for line in lines:
        key = (line.text("model1"), line.text("model2"), line.text("fold"), line.fields.get("stimuli", ""))
        values = {layer: line.share(layer) for layer in layers}
        kept = {layer: value for layer, value in values.items() if value is not None}
        missing = [layer for layer in layers if layer not in kept]
        if missing and kept:
            found.notes.append(f"{path.name}, line {line.number}: no value of {', '.join(missing)}; left out")
        if once.new(line, key, tuple(values.items()) if kept else None):
            found.pairs.append(LayerPair(target, *key, kept))
