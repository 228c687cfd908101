"""What the published files say, as rows: AUC, differences, CCA, prediction similarity, and similarity against gain."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from radtransfer.reports.fold_statistics import fold_difference, spread
from radtransfer.reports.gain import GainPoint, fit_line, fit_within, relative_gain, slopes_without_one
from radtransfer.reports.published.results import LayerPair, Published

RANDOM = "random"
"""The source of networks that were not pretrained."""

UNFROZEN, FROZEN = "freezeFalse", "freezeTrue"

Row = dict[str, Any]


def auc_rows(found: Published) -> list[Row]:
    """Mean, sd and number of folds of every target, source and freeze."""
    values: dict[tuple, list[float]] = {}
    for item in found.auc:
        values.setdefault((item.target, item.source, item.freeze), []).append(item.value)
    rows = []
    for (target, source, freeze), aucs in values.items():
        found_spread = spread(aucs)
        names = {"target": target, "source": source, "freeze": freeze}
        rows.append(names | {"mean": found_spread.mean, "sd": found_spread.sd, "n": found_spread.n})
    place = {target: number for number, target in enumerate(found.targets)}
    return sorted(rows, key=lambda row: place[row["target"]])


def difference_rows(found: Published) -> list[Row]:
    """Every two sources on the same target, freeze and folds; and each source unfrozen less frozen."""
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


@dataclass(frozen=True)
class PairKind:
    """What two compared networks are to each other; `title` is what a figure calls them."""

    kind: str
    title: str


def pair_kind(pair: LayerPair) -> PairKind:
    """Sorts a pair by what its networks are: starts, a network and its own start, two sources, frozen or not."""
    (source1, freeze1), (source2, freeze2) = (_parts(model, pair.target) for model in (pair.model1, pair.model2))
    if not freeze1 and not freeze2:
        return PairKind("starts", f"{source1} – {source2}, before")
    if freeze1 and freeze2:
        if source1 == source2:
            return PairKind("frozen", f"{source1}, unfrozen – frozen")
        return PairKind("sources", f"{source1} – {source2}, after{_frozen(freeze1)}")
    source, freeze, start = (source1, freeze1, source2) if freeze1 else (source2, freeze2, source1)
    if source == start:
        return PairKind("own start", f"{source}, before – after{_frozen(freeze)}")
    return PairKind("random" if start == RANDOM else "other", f"{source} after{_frozen(freeze)} – {start}")


def cca_rows(found: Published) -> list[Row]:
    """Mean and sd over folds of every pair and layer."""
    values: dict[tuple, list[float]] = {}
    kinds: dict[tuple, PairKind] = {}
    for pair in found.pairs:
        kinds[pair.target, pair.model1, pair.model2] = pair_kind(pair)
        for layer in found.layers:
            if layer in pair.values:
                values.setdefault((pair.target, pair.model1, pair.model2, layer), []).append(pair.values[layer])
    rows = []
    for (target, model1, model2, layer), scores in values.items():
        kind, found_spread = kinds[target, model1, model2], spread(scores)
        names = {"target": target, "kind": kind.kind, "pair": kind.title, "model1": model1, "model2": model2}
        figures = {"mean": found_spread.mean, "sd": found_spread.sd, "n": found_spread.n}
        rows.append(names | {"layer": layer} | figures)
    return rows


def prediction_rows(found: Published) -> list[Row]:
    """Observed and expected agreement, and their difference, on the folds that have both."""
    values: dict[tuple, dict[str, dict[str, float]]] = {}
    for item in found.predictions:
        key = (item.target, item.model1, item.model2, item.freeze)
        values.setdefault(key, {}).setdefault(item.prob, {})[item.fold] = item.value
    rows = []
    for (target, model1, model2, freeze), by_prob in values.items():
        real, rand = by_prob.get("real", {}), by_prob.get("rand", {})
        row = {"target": target, "model1": model1, "model2": model2, "freeze": freeze}
        for name, folds in (("real", real), ("rand", rand)):
            row |= {f"{name}_mean": spread(list(folds.values())).mean, f"{name}_sd": spread(list(folds.values())).sd}
        excess = fold_difference(real, rand)
        row |= {"excess": None, "excess_ci95": None, "n": 0}
        if excess is not None:
            row |= {"excess": excess.mean, "excess_ci95": _list(excess.ci95), "n": excess.n}
        rows.append(row)
    return rows


def gain_sources(found: Published) -> list[str]:
    """Sources of networks that are compared with their own start, in the order of the AUC file."""
    known = list(dict.fromkeys(item.source for item in found.auc))
    paired = [pair.model2 for pair in found.pairs if _is_own_start(pair)]
    names = dict.fromkeys((*(source for source in known if source in paired), *paired))
    return [source for source in names if source != RANDOM]


def gain_points(found: Published) -> tuple[dict[tuple[str, str], list[GainPoint]], list[str]]:
    """The points of each source and layer, and notes of the folds that could not be used.

    A point is a fold of a target: x the CCA of the fine-tuned network to its own start, y its AUC relative to that of
    random initialization on the same target and fold, everything trained (freezeFalse).
    """
    aucs = {(i.target, i.source, i.fold): i.value for i in found.auc if i.freeze == UNFROZEN}
    points = {(source, layer): [] for source in gain_sources(found) for layer in found.layers}
    missing: dict[str, list[str]] = {}
    for pair in _own_starts(found.pairs):
        place = f"{pair.target}, {pair.model2}"
        auc, of_random = aucs.get((pair.target, pair.model2, pair.fold)), aucs.get((pair.target, RANDOM, pair.fold))
        if auc is None or not of_random:
            what = "AUC" if auc is None else "AUC of random initialization" + ("" if of_random is None else " above 0")
            missing.setdefault(f"{place}: no {what} in", []).append(pair.fold)
            continue
        gain = relative_gain(auc, of_random)
        for layer, similarity in pair.values.items():
            points[pair.model2, layer].append(GainPoint(pair.target, pair.fold, similarity, gain))
    notes = [f"similarity against gain, {what} {', '.join(folds)}; left out" for what, folds in missing.items()]
    return points, notes + _unused(found)


def gain_rows(found: Published) -> tuple[list[Row], list[str]]:
    """Least squares of gain on similarity by source and layer, and notes of what could not be used or computed."""
    rows, (points, notes) = [], gain_points(found)
    for (source, layer), members in points.items():
        line = fit_line([point.similarity for point in members], [point.gain for point in members])
        within, without = fit_within(members), slopes_without_one(members)
        if line.reason:
            notes.append(f"similarity against gain, {source}, {layer}: {line.reason}")
        rows.append(
            {
                "source": source,
                "layer": layer,
                "slope": line.slope,
                "r": line.r,
                "ci95": _list(line.ci95),
                "n": line.n,
                "r_ci95": _list(line.r_ci95),
                "intercept": line.intercept,
                "targets": list(without),
                "slope_within_targets": within.slope,
                "ci95_within_targets": _list(within.ci95),
                "slope_without": without if len(without) > 1 else {},
            }
        )
    return rows, notes


def _own_starts(pairs: Iterable[LayerPair]) -> list[LayerPair]:
    """Fine-tuned networks and their own start: a line per target, source and fold, on the target's own images."""
    chosen: dict[tuple, LayerPair] = {}
    for pair in pairs:
        key = (pair.target, pair.model2, pair.fold)
        if _is_own_start(pair) and (key not in chosen or pair.stimuli == pair.target):
            chosen[key] = pair
    return [pair for pair in chosen.values() if pair.model2 != RANDOM]


