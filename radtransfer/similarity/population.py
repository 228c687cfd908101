"""Compare every pair of several runs, before and after training, grouped by their initialization.

Files of a comparison: pairs.csv groups.csv population.json, and groups_KIND.png training_KIND.png. Those of an earlier
comparison are replaced or deleted.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 and 4.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.errors import ConfigError, RunError
from radtransfer.files import atomic_folder, decimal, interval, printable
from radtransfer.process import Progress
from radtransfer.reports.figures import save_figure
from radtransfer.reports.layer_figures import Panel, SimilarityCurve, before_after, similarity_curve
from radtransfer.runs.folder import read_run, run_and_folds, write_json, write_records
from radtransfer.runs.read import depth_in_words, init_in_words, network_in_words, weights_in_words
from radtransfer.similarity import SIMILARITIES
from radtransfer.similarity.compare_layers import ComparisonSettings, compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POPULATION_FILES = ("pairs.csv", "groups.csv", "population.json", "groups_*.png", "training_*.png")

TOP = "top two"  # the name for the mean of the last two layers

INTERVAL = (
    "delete-one-run jackknife of Fisher's z, Student's t, never narrower than of independent points; of a single pair, "
    "draws are left out"
)
"""The method for the interval of R²."""

_FEWEST_POINTS = 3
# Networks with the same initial weights are identical except for rounding.
_LEAST_SPREAD = 1e-6
_ON_A_LINE = 1 - 1e-12


@dataclass(frozen=True)
class PairSimilarity:
    """The similarity of one layer of one pair of runs before and after training, None if undefined.

    `starts` are the initializations, such as "pretrained × random"; `points` both similarities in each draw.
    """

    a: str
    b: str
    starts: str
    layer: str
    kind: str
    initial: float | None
    final: float | None
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Group:
    """One layer of all pairs with the same initializations.

    Attributes:
        sd: Standard deviation of `final` over pairs, ddof 1; None for one pair. Not a confidence interval, because
            pairs share runs.
        r_squared: Squared correlation of similarity before and after training over the points of this layer; None for
            the top two, with fewer than three points, or if similarities do not vary or did not change.
        r_squared_ci95: Its 95 % interval, a jackknife over runs, because pairs that share a run and draws of one pair
            are not independent; 0 to 1 with too few runs. It does not cover other runs of an initialization with only
            one; with a single pair, draws are left out instead.
    """

    starts: str
    layer: str
    kind: str
    pairs: int
    initial: float | None
    final: float | None
    sd: float | None
    r_squared: float | None = None
    r_squared_ci95: tuple[float, float] | None = None
    n_points: int = 0


@dataclass(frozen=True)
class Population:
    """All pairs and layers, their means by initialization, and the reasons for omitted layers."""

    pairs: tuple[PairSimilarity, ...]
    groups: tuple[Group, ...]
    settings: dict[str, Any]
    left_out: tuple[str, ...] = ()
    few_rows: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()  # that were written

    def lines(self) -> list[str]:
        """A table of the groups, and what its R² is."""
        columns = ("started from", *(group.starts for group in self.groups))
        width, wide = max(map(len, columns)) + 2, max(len(group.layer) for group in self.groups) + 2
        lines = [
            f"{'started from':<{width}}{'layer':<{wide}}{'kind':<12}{'pairs':>5}{'before':>9}{'after':>9}{'sd':>9}"
            f"{'R²':>9}  {'95 % interval':<16}{'points':>6}"
        ]
        for group in self.groups:
            lines.append(
                f"{group.starts:<{width}}{group.layer:<{wide}}{group.kind:<12}{group.pairs:>5}"
                f"{decimal(group.initial):>9}{decimal(group.final):>9}{decimal(group.sd):>9}"
                f"{decimal(group.r_squared):>9}  {interval(group.r_squared_ci95):<16}{group.n_points or '':>6}"
            )
        lines.append(
            "R²: of similarity before and after training in the layer, over points, which are pairs × draws. Its "
            "interval leaves out one run after another, with a single pair one draw after another"
        )
        return lines

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.lines()))

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "files"}


def compare_population(
    runs: Sequence[str],
    settings: ComparisonSettings,
    *,
    starts: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Population:
    """Compare every pair of the runs, RUN or RUN/fold_K, before and after training, fold with fold.

    `starts` names the initialization of each run; None takes it from the plan.

    References:
        Raghu, Zhang, Kleinberg and Bengio 2019, Transfusion: Fig. 2 (pretrained with random against random with
        random), Fig. 4 (before against after training, layer by layer) and Table 5 (several seeds).
    """
    progress = progress or Progress()
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ConfigError(f"--pairs expects at least two different runs. Received: {', '.join(runs) or 'none'}.")
    every = list(combinations(runs, 2))
    folds = {run: run_and_folds(run) for run in runs}
    for a, b in every:
        shared = {*folds[a][1]} & {*folds[b][1]} if folds[a][0].resolve() == folds[b][0].resolve() else ()
        if shared:  # a fold would be compared with itself, as in RUN and RUN/fold_1
            raise ConfigError(f"--pairs expects different runs. Received: {a} and {b}, which share a fold. Name one.")
    starts, found, compared = starts or starts_of_runs(runs), [], []
    for number, (a, b) in enumerate(every, start=1):
        progress.note(f"pair {number} of {len(every)}: {a} and {b}")
        before = compare(f"{a}@initial", f"{b}@initial", settings, progress=progress)
        after = compare(a, b, settings, progress=progress)
        both = " × ".join(sorted((starts[a], starts[b])))
        for first, last in zip(before.layers, after.layers, strict=True):
            draws = zip(*(each.draws[last.layer, last.kind] for each in (before, after)), strict=True)
            points = tuple(point for point in draws if None not in point)
            pair = PairSimilarity(a, b, both, last.layer, last.kind, first.similarity, last.similarity, points)
            found.append(pair)
        compared += [before, after]
    groups = [g for kind in settings.similarity for g in _groups([p for p in found if p.kind == kind], starts)]
    record = {name: value for name, value in compared[1].settings.items() if name not in ("a", "b")}
    return Population(
        tuple(found),
        tuple(groups),
        {"runs": list(runs), "starts": dict(starts), **record, "r_squared_ci95": INTERVAL},
        tuple(dict.fromkeys(text for each in compared for text in each.left_out)),
        tuple(dict.fromkeys(name for each in compared for name in each.few_rows)),
    )


def starts_of_runs(runs: Sequence[str]) -> dict[str, str]:
    """The initialization of each run from its plan: "pretrained" or "random" for all stages, else part by part.

    Different weights, networks and trained stages are added by name. RunError if a run has no plan.
    """
    folders = {run: run_and_folds(run)[0] for run in runs}
    records = {run: read_run(folder) for run, folder in folders.items()}
    for folder, record in zip(folders.values(), records.values(), strict=True):
        if not record["plan"].get("stages"):
            raise RunError(
                f"{folder / 'run.json'}: expected the stages of the plan, which group the runs. Restore the file."
            )
    weights = _weights_of(records)
    whole = {run for run in runs if init_in_words(records[run], "pretrained") == "pretrained"}
    one = len({weights[run] for run in whole}) == 1
    starts = {run: init_in_words(records[run], "pretrained" if one and run in whole else weights[run]) for run in runs}
    for words in (network_in_words, depth_in_words):
        if len({words(record) for record in records.values()}) > 1:
            starts = {run: f"{start}, {words(records[run])}" for run, start in starts.items()}
    return starts


def _weights_of(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The source of each run's weights: a short name per file, or the full source if short names are the same."""
    keys = {run: r["weights"].get("sha256") or r["weights"].get("source") for run, r in records.items()}
    sources: dict[str, str] = {}
    for run, key in keys.items():
        sources.setdefault(key, str(records[run]["weights"].get("source")))
    names = [weights_in_words(source) for source in sources.values()]
    shown = {key: name if names.count(name) == 1 else sources[key] for key, name in zip(sources, names, strict=True)}
    return {run: shown[key] for run, key in keys.items()}


