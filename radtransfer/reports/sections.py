"""The sections of a report on runs, with their figures and tables; the texts are in templates.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 (the top two stages averaged) and Fig. 4 (R² of each
    layer). Juodelyte et al. 2023 (arXiv 2302.08272), Table 1 (the source's own accuracy).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.evaluation.metrics import METRICS, stored_metrics
from radtransfer.reports.arms import ArmDifference, ArmResults, StepDifference
from radtransfer.reports.changes import LayerChange
from radtransfer.reports.collect import Arm, Row
from radtransfer.reports.figures import draw_auc_by_size, draw_convergence, draw_forest, draw_gain
from radtransfer.reports.layer_figures import SimilarityCurve, filter_change, similarity_curve
from radtransfer.reports.page import Picture, Point, Table, say
from radtransfer.reports.statistics import (
    GainPoint,
    count,
    fit_line,
    interval,
    listed,
    mean_sd,
    number,
    plain_interval,
    signed,
)
from radtransfer.reports.subject import MOST_CLASSES, Subject, describe_arm, question
from radtransfer.runs.folder import read_folds
from radtransfer.runs.read import reading
from radtransfer.similarity.population import draw_groups, draw_training

if TYPE_CHECKING:
    from radtransfer.similarity.population import Population

MOST_LINES = 5  # most lines in one figure of similarity
ONE_LINE = 30  # most letters of two names on one line beside a figure

_NAN = float("nan")
_LONG = 160
_STATUS = {"partly": "partly finished", "failed": "failed", "waiting": "not yet run", "gone": "deleted"}

Changes = Mapping[str, Sequence[LayerChange]]


def auc_parts(found: ArmResults, arms: Sequence[Arm]) -> list[Any]:
    """AUC of every arm: a forest plot of pooled AUCs, and a table."""
    aucs = {arm.name: [fold.auc for fold in arm.folds if fold.auc is not None] for arm in arms}
    scored, parts = found.scored, []
    if scored:
        names = [arm.name for arm in scored]
        rows = [_ends(arm.pooled, arm.ci95) for arm in scored]
        figure = draw_forest(names, rows, label="test AUC", points=[aucs[name] for name in names])
        alt = say("captions.auc_alt", names, found.image_sets)
        parts.append(Picture("auc", alt, say("captions.auc_figure", found.image_sets), figure))
    order = [*scored, *(arm for arm in found.arms if arm.mean is None)]
    columns = [("arm", "name")]
    if any(arm.name != describe_arm(arm) for arm in order):
        columns.append(("description", describe_arm))
    names = len(columns)
    columns += [("AUC, mean ± SD", lambda arm: mean_sd(arm.mean, arm.sd)), ("trainings", "trainings")]
    columns += [("pooled", "pooled", number), ("95 % interval", "ci95", plain_interval)]
    return [*parts, Table("auc", say("captions.auc_table"), columns, order, text_columns=names)]


def difference_parts(found: ArmResults, references: Mapping[str, str]) -> list[Any]:
    """Paired differences: each arm minus its reference, or the best arm minus the others; a table of all pairs."""
    if not found.differences:
        return []
    scored = [arm.name for arm in found.scored]
    pairs = [(name, references[name]) for name in scored if name in references]
    of_best = [] if pairs else [(scored[0], name) for name in scored[1:]]
    known = [d for a, b in pairs or of_best if (d := found.difference(a, b)) is not None]
    parts: list[Any] = []
    if known:
        best, others = say("captions.of_best", scored[0]), sorted({difference.b for difference in known})
        what = say("captions.of_reference", others) if pairs else best
        labels = [f"{d.a} − {d.b}" if len(d.a) + len(d.b) <= ONE_LINE else f"{d.a}\n− {d.b}" for d in known]
        rows = [_ends(difference.value, difference.ci95) for difference in known]
        figure = draw_forest(labels, rows, label="difference in AUC", reference=0.0)
        alt = say("captions.differences_alt", what, known)
        parts.append(Picture("differences", alt, say("captions.differences_figure", what), figure))
    place = {name: number for number, name in enumerate(scored)}
    rows = [d if place[d.a] < place[d.b] else d.swapped() for d in found.differences]
    rows.sort(key=lambda difference: (place[difference.a], place[difference.b]))

    def by_training(d: ArmDifference) -> str:
        return signed(d.fold_mean) if d.fold_sd is None else f"{signed(d.fold_mean)} ± {number(d.fold_sd)}"

    columns = [("A", "a"), ("B", "b"), ("A − B", "value", signed), ("95 % interval", "ci95", interval)]
    columns += [("by training", by_training), ("95 % interval", "fold_ci95", interval)]
    columns += [("A better", lambda d: f"{d.better} of {d.trainings}")]
    columns += [("p", lambda d: "–" if d.p is None else f"{d.p:.2g}")]
    caption = say("captions.differences_table", sorted({f"{d.patients:,} {d.unit}" for d in found.differences}))
    return [*parts, Table("differences", caption, columns, rows, text_columns=2)]


def agreement_parts(found: ArmResults, named: Collection[frozenset[str]] | None) -> list[Any]:
    """The agreement of errors for the pairs `named`; None for all."""
    rows = [
        {"a": d.a, "b": d.b, "observed": d.agreement[0], "independent": d.agreement[1]}
        | {"kappa": d.kappa, "kappa_ci95": d.kappa_ci95, "n": d.patients, "unit": d.unit}
        for d in found.differences
        if d.agreement is not None and (named is None or {d.a, d.b} in named)
    ]
    columns = [("A", "a"), ("B", "b"), *((name, name, number) for name in ("observed", "independent", "kappa"))]
    columns += [("95 % interval", "kappa_ci95", plain_interval)]
    return [Table("predictions", say("captions.agreement_table"), columns, rows, text_columns=2)] if rows else []


def size_parts(found: ArmResults) -> list[Any]:
    """AUC against parameters, if arms differ in size."""
    known = [arm for arm in found.scored if arm.parameters and arm.pooled is not None]
    if len({arm.parameters for arm in known}) < 2:
        return []
    families: dict[tuple, list] = {}
    for arm in known:
        families.setdefault((arm.start, arm.depth, arm.recipe, arm.context, arm.images), []).append(arm)
    groups = {
        arms[0].name if len(arms) == 1 else ", ".join(filter(None, words[:-1])): [
            (arm.backbone, arm.parameters, *_ends(arm.pooled, arm.ci95)) for arm in arms
        ]
        for words, arms in families.items()
    }
    alt = say("captions.size_alt", [arm.name for arm in known])
    return [Picture("size", alt, say("captions.size_figure"), draw_auc_by_size(groups))]


def convergence_parts(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[StepDifference],
) -> list[Any]:
    """AUC against steps, steps to the threshold, and their differences."""
    if not curves or not rows:
        return []
    threshold = rows[0]["threshold"]
    caption = say("captions.convergence_figure", sorted({len(folds) for folds in curves.values()}), threshold)
    figure = draw_convergence(curves, threshold=threshold)
    columns = [("arm", "arm"), ("steps", lambda row: mean_sd(row["steps_mean"], row["steps_sd"], 0))]
    columns += [("reached", lambda row: f"{row['reached']} of {row['watched']}")]
    parts = [
        Picture("convergence", say("captions.convergence_alt", list(curves)), caption, figure),
        Table("steps", say("captions.steps_table", threshold), columns, rows),
    ]
    if differences:
        columns = [("A", "a"), ("B", "b"), ("A − B", "mean", signed, 0), ("SD", "sd", number, 0)]
        columns += [("95 % interval", "ci95", interval, 0), ("trainings", "trainings")]
        columns += [("only A reached", "only_a"), ("only B reached", "only_b")]
        caption = say("captions.step_differences_table", threshold)
        parts.append(Table("step_differences", caption, columns, differences, text_columns=2))
    return parts


def source_rows(subject: Subject, found: ArmResults) -> list[dict[str, Any]]:
    """A row per arm and source run: source-task performance, and performance of the arm."""
    by_key = {row["run"]: row for row in subject.sources}
    summaries = {arm.name: arm for arm in found.arms}
    rows = []
    for arm in subject.arms:
        target = summaries[arm.name]
        # The source run whose folder contains the weights file.
        files = [file for run in arm.runs if (file := (run.record.get("weights") or {}).get("file"))]
        keys = [next((part for part in Path(file).parts if part in by_key), None) for file in files]
        for key in dict.fromkeys(key for key in keys if key is not None):
            source = by_key[key]
            ends = None if source["ci95_low"] is None else (source["ci95_low"], source["ci95_high"])
            rows.append(
                {"source": source["arm"].removeprefix("source:"), "run": key, "backbone": source["backbone"]}
                | {f"source_{name}": source.get(name) for name in (*stored_metrics("studies"), "auc")}
                | {"source_ci95": ends, "source_images": source["images"], "arm": arm.name}
                | {"target_auc": target.mean, "target_sd": target.sd, "trainings": target.trainings}
                | {"target_pooled": target.pooled, "target_ci95": target.ci95}
            )
    return rows


def source_table(rows: Sequence[Row]) -> list[Table]:
    """The rows as a table; empty without source runs."""
    if not rows:
        return []
    metrics = [METRICS[name] for name in stored_metrics("studies")]
    known = [m for m in metrics if not m.needs or any(row[f"source_{m.name}"] is not None for row in rows)]
    columns = [("source", lambda row: f"{row['source']}, {row['backbone']}"), ("arm", "arm")]
    columns += [(f"source {m.label}", f"source_{m.name}", number) for m in known]
    columns += [
        ("source AUC", lambda row: f"{number(row['source_auc'])} ({plain_interval(row['source_ci95'])})"),
        ("target AUC, mean ± SD", lambda row: mean_sd(row["target_auc"], row["target_sd"])),
        ("pooled", lambda row: f"{number(row['target_pooled'])} ({plain_interval(row['target_ci95'])})"),
    ]
    return [Table("sources", say("captions.sources_table"), columns, rows, text_columns=2)]


def change_difference_parts(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Similarity before and after training, minus that of the reference."""
    columns = [("arm", "arm"), ("reference", "reference"), ("layer", "layer"), ("difference", "difference", signed)]
    columns += [("95 % interval", "ci95", interval)]
    return [Table("cca_difference", say("captions.change_differences_table"), columns, rows, None, 3)] if rows else []


