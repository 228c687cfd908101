"""The sections of a report on published results: what each figure and table shows, and how it is captioned."""

from collections.abc import Sequence
from typing import Any

from radtransfer.figures.by_group import draw_by_group
from radtransfer.figures.gain_scatter import draw_gain
from radtransfer.figures.layer_panels import draw_layer_panels
from radtransfer.reports.numbers import interval, mean_sd, number, signed
from radtransfer.reports.page import Picture, Prose, Table
from radtransfer.reports.published.results import Published
from radtransfer.reports.published.tables import UNFROZEN, Row, gain_points

_CCA_FIGURES = (
    (
        "cca_own_start",
        ("own start",),
        "Similarity of each network to its own start",
        "Before against after fine-tuning: how much of the start is left",
    ),
    (
        "cca_sources",
        ("sources", "starts"),
        "Similarity of networks of different sources",
        "The sources against each other, before and after fine-tuning, and two random networks as a floor",
    ),
    (
        "cca_random_frozen",
        ("random", "frozen", "other"),
        "Similarity to random networks, and of frozen to unfrozen networks",
        "Fine-tuned networks against random ones, and networks that were first frozen against those that were not",
    ),
)


def auc_parts(found: Published, auc: Sequence[Row], differences: Sequence[Row]) -> list[Any]:
    if not auc:
        return []
    arms = list(dict.fromkeys((row["source"], row["freeze"]) for row in auc))
    arms.sort(key=lambda arm: arm[1])
    targets = list(dict.fromkeys(row["target"] for row in auc))
    by_key = {(row["target"], row["source"], row["freeze"]): row for row in auc}
    values: dict[tuple, list[float]] = {}
    for item in found.auc:
        values.setdefault((item.target, item.source, item.freeze), []).append(item.value)
    drawn = {f"{s}, {f}": [values.get((target, s, f), []) for target in targets] for s, f in arms}
    cells = [[t, *(_auc_cell(by_key.get((t, source, freeze))) for source, freeze in arms)] for t in targets]
    counts = sorted({row["n"] for row in auc})
    folds = f"n = {_counts(auc)} folds"
    parts = [
        Picture(
            "auc",
            f"AUC of {', '.join(drawn)} on {', '.join(targets)}; the figures are in table 1.",
            "AUC by target, source and whether layers were first frozen. Large marks and bars: mean ± sd (ddof 1), "
            f"{folds}; small strokes: single folds. Dotted: 0.5.",
            draw_by_group(targets, drawn, label="AUC (mean ± sd over folds)", reference=0.5),
        ),
        Table(
            "auc",
            f"AUC, mean ± sd over folds (ddof 1), {folds}{'' if len(counts) == 1 else ', as in brackets'}. "
            "The sd is no confidence interval.",
            ["target", *(f"{source}, {freeze}" for source, freeze in arms)],
            [[text.removesuffix(f" ({counts[0]})") if len(counts) == 1 else text for text in row] for row in cells],
            auc,
        ),
    ]
    return parts + ([_difference_table(differences)] if differences else [])


def _auc_cell(row: Row | None) -> str:
    return "–" if row is None else f"{mean_sd(row['mean'], row['sd'])} ({row['n']})"


def _difference_table(rows: Sequence[Row]) -> Table:
    cells = [
        [
            row["target"],
            f"{row['source_a']}, {row['freeze_a']} − {row['source_b']}, {row['freeze_b']}",
            signed(row["mean"]),
            number(row["sd"]),
            interval(row["ci95"]),
            f"{row['a_better']} of {row['n']}",
        ]
        for row in rows
    ]
    return Table(
        "auc_differences",
        "Differences of AUC on the same folds. The 95 % interval is Student's t with the variance corrected for the "
        "training images that folds share (Nadeau and Bengio 2003); it takes each fold to test 1/n of the images.",
        ["target", "difference", "mean", "sd", "95 % interval", "better in"],
        cells,
        [dict(row) for row in rows],
        text_columns=2,
    )


def cca_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
    if not rows:
        return []
    parts: list[Any] = []
    for name, kinds, title, caption in _CCA_FIGURES:
        panels: dict[str, dict[str, dict]] = {}
        members = [row for row in rows if row["kind"] in kinds or _is_floor(row)]
        for row in members:
            panels.setdefault(row["target"], {}).setdefault(row["pair"], {})[row["layer"]] = (row["mean"], row["sd"])
        if not any(row["kind"] in kinds for row in rows):
            continue
        parts.append(
            Picture(
                name,
                f"{title}, over the layers {', '.join(found.layers)}, a panel for each of {', '.join(panels)}; "
                "the figures are in the table of mean CCA.",
                f"{caption}. Mean CCA over n = {_counts(members)} folds, bars ± sd (ddof 1).",
                draw_layer_panels(found.layers, panels, label="mean CCA"),
            )
        )
    pairs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row["target"], row["pair"]), {})[row["layer"]] = row
    cells = [
        [*names, *(mean_sd(by[layer]["mean"], by[layer]["sd"]) if layer in by else "–" for layer in found.layers)]
        for names, by in pairs.items()
    ]
    caption = f"Mean CCA, mean ± sd over folds (ddof 1), n = {_counts(rows)}."
    parts.append(Table("cca", caption, ["target", "networks", *found.layers], cells, rows, text_columns=2))
    return parts