def _groups(pairs: Sequence[PairSimilarity], starts: Mapping[str, str]) -> list[Group]:
    """The groups of one kind: all layers, and then the mean of the last two."""

    def mean_of(layer: str, pairs: Sequence[Sequence[PairSimilarity]], **relation: Any) -> Group:
        """The mean over pairs with both similarities; several layers of a pair are averaged first."""
        values = np.array([np.mean([(p.initial, p.final) for p in pair], axis=0, dtype=float) for pair in pairs])
        values = values[~np.isnan(values).any(axis=1)]
        means = values.mean(axis=0).tolist() if len(values) else [None, None]
        sd = float(values[:, 1].std(ddof=1)) if len(values) > 1 else None
        return Group(pairs[0][0].starts, layer, pairs[0][0].kind, len(values), *means, sd, **relation)

    groups = []
    for name in dict.fromkeys(pair.starts for pair in pairs):
        members = [pair for pair in pairs if pair.starts == name]
        layers = list(dict.fromkeys(pair.layer for pair in members))
        for layer in layers:
            of_layer = [pair for pair in members if pair.layer == layer]
            groups.append(mean_of(layer, [[p] for p in of_layer], **training_relation(of_layer, starts)))
        every = dict.fromkeys((pair.a, pair.b) for pair in members)
        top = [[p for p in members if (p.a, p.b) == names and p.layer in layers[-2:]] for names in every]
        groups.append(mean_of(TOP, top))
    return groups