def filter_parts(filters: Mapping[str, Any]) -> list[Picture]:
    """The filters of each arm's first convolution, before and after training."""
    return [
        Picture(
            f"filters_{place}",
            say("captions.filters_alt", name),
            say("captions.filters_figure", name, change.layer),
            filter_change(change.a, change.b, title_a="before", title_b="after"),
        )
        for place, (name, change) in enumerate(filters.items(), start=1)
    ]


def seed_parts(found: "Mapping[str, Population]") -> list[Any]:
    """Two figures for each arm, and one table."""
    parts: list[Any] = []
    for place, (name, population) in enumerate(found.items(), start=1):
        pairs: dict[str, int] = {}
        for group in population.groups:
            pairs.setdefault(group.starts, group.pairs)
        of_pairs, of_training = draw_groups(population, "cca", top=True), draw_training(population, "cca")
        alt, caption = say("captions.seed_pairs_alt", name, list(pairs)), say("captions.seed_pairs_figure", name, pairs)
        parts.append(Picture(f"seed_pairs_{place}", alt, caption, of_pairs))
        alt, caption = say("captions.seed_training_alt", name), say("captions.seed_training_figure", name)
        parts.append(Picture(f"seed_training_{place}", alt, caption, of_training))
    columns = [("arm", "arm"), ("initializations", "starts"), ("layer", "layer"), ("before", "before", number)]
    columns += [("after", lambda row: mean_sd(row["after"], row["after_sd"])), ("pairs", "pairs")]
    columns += [("R²", "r_squared", number, 2), ("95 % interval", "r_squared_ci95", plain_interval, 2)]
    columns += [("points", lambda row: row["n_points"] or "–")]
    table = Table("seed_pairs", say("captions.seed_pairs_table"), columns, seed_rows(found), text_columns=3)
    return [*parts, table] if parts else []


