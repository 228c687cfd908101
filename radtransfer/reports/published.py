"""Results of a transfer study in the format of Juodelyte et al.: CSV files of one folder, and tables from them.

AUC.csv            target, source, freeze, fold, AUC
CCA_<target>.csv   model1, model2, fold, (stimuli), and a column per layer
similarity.csv     target, model1, model2, freeze, fold, prob ("real" or "rand"), value

Targets, sources, folds and layers are read from the files. A value that is not a number from 0 to 1 is an error;
missing values (empty, NaN) and repeated lines are left out with a note.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023 (arXiv 2302.08272), results/ of DovileDo/revisiting-transfer.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from radtransfer.errors import DataError
from radtransfer.reports.statistics import (
    GainPoint,
    Interval,
    fit_line,
    fit_within,
    fold_difference,
    relative_gain,
    slopes_without_one,
    spread,
)

RANDOM = "random"  # the source of randomly initialized networks

UNFROZEN, FROZEN = "freezeFalse", "freezeTrue"

LAYER = re.compile(r"(conv|block|stem|stage|layer|mixed)[_-]?\d*|conv\d_\w+")  # names of layer columns

_MISSING = {"", "nan", "na", "n/a", "null", "none", "-"}

Row = dict[str, Any]


class Auc(NamedTuple):
    """The AUC of one fold."""

    target: str
    source: str
    freeze: str
    fold: str
    value: float


class LayerPair(NamedTuple):
    """Two networks compared layer by layer on one fold."""

    target: str  # of the file
    model1: str  # `<target>-<source>-<freeze>` after fine-tuning, `<source>` or `random` before it
    model2: str
    fold: str
    stimuli: str  # the images of the comparison; empty if not in the file
    values: dict[str, float]  # CCA by layer, 0–1, without missing values

    @property
    def is_own_start(self) -> bool:
        """Whether it is an unfrozen network and its own initialization."""
        return self.model1 == f"{self.target}-{self.model2}-{UNFROZEN}"


class PredictionPair(NamedTuple):
    """How often two networks are both correct or both wrong: `prob` is "real" (observed) or "rand" (by chance)."""

    target: str
    model1: str
    model2: str
    freeze: str
    fold: str
    prob: str
    value: float


@dataclass
class Published:
    """The content of a folder: lines in the order of the files, files read and ignored, and notes."""

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
        """In the order of the files."""
        return list(dict.fromkeys(item.target for item in (*self.auc, *self.pairs, *self.predictions)))


def read_published(folder: Path) -> Published:
    """Read the files with known names in `folder`; DataError without one, or for missing columns or malformed lines."""
    if not folder.is_dir():
        raise DataError(f"Expected a folder with AUC.csv, CCA_<target>.csv or similarity.csv. Received: {folder}.")
    found = Published(folder)
    for path in sorted(folder.iterdir()):
        target = re.fullmatch(r"CCA_(.+)\.csv", path.name)
        if not path.is_file() or not (target or path.name in ("AUC.csv", "similarity.csv")):
            found.ignored.append(path.name)
            continue
        found.files.append(path.name)
        if target:
            _read_pairs(path, target[1], found)
        elif path.name == "AUC.csv":
            names = ("target", "source", "freeze", "fold")
            found.auc = [Auc(*key, value) for key, value in _read_values(path, names, "AUC", found.notes)]
        else:
            names = ("target", "model1", "model2", "freeze", "fold", "prob")
            found.predictions = [PredictionPair(*k, v) for k, v in _read_values(path, names, "value", found.notes)]
    if not found.files:
        others = ", ".join(found.ignored[:5]) or "nothing"
        raise DataError(f"{folder}: expected AUC.csv, CCA_<target>.csv or similarity.csv, found {others}.")
    return found


def auc_rows(found: Published) -> list[Row]:
    """Mean, SD and number of folds of every target, source and freeze."""
    values: dict[tuple, list[float]] = {}
    for item in found.auc:
        values.setdefault((item.target, item.source, item.freeze), []).append(item.value)
    rows = [dict(zip(("target", "source", "freeze"), key, strict=True)) | vars(spread(v)) for key, v in values.items()]
    targets = found.targets
    return sorted(rows, key=lambda row: targets.index(row["target"]))


def difference_rows(found: Published) -> list[Row]:
    """Differences of any two sources on the same target, freeze and folds; of each source, unfrozen minus frozen."""
    folds: dict[tuple, dict[str, float]] = {}
    for item in found.auc:
        folds.setdefault((item.target, item.source, item.freeze), {})[item.fold] = item.value
    sources = list(dict.fromkeys(item.source for item in found.auc))
    pairs = [(a, b, UNFROZEN, UNFROZEN) for i, a in enumerate(sources) for b in sources[i + 1 :]]
    pairs += [(source, source, UNFROZEN, FROZEN) for source in sources]
    rows = []
    for target in dict.fromkeys(item.target for item in found.auc):
        for a, b, freeze_a, freeze_b in pairs:
            difference = fold_difference(folds.get((target, a, freeze_a), {}), folds.get((target, b, freeze_b), {}))
            if difference is not None:
                names = {"target": target, "source_a": a, "freeze_a": freeze_a, "source_b": b, "freeze_b": freeze_b}
                figures = {"mean": difference.mean, "sd": difference.sd, "ci95": _list(difference.ci95)}
                rows.append(names | figures | {"n": difference.n, "a_better": difference.positive})
    return rows


def pair_kind(pair: LayerPair) -> tuple[str, str]:
    """The kind of a pair (starts, own start, sources, frozen, random, other), and a title."""

    def parts(model: str) -> tuple[str, str]:
        """Source and freeze in the name of a network; freeze is empty before fine-tuning."""
        for freeze in (UNFROZEN, FROZEN):
            if model.startswith(f"{pair.target}-") and model.endswith(f"-{freeze}"):
                return model[len(pair.target) + 1 : -len(freeze) - 1], freeze
        return model, ""

    (source1, freeze1), (source2, freeze2) = parts(pair.model1), parts(pair.model2)
    frozen = ", frozen" if FROZEN in (freeze1, freeze2) else ""
    if not freeze1 and not freeze2:
        return "starts", f"{source1} – {source2}, before"
    if freeze1 and freeze2:
        if source1 == source2:
            return "frozen", f"{source1}, unfrozen – frozen"
        return "sources", f"{source1} – {source2}, after{', frozen' if freeze1 == FROZEN else ''}"
    source, start = (source1, source2) if freeze1 else (source2, source1)
    if source == start:
        return "own start", f"{source}, before – after{frozen}"
    return "random" if start == RANDOM else "other", f"{source} after{frozen} – {start}"


def cca_rows(found: Published) -> list[Row]:
    """Mean and SD over folds of every pair and layer."""
    values: dict[tuple, list[float]] = {}
    for pair in found.pairs:
        for layer in found.layers:
            if layer in pair.values:
                key = (pair.target, *pair_kind(pair), pair.model1, pair.model2, layer)
                values.setdefault(key, []).append(pair.values[layer])
    names = ("target", "kind", "pair", "model1", "model2", "layer")
    return [dict(zip(names, key, strict=True)) | vars(spread(scores)) for key, scores in values.items()]


def prediction_rows(found: Published) -> list[Row]:
    """Observed and expected agreement, and their difference on folds with both."""
    values: dict[tuple, dict[str, dict[str, float]]] = {}
    for item in found.predictions:
        key = (item.target, item.model1, item.model2, item.freeze)
        values.setdefault(key, {"real": {}, "rand": {}})[item.prob][item.fold] = item.value
    rows = []
    for (target, model1, model2, freeze), by_prob in values.items():
        row: Row = {"target": target, "model1": model1, "model2": model2, "freeze": freeze}
        for name, folds in by_prob.items():
            of_folds = spread(list(folds.values()))
            row |= {f"{name}_mean": of_folds.mean, f"{name}_sd": of_folds.sd}
        excess = fold_difference(by_prob["real"], by_prob["rand"])
        if excess is None:
            row |= {"excess": None, "excess_ci95": None, "n": 0}
        else:
            row |= {"excess": excess.mean, "excess_ci95": _list(excess.ci95), "n": excess.n}
        rows.append(row)
    return rows


def gain_sources(found: Published) -> list[str]:
    """Sources of networks that are compared with their own initialization, in the order of the AUC file."""
    paired = dict.fromkeys(pair.model2 for pair in found.pairs if pair.is_own_start)
    known = dict.fromkeys(item.source for item in found.auc if item.source in paired)
    return [source for source in known | paired if source != RANDOM]


def gain_points(found: Published) -> tuple[dict[tuple[str, str], list[GainPoint]], list[str]]:
    """The points of each source and layer, one per target and fold, and notes on unused folds.

    x: CCA between the fine-tuned network and its own initialization; y: relative gain over random initialization on the
    same target and fold, all layers trained (freezeFalse).
    """
    aucs = {(i.target, i.source, i.fold): i.value for i in found.auc if i.freeze == UNFROZEN}
    points = {(source, layer): [] for source in gain_sources(found) for layer in found.layers}
    # Fine-tuned networks and their initialization: one line per target, source and fold, on images of the target.
    chosen: dict[tuple, LayerPair] = {}
    for pair in found.pairs:
        key = (pair.target, pair.model2, pair.fold)
        if pair.is_own_start and pair.model2 != RANDOM and (key not in chosen or pair.stimuli == pair.target):
            chosen[key] = pair
    used, missing = list(chosen.values()), {}
    for pair in used:
        auc, of_random = aucs.get((pair.target, pair.model2, pair.fold)), aucs.get((pair.target, RANDOM, pair.fold))
        if auc is None or not of_random:
            what = "AUC" if auc is None else "AUC of random initialization" + ("" if of_random is None else " above 0")
            missing.setdefault(f"{pair.target}, {pair.model2}: no {what} in", []).append(pair.fold)
            continue
        gain = relative_gain(auc, of_random)
        for layer, similarity in pair.values.items():
            points[pair.model2, layer].append(GainPoint(pair.target, pair.fold, similarity, gain))
    what = "similarity against gain"
    notes = [f"{what}, {which} {', '.join(folds)}; left out" for which, folds in missing.items()]
    for target in sorted({pair.target for pair in found.pairs} - {pair.target for pair in used}):
        notes.append(f"{what}: CCA_{target}.csv has no {target}-<source>-{UNFROZEN} with its <source>")
    for pair in found.pairs:
        if pair.is_own_start and pair.model2 != RANDOM and pair not in used:
            notes.append(f"{what}, {pair.model1}, {pair.fold}: stimuli {pair.stimuli!r} left out")
    if found.auc and not found.pairs:
        notes.append(f"{what}: no CCA_<target>.csv")
    return points, notes


def gain_rows(found: Published) -> tuple[list[Row], list[str]]:
    """Least-squares fits of gain to similarity by source and layer, and notes."""
    rows, (points, notes) = [], gain_points(found)
    for (source, layer), members in points.items():
        line = fit_line([point.similarity for point in members], [point.gain for point in members])
        within, without = fit_within(members), slopes_without_one(members)
        if line.reason:
            notes.append(f"similarity against gain, {source}, {layer}: {line.reason}")
        rows.append(
            {"source": source, "layer": layer, "slope": line.slope, "r": line.r, "ci95": _list(line.ci95), "n": line.n}
            | {"r_ci95": _list(line.r_ci95), "intercept": line.intercept, "targets": list(without)}
            | {"slope_within_targets": within.slope, "ci95_within_targets": _list(within.ci95)}
            | {"slope_without": without if len(without) > 1 else {}}
        )
    return rows, notes


def _list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


class _Line(NamedTuple):
    """A line of a file: its number (the header is 1), and its fields by column, without blanks."""

    path: Path
    number: int
    fields: dict[str, str]

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        for column in columns:
            if not self.fields[column]:
                raise self.error(f"column {column!r} is empty")
        return tuple(self.fields[column] for column in columns)

    def share(self, column: str) -> float | None:
        """A number from 0 to 1; None if missing."""
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

    def is_new(self, key: tuple[str, ...], value: object, seen: dict, notes: list[str]) -> bool:
        """Whether the line has a value and a new key; a key with two values is an error."""
        named = ", ".join(filter(None, key))
        where = f"{self.path.name}, line {self.number} ({named})"
        if value is None:
            notes.append(f"{where}: no value; left out")
            return False
        first, before = seen.setdefault(key, (self.number, value))
        if before != value:
            raise self.error(f"{named} is already in line {first}, with another value")
        if first != self.number:
            notes.append(f"{where}: repeats line {first}; counted once")
        return first == self.number

    def error(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.number}: {what}. Correct the line.")


def _read_values(
    path: Path, names: Sequence[str], column: str, notes: list[str]
) -> Iterator[tuple[tuple[str, ...], float]]:
    """The value in `column` of every line, by its names."""
    seen: dict = {}
    for line in _read_lines(path, (*names, column), notes)[0]:
        key = line.names(names)
        if "prob" in names and key[-1] not in ("real", "rand"):
            raise line.error(f"expected 'real' or 'rand' in column 'prob', received {key[-1]!r}")
        value = line.share(column)
        if line.is_new(key, value, seen, notes):
            yield key, value


def _read_pairs(path: Path, target: str, found: Published) -> None:
    names, seen = ("model1", "model2", "fold"), {}
    lines, header = _read_lines(path, names, found.notes, also=("stimuli",))
    layers = [name for name in header if LAYER.fullmatch(name)]
    if not layers:
        raise DataError(f"{path}: expected columns of layers such as conv1, block1. Received: {', '.join(header)}.")
    found.layers += [name for name in layers if name not in found.layers]
    for line in lines:
        key = (*line.names(names), line.fields.get("stimuli", ""))
        values = {layer: line.share(layer) for layer in layers}
        kept = {layer: value for layer, value in values.items() if value is not None}
        if kept and len(kept) < len(layers):
            missing = ", ".join(layer for layer in layers if layer not in kept)
            found.notes.append(f"{path.name}, line {line.number}: no value of {missing}; left out")
        if line.is_new(key, tuple(values.items()) if kept else None, seen, found.notes):
            found.pairs.append(LayerPair(target, *key, kept))


def _read_lines(
    path: Path, columns: Sequence[str], notes: list[str], *, also: Sequence[str] = ()
) -> tuple[Iterator[_Line], list[str]]:
    """The lines of a CSV file that are not blank, and its header; unused columns are noted."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [text.strip() for text in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8 ({error}). Save it as UTF-8.") from None
    missing = [name for name in columns if name not in header]
    if missing:
        has = ", ".join(filter(None, header)) or "nothing"
        raise DataError(f"{path}: expected the columns {', '.join(columns)}, received {has}. Add {', '.join(missing)}.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: expected different columns, received {', '.join(twice)} twice. Rename one.")
    unknown = [name for name in header if name not in (*columns, *also) and not (also and LAYER.fullmatch(name))]
    if any(unknown):
        notes.append(f"{path.name}: columns not used: {', '.join(filter(None, unknown))}")
    if not any(text for _, row in rows for text in row):
        notes.append(f"{path.name}: no line below the header")

    def lines() -> Iterator[_Line]:
        for number, row in rows:
            if any(row) and len(row) != len(header):
                raise DataError(
                    f"{path}, line {number}: expected {len(header)} fields, as the header has, received {len(row)}. "
                    "Correct the line."
                )
            if any(row):
                yield _Line(path, number, dict(zip(header, row, strict=True)))

    return lines(), header