def training_relation(pairs: Sequence[PairSimilarity], starts: Mapping[str, str]) -> dict[str, Any]:
    """R² between similarity before and after training in one layer, its interval, and the number of points."""
    points = [point for pair in pairs for point in pair.points]
    z = _fisher(points)
    if z is None:
        return {"n_points": len(points)}
    return {"r_squared": float(np.tanh(z) ** 2), "r_squared_ci95": _interval(z, pairs, starts), "n_points": len(points)}


def _interval(z: float, pairs: Sequence[PairSimilarity], starts: Mapping[str, str]) -> tuple[float, float]:
    """The 95 % interval of R², tanh(z)², from z without each run; at least as wide as for independent points.

    The runs of each initialization are one sample; the errors of both samples of a pair add up, and a single run adds
    none.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    pairs = [pair for pair in pairs if pair.points]
    if len(pairs) == 1:
        (alone,) = [pair.points for pair in pairs]
        rests = [[alone[:draw] + alone[draw + 1 :] for draw in range(len(alone))]]
    else:
        runs = dict.fromkeys(run for pair in pairs for run in (pair.a, pair.b))
        samples = [[run for run in runs if starts[run] == start] for start in {starts[run] for run in runs}]
        rests = [
            [[point for pair in pairs if run not in (pair.a, pair.b) for point in pair.points] for run in sample]
            for sample in samples
            if len(sample) > 1
        ]
    left_out, points = [[_fisher(rest) for rest in sample] for sample in rests], sum(len(p.points) for p in pairs)
    if any(None in sample for sample in left_out) or points <= _FEWEST_POINTS:
        return 0.0, 1.0
    # About z, not about their mean: two values without one network each may agree with each other but not with z.
    variance = sum((len(sample) - 1) * np.mean((np.array(sample) - z) ** 2) for sample in left_out)
    degrees = min(map(len, left_out)) - 1
    half = max(student.ppf(0.975, degrees) * np.sqrt(variance), norm.ppf(0.975) / np.sqrt(points - _FEWEST_POINTS))
    low, high = sorted(np.tanh([z - half, z + half]) ** 2)
    return 0.0 if abs(z) <= half else float(low), float(high)


def _fisher(points: Sequence[tuple[float, float]]) -> float | None:
    """Fisher's z of the correlation; None with too few points, or if one side does not vary or nothing changed."""
    before, after = np.array(points, float).reshape(-1, 2).T
    if len(before) < _FEWEST_POINTS:
        return None
    if min(np.ptp(before), np.ptp(after), np.abs(after - before).max()) < _LEAST_SPREAD:
        return None
    # On a perfect line, z is infinite.
    return float(np.arctanh(np.clip(np.corrcoef(before, after)[0, 1], -_ON_A_LINE, _ON_A_LINE)))


def draw_groups(population: Population, kind: str, *, top: bool = False) -> "Figure":
    groups = [group for group in population.groups if group.kind == kind and (top or group.layer != TOP)]
    names = list(dict.fromkeys(group.layer for group in groups))
    starts = dict.fromkeys(group.starts for group in groups)
    curves = {}
    for start in starts:
        members = [group for group in groups if group.starts == start]
        values, sd = (np.array([getattr(group, name) for group in members], float) for name in ("final", "sd"))
        low, high, chance = (values - sd).tolist(), (values + sd).tolist(), [np.nan] * len(members)
        curves[start] = SimilarityCurve(values.tolist(), low, high, chance)
    return similarity_curve(names, curves, measure=f"similarity ({SIMILARITIES[kind].title})")


def draw_training(population: Population, kind: str) -> "Figure":
    groups = [group for group in population.groups if group.kind == kind and group.layer != TOP]
    pairs = [pair for pair in population.pairs if pair.kind == kind]
    return before_after(
        {
            (g.starts, g.layer): Panel(
                [pair.points for pair in pairs if (pair.starts, pair.layer) == (g.starts, g.layer)],
                g.r_squared,
                g.r_squared_ci95,
            )
            for g in groups
        }
    )


def write_population(population: Population, out: Path) -> list[Path]:
    """Write pairs.csv, groups.csv, population.json and for each kind groups_KIND.png and training_KIND.png."""
    names = ["pairs.csv", "groups.csv", "population.json"]
    with atomic_folder(out, POPULATION_FILES, last="population.json") as folder:
        write_records(folder / names[0], population.pairs, without=("points",))
        write_records(folder / names[1], population.groups)
        write_json(folder / names[2], population.to_dict())
        for kind in dict.fromkeys(group.kind for group in population.groups):
            figures = {
                f"groups_{kind}.png": draw_groups(population, kind),
                f"training_{kind}.png": draw_training(population, kind),
            }
            for name, figure in figures.items():
                save_figure(figure, folder / name)
                names.append(name)
    return [out / name for name in names]