def seed_rows(found: "Mapping[str, Population]") -> list[dict[str, Any]]:
    """A row per arm, kind of pair and layer."""
    return [
        {"arm": name, "starts": g.starts, "layer": g.layer, "pairs": g.pairs, "before": g.initial, "after": g.final}
        | {"after_sd": g.sd, "r_squared": g.r_squared, "r_squared_ci95": g.r_squared_ci95, "n_points": g.n_points}
        for name, population in found.items()
        for g in population.groups
    ]


def gain_rows(points: Mapping[tuple[str, str], Sequence[GainPoint]]) -> list[dict[str, Any]]:
    """Least-squares fits of gain to similarity, by arm and layer."""
    rows = []
    for (arm, layer), members in points.items():
        line = fit_line([point.similarity for point in members], [point.gain for point in members])
        figures = {"slope": line.slope, "intercept": line.intercept, "r": line.r, "ci95": line.ci95, "n": line.n}
        rows.append({"arm": arm, "layer": layer} | figures)
    return rows


def gain_parts(points: Mapping[tuple[str, str], Sequence[GainPoint]], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Similarity against gain, if a line can be fitted for some arm."""
    lines = {(row["arm"], row["layer"]): (row["slope"], row["intercept"]) for row in rows if row["slope"] is not None}
    drawn = {arm for arm, _ in lines}
    if not drawn:
        return []
    scatter = {key: [(p.target, p.similarity, p.gain) for p in points[key]] for key in points if key[0] in drawn}
    arms, layers = (list(dict.fromkeys(key[place] for key in scatter)) for place in (0, 1))
    figure = draw_gain(arms, layers, scatter, lines)
    columns = [("arm", "arm"), ("layer", "layer"), ("slope", "slope", signed, 2)]
    columns += [("95 % interval", "ci95", interval, 2), ("r", "r", signed, 2), ("n", "n")]
    of_drawn = [row for row in rows if row["arm"] in drawn]
    return [
        Picture("gain", say("captions.gain_alt", arms, layers), say("captions.gain_figure"), figure),
        Table("gain", say("captions.gain_table"), columns, of_drawn, text_columns=2),
    ]


def count_images(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Arm, and images, patients (None if unknown) and images per class in all splits of its first run, if recorded."""
    counts = []
    for arm in arms:
        run = arm.runs[0]
        if (run.path / "folds.csv").is_file():
            with reading(run.path):
                rows = {row["path"]: (row["label"], row["patient"]) for row in read_folds(run.path)}
            several = run.scoring.task == "multilabel"
            labels = Counter(name for label, _ in rows.values() for name in (label.split(";") if several else [label]))
            patients = len({patient for _, patient in rows.values() if patient}) or None
            classes = {name: labels[name] for name in run.scoring.in_order}
            counts.append({"arm": arm.name, "images": len(rows), "patients": patients, "classes": classes})
    return counts


def facts(found: ArmResults, subject: Subject, counts: Sequence[Row]) -> list[tuple[str, str]]:
    """The facts under the title."""
    scoring = subject.arms[0].runs[0].scoring
    shown = [("question", question(scoring))]
    if found.image_sets > 1:
        shown.append(("sets of test images", str(found.image_sets)))
    elif counts:
        # Each if it is the same for all arms; else a range.
        classes, patients = (list(dict.fromkeys(map(text, counts))) for text in (_classes, _patients))
        names = listed(list(counts[0]["classes"])[:MOST_CLASSES])
        shown.append(("classes", classes[0] if len(classes) == 1 else names))
        shown.append(("images", _range([row["images"] for row in counts])))
        shown += [("patients", patients[0])] if len(patients) == 1 else []
    runs = {run.path for arm in subject.arms for run in arm.runs}
    shown += [("arms", str(len(subject.arms))), ("runs", str(len(runs)))]
    shown.append(("networks trained", str(sum(arm.trainings for arm in found.arms))))
    tested = {(difference.patients, difference.unit) for difference in found.differences}
    if len(tested) == 1:
        ((tests, unit),) = tested
        shown.append((f"{unit} tested", f"{tests:,}"))
    if scoring.positive_class is not None:
        shown.append(("positive class", scoring.positive_class))
    unfinished = [row["status"] for row in subject.unfinished]
    return shown + [(f"runs {_STATUS[s]}", str(unfinished.count(s))) for s in _STATUS if s in unfinished]


def provenance_parts(subject: Subject, counts: Sequence[Row]) -> list[Any]:
    """The runs of each arm, their data, unfinished runs, and notes."""
    parts: list[Any] = _unfinished_table(subject)
    if counts:
        sources = {arm.name: str(arm.runs[0].settings.get("data.source")) for arm in subject.arms}
        rows = [
            {"arm": row["arm"], "data": sources[row["arm"]]}
            | {name: row[name] for name in ("classes", "images", "patients")}
            for row in counts
        ]
        columns = [("arm", "arm"), ("data", "data"), ("classes", _classes), ("images", "images", count)]
        columns += [("patients", _patients)]
        parts.append(Table("data", say("captions.data_table"), columns, rows, text_columns=3))
    rows = [
        {"arm": arm.name, "run": str(run.path), "seed": run.seed, "folds": [fold.fold for fold in run.folds]}
        for arm in subject.arms
        for run in arm.runs
    ]
    columns = [("arm", "arm"), ("run", "run"), ("seed", "seed")]
    columns += [("folds", lambda row: ", ".join(map(str, row["folds"])))]
    parts.append(Table("runs", say("captions.runs_table"), columns, rows, text_columns=2))
    notes = [Point("left out", f"{note.rstrip('.')}.") for note in subject.notes]
    return [*parts, notes] if notes else parts


def _classes(row: Row) -> str:
    """Such as "benign 437, malignant 210"; at most `MOST_CLASSES`."""
    shown = [f"{name} {images:,}" for name, images in list(row["classes"].items())[:MOST_CLASSES]]
    more = len(row["classes"]) - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more"] if more else [])])


def _patients(row: Row) -> str:
    return "not known" if row["patients"] is None else f"{row['patients']:,}"


def _unfinished_table(subject: Subject) -> list[Table]:
    rows = subject.unfinished
    if not rows:
        return []
    records = [
        {"arm": row["arm"], **row["labels"]} | {name: row[name] for name in ("run", "status", "folds", "error")}
        for row in rows
    ]

    def labels(row: Row) -> str:
        return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in row["labels"].items())

    def why(row: Row) -> str:
        """The first line of the error; the file of the table has all lines."""
        line = (row["error"] or "–").splitlines()[0]
        return line if len(line) <= _LONG else f"{line[:_LONG]}…"

    columns = [("arm", "arm"), *([("with", labels)] if any(row["labels"] for row in rows) else []), ("run", "run")]
    columns += [("status", lambda row: _STATUS[row["status"]]), ("error", why), ("finished folds", "folds")]
    return [Table("unfinished", say("captions.unfinished_table"), columns, rows, records, len(columns) - 1)]


