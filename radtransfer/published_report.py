"""The paper out of published results: its AUC table, CCA figures, prediction similarity, and similarity against gain.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations in Transfer Learning for Medical
    Imaging (arXiv 2302.08272).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radtransfer import published_advice as advice
from radtransfer.figures.by_group import draw_by_group
from radtransfer.figures.gain_scatter import draw_gain
from radtransfer.figures.layer_panels import draw_layer_panels
from radtransfer.published_results import Published, read_published
from radtransfer.published_tables import (
    FROZEN,
    UNFROZEN,
    Row,
    auc_rows,
    cca_rows,
    difference_rows,
    gain_points,
    gain_rows,
    prediction_rows,
)
from radtransfer.report_folder import write_report
from radtransfer.report_numbers import interval, mean_sd, number, signed
from radtransfer.report_page import Picture, Point, Points, Prose, Report, Section, Table

CHOICES = (
    Point(
        "rand",
        "The published “rand”, the agreement expected of independent networks, is computed from one network's accuracy "
        "twice, a² + (1 − a)². For two networks of accuracies a and b it is a·b + (1 − a)(1 − b).",
        "What is observed above “rand” is therefore somewhat off wherever the two accuracies differ; "
        "`radtransfer compare-predictions` takes both.",
    ),
    Point(
        "AUC",
        "The published AUC is Keras' over all outputs flattened into one question (micro), at 200 thresholds.",
        "With several classes that is higher than the mean of one-versus-rest AUCs, and it rewards classes that are "
        "common: on a simulated set of seven classes 0.92 against 0.75. AUCs of targets with different numbers of "
        "classes do not compare, and the relative gain inherits it.",
    ),
    Point(
        "folds",
        "The test sets of the five published folds together cover only part of the images: 75 to 80 %.",
        "Mean ± sd over folds says how much training sets and test sets vary, it is no confidence interval.",
    ),
    Point(
        "inputs",
        "The published code fed RadImageNet networks images scaled for ImageNet's (caffe, 0–255); the weights were "
        "trained on a scale 255 times smaller.",
        "Part of the distance between the two sources may be that.",
    ),
    Point(
        "baseline",
        "The randomly initialized network of the published code had another head than the pretrained ones.",
        "Gain over random initialization contains that difference.",
    ),
)
"""Where the published code's choices matter for the figures on the page."""

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


def report_published(folder: Path, out: Path) -> list[Path]:
    """Read `folder` and write its report to `out`; gives the files, the page first.

    Raises:
        DataError: As `read_published`.
        RunError: As `write_report`.
    """
    found = read_published(folder)
    auc, differences, cca = auc_rows(found), difference_rows(found), cca_rows(found)
    predictions, (gain, notes) = prediction_rows(found), gain_rows(found)
    notes = found.notes + notes
    findings = _findings(differences, gain, predictions)
    report = Report(
        title="Transfer learning, from published results",
        subtitle=f"AUC, similarity of representations and of predictions, read from {', '.join(found.files)}",
        facts=_facts(found),
        sections=[
            Section("findings", "In short", [Points(findings)] if findings else []),
            Section("auc", "AUC", _auc_parts(found, auc, differences)),
            Section("cca", "Representations", _cca_parts(found, cca)),
            Section("predictions", "Predictions", _prediction_parts(found, predictions)),
            Section("gain", "Similarity against gain", _gain_parts(found, gain)),
            Section("choices", "Where the published code's choices matter", [Points(CHOICES)]),
            Section("sources", "What was read, and what was left out", _source_parts(found, notes)),
        ],
    )
    values = {
        "kind": "published",
        "gain": gain,
        "auc": auc,
        "differences": differences,
        "cca": cca,
        "predictions": predictions,
        "findings": [{"verdict": f.verdict, "text": f.text, "evidence": f.evidence} for f in findings],
        "read": found.files,
        "ignored": found.ignored,
        "notes": notes,
    }
    return write_report(report, values, out)


def _findings(differences: Sequence[Row], gain: Sequence[Row], predictions: Sequence[Row]) -> list[Point]:
    return [
        *advice.sources_compared(differences),
        *advice.pretraining_against_random(differences),
        *advice.lost_when_frozen(differences),
        *advice.predictions_alike(predictions),
        *advice.similarity_and_gain(gain),
    ]


def _facts(found: Published) -> list[tuple[str, str]]:
    facts = [("targets", str(len(found.targets)))]
    if found.auc:
        facts += [
            ("sources", ", ".join(dict.fromkeys(item.source for item in found.auc))),
            ("folds", str(len({item.fold for item in found.auc}))),
        ]
    if found.layers:
        facts.append(("layers", ", ".join(found.layers)))
    return facts


