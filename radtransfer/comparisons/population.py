"""Compare every pair of several runs, before and after training, grouped by what they started from."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.comparisons.compare import Comparison, ComparisonSettings, compare
from radtransfer.errors import ConfigError
from radtransfer.progress import Progress
from radtransfer.runs import find_fold, finished_folds, read_run

_FEWEST_POINTS = 3
# Networks that started from the same weights are identical but for rounding.
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class PairSimilarity:
    """One layer of one pair of runs.

    Attributes:
        a, b: The runs.
        starts: What the two started from, such as "pretrained × random".
        layer: The stage or layer.
        kind: Key of `SIMILARITIES`.
        initial: Similarity before training; None where it is not defined.
        final: Similarity after training.
    """

    a: str
    b: str
    starts: str
    layer: str
    kind: str
    initial: float | None
    final: float | None


@dataclass(frozen=True)
class Group:
    """One layer of all pairs with the same starts.

    Attributes:
        starts: As in `PairSimilarity`.
        layer: The stage or layer; "top two" is the mean of the last two.
        kind: Key of `SIMILARITIES`.
        pairs: How many.
        initial: Mean before training.
        final: Mean after training.
        sd: Standard deviation of the latter over pairs, ddof 1; None for one. Pairs share runs, so it is no
            interval.
    """

    starts: str
    layer: str
    kind: str
    pairs: int
    initial: float | None
    final: float | None
    sd: float | None


@dataclass(frozen=True)
class Population:
    """What was found.

    Attributes:
        pairs: Every pair and layer.
        groups: Their means by what they started from.
        r_squared: Kind, then starts: squared correlation of similarity before and after training over
            pairs and layers; None with fewer than three points, or where all are the same.
        settings: How each pair was compared.
    """

    pairs: tuple[PairSimilarity, ...]
    groups: tuple[Group, ...]
    r_squared: dict[str, dict[str, float | None]]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        return dataclasses.asdict(self)


def compare_population(
    runs: Sequence[str], settings: ComparisonSettings, *, progress: Progress | None = None
) -> Population:
    """Compare every pair of the runs, as they started and as they ended, fold with fold.

    Args:
        runs: Run folders, or RUN/fold_K.
        settings: How each pair is compared.
        progress: Hears what happens.

    Raises:
        ConfigError: Fewer than two runs, or a fold twice.
        RadtransferError: As `compare`.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion: Fig. 2 (pretrained with random against random with
        random), Fig. 4 (before against after training) and Table 5 (several seeds).
    """
    progress = progress or Progress()
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ConfigError(f"--pairs expects at least two different runs. Received: {', '.join(runs) or 'none'}.")
    every = list(combinations(runs, 2))
    _check_different(every)
    starts, found, record = _starts_of(runs), [], {}
    for number, (a, b) in enumerate(every, start=1):
        progress.note(f"pair {number} of {len(every)}: {a} and {b}")
        before = compare(f"{a}@initial", f"{b}@initial", settings, progress=progress)
        after = compare(a, b, settings, progress=progress)
        found += _pairs(a, b, " × ".join(sorted((starts[a], starts[b]))), before, after)
        record = record or after.settings
    groups = [group for kind in settings.similarity for group in _groups([p for p in found if p.kind == kind])]
    record = {name: value for name, value in record.items() if name not in ("a", "b")}
    return Population(tuple(found), tuple(groups), _r_squared(found), {"runs": list(runs), "starts": starts, **record})


def _check_different(pairs: Sequence[tuple[str, str]]) -> None:
    """See that no fold would be compared with itself, as of RUN and RUN/fold_1."""
    for a, b in pairs:
        if _folds(a) & _folds(b):
            raise ConfigError(f"--pairs expects different runs. Received: {a} and {b}, which share a fold. Name one.")


def _folds(run: str) -> set[tuple[Path, int]]:
    path = Path(run)
    if (path / "run.json").is_file():
        return {(path.resolve(), number) for number in finished_folds(path)}
    folder, fold = find_fold(path)
    return {(folder.resolve(), fold)}


def _starts_of(runs: Sequence[str]) -> dict[str, str]:
    """What each run started from: "random" or "pretrained"; where several weights differ, their names."""
    names = {}
    for run in runs:
        path = Path(run)
        record = read_run(path if (path / "run.json").is_file() else find_fold(path)[0])
        names[run] = Path(record["weights"]["source"]).stem
    if len({*names.values()} - {"random"}) > 1:
        return names
    return {run: name if name == "random" else "pretrained" for run, name in names.items()}


def _pairs(a: str, b: str, starts: str, before: Comparison, after: Comparison) -> list[PairSimilarity]:
    return [
        PairSimilarity(a, b, starts, last.layer, last.kind, first.similarity, last.similarity)
        for first, last in zip(before.layers, after.layers, strict=True)
    ]


def _groups(pairs: Sequence[PairSimilarity]) -> list[Group]:
    """Of one kind; after the layers of each group, the mean of the last two."""
    groups = []
    for starts in dict.fromkeys(pair.starts for pair in pairs):
        members = [pair for pair in pairs if pair.starts == starts]
        layers = list(dict.fromkeys(pair.layer for pair in members))
        groups += [_group(layer, [[p] for p in members if p.layer == layer]) for layer in layers]
        top = [[p for p in members if (p.a, p.b) == names and p.layer in layers[-2:]] for names in _names(members)]
        groups.append(_group("top two", top))
    return groups


def _names(pairs: Sequence[PairSimilarity]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((pair.a, pair.b) for pair in pairs))


def _group(layer: str, pairs: Sequence[Sequence[PairSimilarity]]) -> Group:
    """The mean over pairs, each given by one layer or several that are averaged first."""
    initial, final = (
        np.array([np.mean(np.array([getattr(p, name) for p in pair], float)) for pair in pairs])
        for name in ("initial", "final")
    )
    sd = float(final.std(ddof=1)) if final.size > 1 else None
    return Group(pairs[0][0].starts, layer, pairs[0][0].kind, len(pairs), *map(_mean, (initial, final)), sd)


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).any() else float(values.mean())


def _r_squared(pairs: Sequence[PairSimilarity]) -> dict[str, dict[str, float | None]]:
    return {
        kind: {
            starts: _squared_correlation([p for p in pairs if (p.kind, p.starts) == (kind, starts)])
            for starts in dict.fromkeys(pair.starts for pair in pairs)
        }
        for kind in dict.fromkeys(pair.kind for pair in pairs)
    }


def _squared_correlation(pairs: Sequence[PairSimilarity]) -> float | None:
    points = np.array([(pair.initial, pair.final) for pair in pairs], float)
    points = points[~np.isnan(points).any(axis=1)]
    if len(points) < _FEWEST_POINTS or np.ptp(points, axis=0).min() < _LEAST_SPREAD:
        return None
    return float(np.corrcoef(points.T)[0, 1] ** 2)