def similarity_parts(changes: Mapping[Any, Sequence[LayerChange]], *, own: bool) -> list[Any]:
    """Similarity of layers: figures, one per set of arms or pairs with the same layers, and a table.

    `own`: the keys of `changes` are arms before and after training; else pairs of sides.
    """

    def title(key: Any) -> str:
        return key if own else " – ".join(side.replace("@initial", " before training") for side in key)

    rows = [(key, item) for key, items in changes.items() for item in items]
    if not rows:
        return []
    name = "cca_before_after" if own else "cca_pairs"
    measure = "similarity (mean CCA),\nbefore and after training" if own else "similarity (mean CCA)"
    groups: dict[tuple[str, ...], list] = {}
    for key, items in changes.items():
        if items:
            groups.setdefault(tuple(item.layer for item in items), []).append((title(key), items))
    parts: list[Any] = []
    for layers, members in groups.items():
        for first in range(0, len(members), MOST_LINES):
            lines = dict(members[first : first + MOST_LINES])
            alt = say("captions.similarity_alt", own, list(lines), layers)
            figure = _draw_similarity(layers, lines, measure)
            parts.append(Picture(f"{name}_{len(parts) + 1}", alt, say("captions.similarity_figure", own), figure))
    fields = ("layer", "similarity", "ci95", "chance", "dims", "rows")
    records = [
        ({"arm": key} if own else dict(zip("ab", key, strict=True)))
        | {name: getattr(change, name) for name in fields}
        | {"n": len(change.by_training)}
        for key, change in rows
    ]
    shown = [{"title": title(key)} | vars(change) for key, change in rows]
    columns = [("arm" if own else "networks", "title"), ("layer", "layer"), ("similarity", "similarity", number)]
    columns += [("95 % interval", "ci95", plain_interval), ("chance", "chance", number)]
    trainings = sorted({record["n"] for record in records})
    channels, positions = (_range([record[name] for record in records]) for name in ("dims", "rows"))
    caption = say("captions.similarity_table", own, trainings, channels, positions)
    return [*parts, Table(name, caption, columns, shown, records, 2)]


def _draw_similarity(layers: Sequence[str], lines: Changes, measure: str) -> Any:
    curves = {}
    for name, items in lines.items():
        values, low, high = zip(*(_ends(item.similarity, item.ci95) for item in items), strict=True)
        curves[name] = SimilarityCurve(values, low, high, [_NAN] * len(layers))
    known = [[item.chance for item in items if item.chance is not None] for items in zip(*lines.values(), strict=True)]
    return similarity_curve(layers, curves, measure=measure, chance=[max(each, default=_NAN) for each in known])


def _range(counts: Sequence[int | None]) -> str:
    known = [each for each in counts if each is not None]
    return " to ".join(f"{end:,}" for end in dict.fromkeys((min(known), max(known)))) if known else "–"


def _ends(value: float | None, ci95: Sequence[float] | None) -> tuple[float, float, float]:
    """A value and the ends of its interval, NaN for None."""
    return (_NAN if value is None else value, *(ci95 or (_NAN, _NAN)))