def _is_floor(row: Row) -> bool:
    return row["model1"] == row["model2"]


def prediction_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
    if not rows:
        return []
    targets = list(dict.fromkeys(row["target"] for row in rows))
    values: dict[str, dict[str, list[float]]] = {}
    several = len({(item.model1, item.model2) for item in found.predictions}) > 1
    for item in sorted(found.predictions, key=lambda item: (item.freeze, item.prob)):
        what = {"real": "observed", "rand": "expected (rand)"}[item.prob]
        name = f"{item.model1} – {item.model2}, {item.freeze}, {what}" if several else f"{item.freeze}, {what}"
        values.setdefault(name, {}).setdefault(item.target, []).append(item.value)
    drawn = {name: [by_target.get(target, []) for target in targets] for name, by_target in values.items()}
    cells = [
        [
            row["target"],
            f"{row['model1']} – {row['model2']}, {row['freeze']}",
            mean_sd(row["real_mean"], row["real_sd"]),
            mean_sd(row["rand_mean"], row["rand_sd"]),
            signed(row["excess"]),
            interval(row["excess_ci95"]),
            str(row["n"]),
        ]
        for row in rows
    ]
    return [
        Picture(
            "predictions",
            f"Observed and expected prediction similarity on {', '.join(targets)}; the figures are in the table.",
            "Share of test images on which two networks are both right or both wrong, observed, and expected of "
            "independent networks as the published code computes it. Mean ± sd over folds (ddof 1), "
            f"n = {_counts(rows)} folds; strokes: single folds.",
            draw_by_group(targets, drawn, label="share of images"),
        ),
        Table(
            "predictions",
            f"Prediction similarity, mean ± sd over n = {_counts(rows)} folds (ddof 1); observed less expected with "
            "its 95 % interval over folds, corrected as in the table of AUC differences.",
            ["target", "networks", "observed", "expected", "difference", "95 % interval", "folds"],
            cells,
            rows,
            text_columns=2,
        ),
    ]


def gain_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
    if not rows:
        return []
    points = {key: [(p.target, p.similarity, p.gain) for p in group] for key, group in gain_points(found)[0].items()}
    lines = {(r["source"], r["layer"]): None if r["slope"] is None else (r["slope"], r["intercept"]) for r in rows}
    sources = list(dict.fromkeys(row["source"] for row in rows))
    cells = [
        [
            row["source"],
            row["layer"],
            signed(row["slope"], 2),
            interval(row["ci95"], 2),
            signed(row["r"], 2),
            str(row["n"]),
            signed(row["slope_within_targets"], 2),
            interval(row["ci95_within_targets"], 2),
            _range(row["slope_without"].values()),
        ]
        for row in rows
    ]
    parts: list[Any] = [
        Prose(
            "Does a network that stays like its start gain more from it? Each point is a fold of a target: across, the "
            "CCA of the fine-tuned network to its own start; up, its AUC relative to that of random initialization on "
            "the same target and fold, (AUC − AUC of random) / AUC of random. Only networks trained as a whole "
            f"({UNFROZEN}). Of their seven targets, Juodelyte et al. (2302.08272) conclude that the relation is "
            "negative in the first version of their paper, and that there is none in the last."
        )
    ]
    if any(points.values()):
        shown = [s for s in sources if any(points[s, layer] for layer in found.layers)]
        targets = list(dict.fromkeys(t for group in points.values() for t, _, _ in group))
        parts.append(
            Picture(
                "gain",
                f"Gain against similarity for {', '.join(shown)} at {', '.join(found.layers)}, a point for each fold "
                f"of {', '.join(targets)}, with least-squares lines; slopes are in the table.",
                f"Similarity against gain, a row per source and a column per layer; {len(targets)} targets, "
                f"n = {_counts(rows)} points a panel. Line: least squares of gain on similarity.",
                draw_gain(shown, found.layers, points, lines),
            )
        )
    header = ["source", "layer", "slope", "95 % interval", "r", "n"]
    more = ["within targets", "95 % interval, within", "one target left out"]
    caption = (
        "Least squares of relative gain on CCA; n = targets × folds. The 95 % interval is that of the slope, Student's "
        "t on n − 2 degrees of freedom, which takes the points as independent: folds of one target are not, so that it "
        "is too narrow. Within targets: each target's means taken away first. Last column: range of the slope when one "
        "target is left out."
    )
    return [*parts, Table("gain", caption, [*header, *more], cells, rows, text_columns=2)]


def _counts(rows: Sequence[Row]) -> str:
    return " or ".join(map(str, sorted({row["n"] for row in rows})))


def _range(slopes: Any) -> str:
    known = [slope for slope in slopes if slope is not None]
    return interval((min(known), max(known)), 2) if known else "–"
