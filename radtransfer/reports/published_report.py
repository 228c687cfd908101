"""A report from published results: AUC table, CCA figures, prediction similarity, and similarity against gain.

A finding claims a difference only where the 95 % interval excludes 0, and is "inconclusive" otherwise. The sentences of
the page are in `templates/published.txt.j2`.

References:
    Juodelyte, Jiménez-Sánchez and Cheplygina 2023, Revisiting Hidden Representations in Transfer Learning for Medical
    Imaging (arXiv 2302.08272).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from radtransfer.reports.figures import draw_by_group, draw_gain
from radtransfer.reports.layer_figures import draw_layer_panels
from radtransfer.reports.page import Picture, Point, Report, Table, say, write_report
from radtransfer.reports.published import (
    FROZEN,
    RANDOM,
    UNFROZEN,
    Published,
    Row,
    auc_rows,
    cca_rows,
    difference_rows,
    gain_points,
    gain_rows,
    prediction_rows,
    read_published,
)
from radtransfer.reports.statistics import interval, mean_sd, number, signed, verdict

CHOICES = ("rand", "AUC", "folds", "inputs", "baseline")  # choices of the published code that affect the results

_CCA_FIGURES = {
    "cca_own_start": ("own start",),
    "cca_sources": ("sources", "starts"),
    "cca_random_frozen": ("random", "frozen", "other"),
}
"""The kinds of pairs in each figure."""


def report_published(folder: Path, out: Path) -> list[Path]:
    """Read `folder`, write its report to `out`, and give its files, the page first.

    In `report.json`, `gain` has a row per source and layer: slope and r of relative gain on CCA, `ci95` of the slope
    (Student's t, n - 2 degrees of freedom), `r_ci95`, the same within targets, and the slope without each target.
    """
    found = read_published(folder)
    auc, differences, cca = auc_rows(found), difference_rows(found), cca_rows(found)
    predictions, (gain, notes) = prediction_rows(found), gain_rows(found)
    notes = found.notes + notes
    findings = [
        *sources_compared(differences),
        *pretraining_against_random(differences),
        *lost_when_frozen(differences),
        *same_errors(predictions),
        *similarity_and_gain(gain),
    ]
    facts = [("targets", str(len(found.targets)))]
    if found.auc:
        facts.append(("sources", ", ".join(dict.fromkeys(item.source for item in found.auc))))
        facts.append(("folds", str(len({item.fold for item in found.auc}))))
    if found.layers:
        facts.append(("layers", ", ".join(found.layers)))
    read: list[Any] = [say("published.read", found.folder.name, found.files)]
    if found.ignored:
        read.append(say("published.ignored", found.ignored))
    if notes:
        read.append([Point("left out", note) for note in notes])
    choices = [Point(name, say(f"published.{name}"), say(f"published.{name}_why")) for name in CHOICES]
    report = Report(
        title="Transfer learning, from published results",
        subtitle=say("published.subtitle", found.files),
        facts=facts,
        sections=[
            ("findings", "Findings", [findings] if findings else []),
            ("auc", "AUC", _auc_parts(found, auc, differences)),
            ("cca", "Representations", _cca_parts(found, cca)),
            ("predictions", "Predictions", _prediction_parts(found, predictions)),
            ("gain", "Similarity against gain", _gain_parts(found, gain)),
            ("choices", "Where the published code's choices matter", [choices]),
            ("sources", "Data", [*read, say("published.freezes", UNFROZEN, FROZEN)]),
        ],
    )
    values = {"kind": "published", "gain": gain, "auc": auc, "differences": differences, "cca": cca}
    values |= {"predictions": predictions, "findings": [vars(finding) for finding in findings]}
    values |= {"read": found.files, "ignored": found.ignored, "notes": notes}
    return write_report(report, values, out)


def sources_compared(differences: Sequence[Row]) -> Iterator[Point]:
    """Which of two sources is better on which targets."""
    for (a, b), rows in _by_sources(differences).items():
        if RANDOM not in (a, b):
            by_verdict, inconclusive = _by_verdict(rows)
            text = say("published.sources_compared", a, b, by_verdict)
            evidence = say("published.evidence", f"{a} minus {b}", rows)
            yield Point("inconclusive" if inconclusive else "initialization", text, evidence)


def pretraining_against_random(differences: Sequence[Row]) -> Iterator[Point]:
    """Whether pretraining helped, by source and target."""
    for (a, b), rows in _by_sources(differences).items():
        if RANDOM in (a, b):
            source = a if b == RANDOM else b
            if source == b:
                ends = [row["ci95"] and [-row["ci95"][1], -row["ci95"][0]] for row in rows]
                rows = [row | {"mean": -row["mean"], "ci95": ci95} for row, ci95 in zip(rows, ends, strict=True)]
            by_verdict, inconclusive = _by_verdict(rows)
            text = say("published.pretraining", source, by_verdict)
            evidence = say("published.evidence", f"{source} minus random", rows)
            yield Point("inconclusive" if inconclusive else "pretraining", text, evidence)


def lost_when_frozen(differences: Sequence[Row]) -> Iterator[Point]:
    """A failure signature: AUC lost when the pretrained layers are frozen at first."""
    rows = [row for row in differences if (row["freeze_a"], row["freeze_b"]) == (UNFROZEN, FROZEN)]
    lost = [row for row in rows if verdict(row["ci95"]) == "better"]
    if rows:
        evidence = say("published.evidence", "unfrozen minus frozen", lost or rows, source=True)
        if lost:
            yield Point("AUC lost when frozen", say("published.lost_when_frozen", lost), evidence)
        else:
            yield Point("frozen first", say("published.nothing_lost"), evidence)


def same_errors(predictions: Sequence[Row]) -> Iterator[Point]:
    """Whether networks of two sources make errors on the same images more often than by chance."""
    groups: dict[tuple, list[Row]] = {}
    for row in predictions:
        if row["excess"] is not None:
            key = (row["model1"], row["model2"], row["freeze"])
            groups.setdefault(key, []).append(row | {"mean": row["excess"], "ci95": row["excess_ci95"]})
    for key, rows in groups.items():
        above = [row["target"] for row in rows if verdict(row["ci95"], same=0) == "better"]
        others = [row["target"] for row in rows if row["target"] not in above]
        text = say("published.same_errors", *key, above, others)
        evidence = say("published.evidence", "observed minus expected", rows)
        yield Point("predictions" if above else "inconclusive", text, evidence)


def similarity_and_gain(gains: Sequence[Row]) -> Iterator[Point]:
    """Whether networks that change less gain more or less from pretraining, the question of the paper."""
    for source in dict.fromkeys(row["source"] for row in gains):
        rows = [row for row in gains if row["source"] == source]
        known = [row for row in rows if row["ci95"]]
        if not known:
            yield Point("inconclusive", say("published.too_few_points", source), f"n = {rows[0]['n']}")
            continue
        evidence = say("published.slopes", known)
        negative, positive = (
            [row["layer"] for row in known if verdict(row["ci95"], same=0) == word] for word in ("worse", "better")
        )
        if not negative and not positive:
            yield Point("inconclusive", say("published.no_slope", source), evidence)
            continue
        # Whether the slopes are only differences between targets, or depend on one target.
        within = [row["ci95_within_targets"] for row in known if row["ci95_within_targets"]]
        decided = any(verdict(ends, same=0) != "inconclusive" for ends in within)
        targets = len(known[0]["targets"]) if within and not decided else 0
        turns = [r["layer"] for r in known if any((s or 0) * r["slope"] < 0 for s in r["slope_without"].values())]
        text = say("published.similarity_and_gain", source, negative, positive, targets, turns)
        yield Point("not robust" if targets or turns else "similarity and gain", text, evidence)
    decided = [row for row in gains if verdict(row["ci95"], same=0) != "inconclusive"]
    rising, falling = ({row["layer"] for row in decided if row["slope"] * sign > 0} for sign in (1, -1))
    rows = [row for row in decided if row["layer"] in rising & falling]
    if rows:
        layers = list(dict.fromkeys(row["layer"] for row in rows if row["slope"] > 0))
        text = say("published.no_common_rule", layers)
        yield Point("no common rule", text, say("published.slopes", rows, source=True))


def _auc_parts(found: Published, auc: Sequence[Row], differences: Sequence[Row]) -> list[Any]:
    if not auc:
        return []
    arms = sorted(dict.fromkeys((row["source"], row["freeze"]) for row in auc), key=lambda arm: arm[1])
    targets = list(dict.fromkeys(row["target"] for row in auc))
    by_key = {(row["target"], row["source"], row["freeze"]): row for row in auc}
    values: dict[tuple, list[float]] = {}
    for item in found.auc:
        values.setdefault((item.target, item.source, item.freeze), []).append(item.value)
    drawn = {f"{s}, {f}": [values.get((target, s, f), []) for target in targets] for s, f in arms}
    several = len({row["n"] for row in auc}) > 1

    def cell(target: str, arm: tuple[str, str]) -> str:
        row = by_key.get((target, *arm))
        text = "–" if row is None else mean_sd(row["mean"], row["sd"])
        return f"{text} ({row['n']})" if several and row else text

    columns = [("target", str), *((f"{s}, {f}", str, cell, (s, f)) for s, f in arms)]
    figure = draw_by_group(targets, drawn, label="AUC (mean ± SD over folds)", reference=0.5)
    parts: list[Any] = [
        Picture("auc", say("published.auc_alt", list(drawn), targets), say("published.auc_figure", auc), figure),
        Table("auc", say("published.auc_table", auc, several), columns, targets, auc),
    ]
    what = lambda r: f"{r['source_a']}, {r['freeze_a']} − {r['source_b']}, {r['freeze_b']}"  # noqa: E731
    columns = [("target", "target"), ("difference", what), ("mean", "mean", signed), ("SD", "sd", number)]
    columns += [("95 % interval", "ci95", interval), ("better in", lambda row: f"{row['a_better']} of {row['n']}")]
    table = Table("auc_differences", say("published.differences_table"), columns, differences, text_columns=2)
    return [*parts, table] if differences else parts


def _cca_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
    if not rows:
        return []
    parts: list[Any] = []
    for name, kinds in _CCA_FIGURES.items():
        if not any(row["kind"] in kinds for row in rows):
            continue
        # Two networks of one name (random initialization) are the reference in every figure.
        members = [row for row in rows if row["kind"] in kinds or row["model1"] == row["model2"]]
        panels: dict[str, dict[str, dict]] = {}
        for row in members:
            panels.setdefault(row["target"], {}).setdefault(row["pair"], {})[row["layer"]] = (row["mean"], row["sd"])
        figure = draw_layer_panels(found.layers, panels, label="mean CCA")
        alt = say("published.cca_alt", name, found.layers, list(panels))
        parts.append(Picture(name, alt, say("published.cca_figure", name, members), figure))
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        pairs.setdefault((row["target"], row["pair"]), {})[row["layer"]] = mean_sd(row["mean"], row["sd"])
    columns: list[Any] = [("target", lambda pair: pair[0]), ("networks", lambda pair: pair[1])]
    columns += [(layer, lambda pair, layer=layer: pairs[pair].get(layer, "–")) for layer in found.layers]
    return [*parts, Table("cca", say("published.cca_table", rows), columns, list(pairs), rows, 2)]


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
    figure = draw_by_group(targets, drawn, label="share of images")
    columns = [
        ("target", "target"),
        ("networks", lambda row: f"{row['model1']} – {row['model2']}, {row['freeze']}"),
        ("observed", lambda row: mean_sd(row["real_mean"], row["real_sd"])),
        ("expected", lambda row: mean_sd(row["rand_mean"], row["rand_sd"])),
    ]
    columns += [("difference", "excess", signed), ("95 % interval", "excess_ci95", interval), ("folds", "n")]
    alt, caption = say("published.predictions_alt", targets), say("published.predictions_figure", rows)
    table = Table("predictions", say("published.predictions_table", rows), columns, rows, text_columns=2)
    return [Picture("predictions", alt, caption, figure), table]


def _gain_parts(found: Published, rows: Sequence[Row]) -> list[Any]:
    if not rows:
        return []
    points = {key: [(p.target, p.similarity, p.gain) for p in group] for key, group in gain_points(found)[0].items()}
    parts: list[Any] = [say("published.gain_question", UNFROZEN)]
    if any(points.values()):
        lines = {(r["source"], r["layer"]): None if r["slope"] is None else (r["slope"], r["intercept"]) for r in rows}
        shown = [s for s in dict.fromkeys(r["source"] for r in rows) if any(points[s, layer] for layer in found.layers)]
        targets = list(dict.fromkeys(target for group in points.values() for target, _, _ in group))
        alt = say("published.gain_alt", shown, found.layers, targets)
        figure = draw_gain(shown, found.layers, points, lines)
        parts.append(Picture("gain", alt, say("published.gain_figure", targets, rows), figure))

    def reach(slopes: Mapping[str, float | None]) -> str:
        known = [slope for slope in slopes.values() if slope is not None]
        return interval((min(known), max(known)), 2) if known else "–"

    columns = [("source", "source"), ("layer", "layer"), ("slope", "slope", signed, 2)]
    columns += [("95 % interval", "ci95", interval, 2), ("r", "r", signed, 2), ("n", "n")]
    columns += [("within targets", "slope_within_targets", signed, 2)]
    columns += [("95 % interval, within", "ci95_within_targets", interval, 2)]
    columns += [("one target left out", "slope_without", reach)]
    return [*parts, Table("gain", say("published.gain_table"), columns, rows, text_columns=2)]


def _by_sources(differences: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows that compare two unfrozen sources, by their names."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in differences:
        if row["freeze_a"] == row["freeze_b"] == UNFROZEN:
            groups.setdefault((row["source_a"], row["source_b"]), []).append(row)
    return groups


def _by_verdict(rows: Sequence[Row]) -> tuple[dict[str, list[str]], bool]:
    """Targets by verdict, and whether all are inconclusive."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "equal": [], "inconclusive": []}
    for row in rows:
        found[verdict(row["ci95"])].append(row["target"])
    return found, len(found["inconclusive"]) == len(rows)
