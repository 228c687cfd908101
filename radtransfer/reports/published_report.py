"""The paper out of published results: its AUC table, CCA figures, prediction similarity, and similarity against gain.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations in Transfer Learning for Medical
    Imaging (arXiv 2302.08272).

The sections of a report on published results: what each figure and table shows, and how it is captioned.

What the published results say, in sentences: each from a rule, each with its interval.

A rule is a function of the rows of `published_tables`. It claims a difference only where the 95 % interval leaves out
zero, and says "undecided" otherwise.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from radtransfer.reports.figures import draw_by_group, draw_gain, draw_layer_panels
from radtransfer.reports.page import Picture, Point, Points, Prose, Report, Section, Table
from radtransfer.reports.published import (
    FROZEN,
    RANDOM,
    UNFROZEN,
    Published,
    auc_rows,
    cca_rows,
    difference_rows,
    gain_points,
    gain_rows,
    prediction_rows,
    read_published,
)
from radtransfer.reports.published import Row as Row_published
from radtransfer.reports.report import write_report
from radtransfer.reports.statistics import SAME, interval, listed, mean_sd, number, signed, verdict

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


def auc_parts(found: Published, auc: Sequence[Row_published], differences: Sequence[Row_published]) -> list[Any]:
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


def _auc_cell(row: Row_published | None) -> str:
    return "–" if row is None else f"{mean_sd(row['mean'], row['sd'])} ({row['n']})"


def _difference_table(rows: Sequence[Row_published]) -> Table:
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


def cca_parts(found: Published, rows: Sequence[Row_published]) -> list[Any]:
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
    pairs: dict[tuple[str, str], dict[str, Row_published]] = {}
    for row in rows:
        pairs.setdefault((row["target"], row["pair"]), {})[row["layer"]] = row
    cells = [
        [*names, *(mean_sd(by[layer]["mean"], by[layer]["sd"]) if layer in by else "–" for layer in found.layers)]
        for names, by in pairs.items()
    ]
    caption = f"Mean CCA, mean ± sd over folds (ddof 1), n = {_counts(rows)}."
    parts.append(Table("cca", caption, ["target", "networks", *found.layers], cells, rows, text_columns=2))
    return parts


def _is_floor(row: Row_published) -> bool:
    return row["model1"] == row["model2"]


def prediction_parts(found: Published, rows: Sequence[Row_published]) -> list[Any]:
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


def gain_parts(found: Published, rows: Sequence[Row_published]) -> list[Any]:
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


def _counts(rows: Sequence[Row_published]) -> str:
    return " or ".join(map(str, sorted({row["n"] for row in rows})))


def _range(slopes: Any) -> str:
    known = [slope for slope in slopes if slope is not None]
    return interval((min(known), max(known)), 2) if known else "–"


Row = dict[str, Any]


def sources_compared(differences: Sequence[Row]) -> Iterator[Point]:
    """Which of two pretrained sources is better, over the targets."""
    for (a, b), rows in _by_sources(differences).items():
        if RANDOM in (a, b):
            continue
        parts = _sorted(rows)
        texts = []
        if parts["better"]:
            texts.append(f"{a} is better on {listed(parts['better'])}")
        if parts["worse"]:
            texts.append(f"{b} is better on {listed(parts['worse'])}")
        if parts["equal"]:
            texts.append(f"they differ by less than {SAME} on {listed(parts['equal'])}")
        if parts["undecided"]:
            texts.append(f"these folds cannot decide {listed(parts['undecided'])}")
        word = "undecided" if len(parts["undecided"]) == len(rows) else "which start"
        yield Point(word, f"{a} against {b}: {'; '.join(texts)}.", _evidence(rows, f"{a} less {b}"))


def pretraining_against_random(differences: Sequence[Row]) -> Iterator[Point]:
    """Whether pretraining helped at all, by source."""
    for (a, b), rows in _by_sources(differences).items():
        if RANDOM not in (a, b):
            continue
        source, rows = (a, rows) if b == RANDOM else (b, [_turned(row) for row in rows])
        parts = _sorted(rows)
        texts = [
            f"{word} random initialization on {listed(parts[key])}"
            for key, word in (("better", "better than"), ("worse", "worse than"), ("equal", "equal to"))
            if parts[key]
        ]
        if parts["undecided"]:
            texts.append(f"not to be told from it on {listed(parts['undecided'])}")
        word = "undecided" if len(parts["undecided"]) == len(rows) else "pretraining"
        yield Point(word, f"{source} is {'; '.join(texts)}.", _evidence(rows, f"{source} less random"))


def lost_when_frozen(differences: Sequence[Row]) -> Iterator[Point]:
    """A failure signature: AUC lost when the pretrained layers are first frozen."""
    rows = [row for row in differences if (row["freeze_a"], row["freeze_b"]) == (UNFROZEN, FROZEN)]
    if not rows:
        return
    lost = [row for row in rows if verdict(row["ci95"]) == "better"]
    if not lost:
        yield Point(
            "frozen first",
            "On no target does an interval show that training everything from the start beats freezing first.",
            _evidence(rows, "unfrozen less frozen", source=True),
        )
        return
    names = ", ".join(f"{row['target']} from {row['source_a']}" for row in lost)
    yield Point(
        "AUC lost when frozen",
        f"Freezing first costs AUC on {names}: the features did not fit as they were.",
        _evidence(lost, "unfrozen less frozen", source=True),
    )


def similarity_and_gain(gains: Sequence[Row]) -> Iterator[Point]:
    """Whether networks that stay like their start gain more or less from it: the question of the paper."""
    for source in dict.fromkeys(row["source"] for row in gains):
        rows = [row for row in gains if row["source"] == source]
        known = [row for row in rows if row["ci95"]]
        if not known:
            yield Point("undecided", f"{source}: too few points to relate similarity to gain.", f"n = {rows[0]['n']}")
            continue
        negative = [row["layer"] for row in known if verdict(row["ci95"], same=0) == "worse"]
        positive = [row["layer"] for row in known if verdict(row["ci95"], same=0) == "better"]
        texts = []
        if negative:
            texts.append(f"negatively at {listed(negative)}")
        if positive:
            texts.append(f"positively at {listed(positive)}")
        evidence = "; ".join(f"{row['layer']} {_slope(row)}" for row in known)
        if not texts:
            yield Point("undecided", f"{source}: no layer's slope can be told from zero.", evidence)
            continue
        caution = _caution(known)
        text = f"{source}: similarity to the start goes with gain {' and '.join(texts)}.{caution}"
        yield Point("not robust" if caution else "similarity and gain", text, evidence)
    yield from _sources_disagree(gains)


def predictions_alike(predictions: Sequence[Row]) -> Iterator[Point]:
    """Whether networks of two sources err on the same images more often than by chance."""
    for model1, model2, freeze in dict.fromkeys((r["model1"], r["model2"], r["freeze"]) for r in predictions):
        rows = [r for r in predictions if (r["model1"], r["model2"], r["freeze"]) == (model1, model2, freeze)]
        rows = [row | {"mean": row["excess"], "ci95": row["excess_ci95"]} for row in rows if row["excess"] is not None]
        if not rows:
            continue
        above = [row["target"] for row in rows if verdict(row["ci95"], same=0) == "better"]
        others = [row["target"] for row in rows if row["target"] not in above]
        text = f"{model1} and {model2} ({freeze}) are right and wrong together"
        text += (
            f" more often than independent networks on {listed(above)}" if above else " no more often than by chance"
        )
        text += f"; undecided on {listed(others)}" if above and others else ""
        yield Point("predictions" if above else "undecided", f"{text}.", _evidence(rows, "observed less expected"))


def _sources_disagree(gains: Sequence[Row]) -> Iterator[Point]:
    """Layers at which the interval of one source lies above zero and that of another below."""
    told = [row for row in gains if verdict(row["ci95"], same=0) != "undecided"]
    rising, falling = ([row for row in told if row["slope"] * sign > 0] for sign in (1, -1))
    layers = [layer for layer in dict.fromkeys(r["layer"] for r in rising) if layer in {r["layer"] for r in falling}]
    if layers:
        rows = [row for row in told if row["layer"] in layers]
        yield Point(
            "no common rule",
            f"The sources disagree at {listed(layers)}: similarity to the start does not tell the gain in general.",
            "; ".join(f"{row['source']}, {row['layer']} {_slope(row)}" for row in rows),
        )


def _by_sources(differences: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows that compare two sources, all trained, by their names."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in differences:
        if row["freeze_a"] == row["freeze_b"] == UNFROZEN:
            groups.setdefault((row["source_a"], row["source_b"]), []).append(row)
    return groups


def _sorted(rows: Sequence[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"better": [], "worse": [], "equal": [], "undecided": []}
    for row in rows:
        found[verdict(row["ci95"])].append(row["target"])
    return found


def _turned(row: Row) -> Row:
    interval = None if row["ci95"] is None else [-row["ci95"][1], -row["ci95"][0]]
    return row | {"mean": -row["mean"], "ci95": interval}


def _caution(rows: Sequence[Row]) -> str:
    """What stands against reading the slopes as more than a difference between targets."""
    within = [row for row in rows if row["ci95_within_targets"]]
    told = [row for row in within if verdict(row["ci95_within_targets"], same=0) != "undecided"]
    turns = [row["layer"] for row in rows if any((s or 0) * row["slope"] < 0 for s in row["slope_without"].values())]
    texts = []
    if within and not told:
        texts.append(" Between folds of one target no slope can be told from zero: the relation is one between targets")
        texts[-1] += f", of which there are {len(rows[0]['targets'])}."
    if turns:
        texts.append(f" With one target left out the slope turns at {listed(turns)}.")
    return "".join(texts)


def _evidence(rows: Sequence[Row], what: str, *, source: bool = False) -> str:
    parts = [
        f"{row['target']}{' ' + row['source_a'] if source else ''} {signed(row['mean'])} {_interval(row['ci95'])}"
        for row in rows
    ]
    folds = sorted({row["n"] for row in rows})
    return f"{what}, mean over {' or '.join(map(str, folds))} folds: {'; '.join(parts)}"


def _slope(row: Row) -> str:
    return f"{signed(row['slope'], 2)} {_interval(row['ci95'], 2)}"


def _interval(ci95: Sequence[float] | None, digits: int = 3) -> str:
    return "(no interval)" if ci95 is None else f"({interval(ci95, digits)})"


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


def report_published(folder: Path, out: Path) -> list[Path]:
    """Read `folder` and write its report to `out`; gives the files, the page first.

    `report.json` holds `gain` (a row per source and layer: slope and r of relative gain on CCA, `ci95` of the slope
    by Student's t on n - 2 degrees of freedom, `r_ci95`, the same within targets, and the slope without each target),
    `auc`, `differences`, `cca`, `predictions`, `findings`, and what was `read`, `ignored` and left out (`notes`).
    What is not defined is null.

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
            Section("auc", "AUC", auc_parts(found, auc, differences)),
            Section("cca", "Representations", cca_parts(found, cca)),
            Section("predictions", "Predictions", prediction_parts(found, predictions)),
            Section("gain", "Similarity against gain", gain_parts(found, gain)),
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


def _findings(
    differences: Sequence[Row_published], gain: Sequence[Row_published], predictions: Sequence[Row_published]
) -> list[Point]:
    return [
        *sources_compared(differences),
        *pretraining_against_random(differences),
        *lost_when_frozen(differences),
        *predictions_alike(predictions),
        *similarity_and_gain(gain),
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


def _source_parts(found: Published, notes: Sequence[str]) -> list[Any]:
    parts: list[Any] = [Prose(f"Read from {found.folder.name}: {', '.join(found.files)}.")]
    if found.ignored:
        parts.append(Prose(f"Not known by name, and ignored: {', '.join(found.ignored)}."))
    if notes:
        parts.append(Points([Point("left out", note) for note in notes]))
    return [*parts, Prose(f"{UNFROZEN}: all layers trained from the start; {FROZEN}: the head alone first.")]