def _unused(found: Published) -> list[str]:
    used = _own_starts(found.pairs)
    foreign = sorted({pair.target for pair in found.pairs} - {pair.target for pair in used})
    notes = [
        f"similarity against gain: CCA_{target}.csv has no {target}-<source>-{UNFROZEN} with its <source>"
        for target in foreign
    ]
    left = [pair for pair in found.pairs if _is_own_start(pair) and pair.model2 != RANDOM and pair not in used]
    for pair in left:
        notes.append(f"similarity against gain, {pair.model1}, {pair.fold}: stimuli {pair.stimuli!r} left out")
    if found.auc and not found.pairs:
        notes.append("similarity against gain: no CCA_<target>.csv")
    return notes


def _is_own_start(pair: LayerPair) -> bool:
    return pair.model1 == f"{pair.target}-{pair.model2}-{UNFROZEN}"


def _parts(model: str, target: str) -> tuple[str, str]:
    """Source and freeze of a network's name; freeze is empty for a start."""
    for freeze in (UNFROZEN, FROZEN):
        if model.startswith(f"{target}-") and model.endswith(f"-{freeze}"):
            return model[len(target) + 1 : -len(freeze) - 1], freeze
    return model, ""


def _frozen(freeze: str) -> str:
    return ", frozen" if freeze == FROZEN else ""


def _list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