def _auc_parts(found: Published, auc: Sequence[Row], differences: Sequence[Row]) -> list[Any]:
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
    folds = f"n = {' or '.join(map(str, counts))} folds"
    parts = [
        Picture(
            "auc",
            f"AUC of {', '.join(drawn)} on {', '.join(targets)}; the figures are in table 1.",
            f"AUC by target, source and whether layers were first frozen. Large marks and bars: mean ± sd (ddof 1), {folds}; "
            "small strokes: single folds. Dotted: 0.5.",
            draw_by_group(targets, drawn, label="AUC (mean ± sd over folds)", reference=0.5),
        ),
        Table(
            "auc",
            f"AUC, mean ± sd over folds (ddof 1), {folds} unless a number in brackets says otherwise. The sd is no interval.",
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


def _cca_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
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
        counts = " or ".join(map(str, sorted({row["n"] for row in members})))
        parts.append(
            Picture(
                name,
                f"{title}, over the layers {', '.join(found.layers)}, a panel for each of {', '.join(panels)}; "
                "the figures are in the table of mean CCA.",
                f"{caption}. Mean CCA over n = {counts} folds, bars ± sd (ddof 1).",
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
    caption = f"Mean CCA, mean ± sd over folds (ddof 1), n = {' or '.join(map(str, sorted({r['n'] for r in rows})))}."
    parts.append(Table("cca", caption, ["target", "networks", *found.layers], cells, rows, text_columns=2))
    return parts


def _is_floor(row: Row) -> bool:
    return row["model1"] == row["model2"]


def _prediction_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
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
            "independent networks as the published code computes it. Mean ± sd over folds (ddof 1); strokes: single folds.",
            draw_by_group(targets, drawn, label="share of images"),
        ),
        Table(
            "predictions",
            "Prediction similarity, mean ± sd over folds (ddof 1); observed less expected with its 95 % interval over "
            "folds, corrected as in the table of AUC differences.",
            ["target", "networks", "observed", "expected", "difference", "95 % interval", "folds"],
            cells,
            rows,
            text_columns=2,
        ),
    ]


def _gain_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
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
            "Does a network that stays like its start gain more from it? Each point is a fold of a target: across, the CCA "
            "of the fine-tuned network to its own start; up, its AUC relative to that of random initialization on the same "
            f"target and fold, (AUC − AUC of random) / AUC of random. Only networks trained as a whole ({UNFROZEN})."
        )
    ]
    if any(points.values()):
        shown = [s for s in sources if any(points[s, layer] for layer in found.layers)]
        targets = list(dict.fromkeys(t for group in points.values() for t, _, _ in group))
        parts.append(
            Picture(
                "gain",
                f"Gain against similarity for {', '.join(shown)} at {', '.join(found.layers)}, a point for each fold of "
                f"{', '.join(targets)}, with least-squares lines; slopes are in the table.",
                f"Similarity against gain, a row per source and a column per layer; {len(targets)} targets, n points as in "
                "the table. Line: least squares of gain on similarity.",
                draw_gain(shown, found.layers, points, lines),
            )
        )
    header = ["source", "layer", "slope", "95 % interval", "r", "n"]
    more = ["within targets", "95 % interval, within", "one target left out"]
    caption = (
        "Least squares of relative gain on CCA; n = targets × folds. The 95 % interval is that of the slope, Student's t on "
        "n − 2 degrees of freedom, which takes the points as independent: folds of one target are not, so that it is too "
        "narrow. Within targets: each target's means taken away first. Last column: range of the slope when one target is left out."
    )
    return [*parts, Table("gain", caption, [*header, *more], cells, rows, text_columns=2)]


def _range(slopes: Any) -> str:
    known = [slope for slope in slopes if slope is not None]
    return interval((min(known), max(known)), 2) if known else "–"


def _source_parts(found: Published, notes: Sequence[str]) -> list[Any]:
    parts: list[Any] = [Prose(f"Read from {found.folder.name}: {', '.join(found.files)}.")]
    if found.ignored:
        parts.append(Prose(f"Not known by name, and ignored: {', '.join(found.ignored)}."))
    if notes:
        parts.append(Points([Point("left out", note) for note in notes]))
    return [*parts, Prose(f"{UNFROZEN}: all layers trained from the start; {FROZEN}: the head alone first.")]
