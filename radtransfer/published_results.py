"""Results of a transfer study as Juodelyte et al. publish theirs: CSV files of one folder, known by their names.

AUC.csv            target, source, freeze, fold, AUC
CCA_<target>.csv   model1, model2, fold, (stimuli), and a column per layer
similarity.csv     target, model1, model2, freeze, fold, prob ("real" or "rand"), value

Targets, sources, folds and layers are whatever the files hold. A value that is no number from 0 to 1 is an error; one
that is missing (empty, NaN) is left out with a note, and so is a repeated line.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023 (arXiv 2302.08272), results/ of DovileDo/revisiting-transfer.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from radtransfer.errors import DataError

_CCA_FILE = re.compile(r"CCA_(.+)\.csv")
_LAYER = re.compile(r"(conv|block|stem|stage|layer|mixed)[_-]?\d*|conv\d_\w+")
_MISSING = {"", "nan", "na", "n/a", "null", "none", "-"}


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


@dataclass(frozen=True)
class _Line:
    path: Path
    number: int
    fields: dict[str, str]

    def text(self, column: str) -> str:
        """A name; raises DataError where there is none."""
        if not self.fields[column]:
            raise self.error(f"column {column!r} is empty")
        return self.fields[column]

    def share(self, column: str) -> float | None:
        """A number from 0 to 1; None where it is missing."""
        text = self.fields[column]
        if text.lower() in _MISSING:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("inf")
        if not -1e-6 <= value <= 1 + 1e-6:
            raise self.error(f"expected a number from 0 to 1 in column {column!r}, received {text!r}")
        return min(max(value, 0.0), 1.0)

    def error(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.number}: {what}. Correct the line.")


def _read_auc(path: Path, found: Published) -> None:
    lines, _ = _lines(path, ("target", "source", "freeze", "fold", "AUC"), found)
    once = _Once(path, found.notes)
    for line in lines:
        key = tuple(line.text(name) for name in ("target", "source", "freeze", "fold"))
        value = line.share("AUC")
        if once.new(line, key, value):
            found.auc.append(Auc(*key, value))


def _read_predictions(path: Path, found: Published) -> None:
    names = ("target", "model1", "model2", "freeze", "fold", "prob")
    lines, _ = _lines(path, (*names, "value"), found)
    once = _Once(path, found.notes)
    for line in lines:
        key = tuple(line.text(name) for name in names)
        if key[-1] not in ("real", "rand"):
            raise line.error(f"expected 'real' or 'rand' in column 'prob', received {key[-1]!r}")
        value = line.share("value")
        if once.new(line, key, value):
            found.predictions.append(PredictionPair(*key, value))


def _read_pairs(path: Path, target: str, found: Published) -> None:
    lines, header = _lines(path, ("model1", "model2", "fold"), found, also=("stimuli",))
    layers = [name for name in header if _LAYER.fullmatch(name)]
    if not layers:
        raise DataError(f"{path}: expected columns of layers such as conv1, block1. Received: {', '.join(header)}.")
    found.layers += [name for name in layers if name not in found.layers]
    once = _Once(path, found.notes)
    for line in lines:
        key = (line.text("model1"), line.text("model2"), line.text("fold"), line.fields.get("stimuli", ""))
        values = {layer: line.share(layer) for layer in layers}
        kept = {layer: value for layer, value in values.items() if value is not None}
        missing = [layer for layer in layers if layer not in kept]
        if missing and kept:
            found.notes.append(f"{path.name}, line {line.number}: no value of {', '.join(missing)}; left out")
        if once.new(line, key, tuple(values.items()) if kept else None):
            found.pairs.append(LayerPair(target, *key, kept))


class _Once:
    """Sees to it that each line counts once."""

    def __init__(self, path: Path, notes: list[str]):
        self.path, self.notes, self.seen = path, notes, {}

    def new(self, line: _Line, key: tuple, value: object) -> bool:
        """Whether the line has a value and its key is met for the first time.

        Raises:
            DataError: The key was met with another value.
        """
        where = f"{self.path.name}, line {line.number} ({', '.join(filter(None, key))})"
        if value is None:
            self.notes.append(f"{where}: no value; left out")
            return False
        if key not in self.seen:
            self.seen[key] = (line.number, value)
            return True
        first, before = self.seen[key]
        if before != value:
            raise line.error(f"{', '.join(filter(None, key))} stands in line {first} already, with another value")
        self.notes.append(f"{where}: repeats line {first}; counted once")
        return False


def _lines(
    path: Path, columns: Sequence[str], found: Published, *, also: Sequence[str] = ()
) -> tuple[Iterator[_Line], list[str]]:
    """The lines of a CSV file that are not blank, and its header; notes the columns that say nothing to us."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8; it cannot be read ({error}).") from None
    missing = [name for name in columns if name not in header]
    if missing:
        has = ", ".join(filter(None, header)) or "nothing"
        raise DataError(
            f"{path}: expected the columns {', '.join(columns)}; {', '.join(missing)} missing. It has {has}."
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {', '.join(twice)} stands there twice. Name each column once.")
    unknown = [name for name in header if name not in (*columns, *also) and not (also and _LAYER.fullmatch(name))]
    if any(unknown):
        found.notes.append(f"{path.name}: columns not used: {', '.join(filter(None, unknown))}")
    if not any(text.strip() for _, row in rows for text in row):
        found.notes.append(f"{path.name}: no line below the header")
    return _checked(path, header, rows), header


def _checked(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[_Line]:
    for number, row in rows:
        if not any(text.strip() for text in row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number}: expected {len(header)} fields, as the header has, received {len(row)}. "
                "Correct the line."
            )
        yield _Line(path, number, dict(zip(header, (text.strip() for text in row), strict=True)))
