"""The sections of a report on runs that tell what training changed: layers, and filters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from radtransfer.figures.filter_change import filter_change
from radtransfer.figures.similarity_curve import Curve, similarity_curve
from radtransfer.reports.arms.arm_results import LayerChange
from radtransfer.reports.numbers import interval, number, plain_interval, signed
from radtransfer.reports.page import Picture, Table

MOST_LINES = 5
"""In one figure."""

_NAN = float("nan")
_CHANGE = ("layer", "similarity", "ci95", "chance", "dims", "rows")

Changes = Mapping[str, Sequence[LayerChange]]


def own_parts(changes: Changes) -> list[Any]:
    """Similarity of every layer of every arm before and after training."""
    return _similarity_parts(
        "cca_before_after",
        changes,
        "CCA of each layer before and after training",
        "similarity (mean CCA),\nbefore and after training",
        ["arm", "layer", "similarity", "95 % interval", "chance"],
        [{"arm": name} for name in changes],
    )


def pair_parts(changes: Mapping[tuple[str, str], Sequence[LayerChange]]) -> list[Any]:
    """Similarity of every layer of the pairs that a study names; @initial is told in words."""
    named = {" – ".join(map(side_words, sides)): items for sides, items in changes.items()}
    return _similarity_parts(
        "cca_pairs",
        named,
        "CCA of each layer of two networks",
        "similarity (mean CCA)",
        ["networks", "layer", "similarity", "95 % interval", "chance"],
        [{"a": a, "b": b} for a, b in changes],
    )


def side_words(side: str) -> str:
    """What `imagenet@initial` is called on the page: "imagenet before training"."""
    arm, _, moment = side.partition("@")
    return f"{arm} before training" if moment == "initial" else arm


def change_difference_parts(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Similarity to the start, less that of the reference."""
    if not rows:
        return []
    cells = [[r["arm"], r["reference"], r["layer"], signed(r["difference"]), interval(r["ci95"])] for r in rows]
    caption = (
        "How much more alike to its start each layer stayed than in the reference: difference of CCA before and after "
        "training with its 95 % interval, the errors of both taken as independent."
    )
    header = ["arm", "reference", "layer", "difference", "95 % interval"]
    return [Table("cca_difference", caption, header, cells, rows, text_columns=3)]


def filter_parts(filters: Mapping[str, Any]) -> list[Picture]:
    """The filters of each arm's first convolution, before and after training."""
    return [
        Picture(
            f"filters_{place}",
            f"Filters of the first convolution of {name} before and after training, and histograms of their weights.",
            f"{name}: filters of {change.layer} before and after training in the first network of the arm, and all "
            "their weights. A filter and its counterpart share one scale.",
            filter_change(change.a, change.b, title_a="before", title_b="after"),
        )
        for place, (name, change) in enumerate(filters.items(), start=1)
    ]


def _similarity_parts(
    name: str, changes: Changes, what: str, measure: str, header: Sequence[str], keys: Sequence[Mapping[str, str]]
) -> list[Any]:
    """Figures, each of arms with the same layers, and a table; `keys` say in its file what each row is of."""
    rows = [(title, item, key) for (title, items), key in zip(changes.items(), keys, strict=True) for item in items]
    if not rows:
        return []
    parts: list[Any] = [
        Picture(
            f"{name}_{place}",
            f"{what} of {', '.join(lines)} over {', '.join(layers)}; see the table.",
            f"{what}, mean over trainings; bars: 95 % interval, jackknife over images. Grey: what unrelated layers "
            "score at most.",
            _draw(layers, lines, measure),
        )
        for place, (layers, lines) in enumerate(_figures(changes), start=1)
    ]
    counts = sorted({len(item.by_training) for _, item, _ in rows})
    items = [item for _, item, _ in rows]
    caption = (
        f"{what}: mean over n = {' or '.join(map(str, counts))} trainings, of {_range([c.dims for c in items])} "
        f"channels at {_range([c.rows for c in items])} positions, 95 % interval (jackknife over images), and what "
        "unrelated layers score, which fewer positions or more channels raise."
    )
    cells = [[title, c.layer, number(c.similarity), plain_interval(c.ci95), number(c.chance)] for title, c, _ in rows]
    records = [
        {**key, **{field: getattr(c, field) for field in _CHANGE}, "n": len(c.by_training)} for _, c, key in rows
    ]
    return [*parts, Table(name, caption, header, cells, records, text_columns=2)]


def _figures(changes: Changes) -> Iterator[tuple[tuple[str, ...], dict[str, Sequence[LayerChange]]]]:
    """Layers and lines of each figure."""
    groups: dict[tuple[str, ...], dict[str, Sequence]] = {}
    for name, items in changes.items():
        if items:
            groups.setdefault(tuple(item.layer for item in items), {})[name] = items
    for layers, lines in groups.items():
        names = list(lines)
        for first in range(0, len(names), MOST_LINES):
            yield layers, {name: lines[name] for name in names[first : first + MOST_LINES]}


def _draw(layers: Sequence[str], lines: Changes, measure: str) -> Any:
    none = [_NAN] * len(layers)
    curves = {}
    for name, items in lines.items():
        ends = [item.ci95 or (_NAN, _NAN) for item in items]
        values = [_nan(item.similarity) for item in items]
        curves[name] = Curve(values, [low for low, _ in ends], [high for _, high in ends], none)
    chance = np.array([[_nan(item.chance) for item in items] for items in lines.values()])
    known = np.where(np.isnan(chance), -np.inf, chance).max(axis=0)
    return similarity_curve(layers, curves, measure=measure, chance=np.where(np.isinf(known), _NAN, known).tolist())


def _range(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return "–" if not known else f"{min(known):,}" if min(known) == max(known) else f"{min(known):,} to {max(known):,}"


def _nan(value: float | None) -> float:
    return _NAN if value is None else value
