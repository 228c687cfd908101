"""The sections of a report on runs: a figure and a table each, from the values that `arms/` found.

The sections of a report on runs that tell what training changed: layers, and filters.

The section of a report that tells how soon networks learn.

The section of a report on runs that tells whether networks that stay like their start gain more.

What the runs of a report were made on: how many images, patients and of each class, as their `folds.csv` says.

The parts of a report that tell what it was made from: facts, published figures, the runs, and what is missing.

The sections of a report on runs that tell what each arm scores and how arms differ.

The figures of several seeds: pretrained and random networks against each other, before and after training.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Fig. 2 (the top two stages averaged) and Fig. 4 (R² of
    each layer).

What a source taught: its own accuracy and AUC beside those of the networks that start from it.

References:
    Juodelyte et al. 2023 (arXiv 2302.08272), Table 1.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radtransfer.evaluation.metrics import METRICS, stored_metrics
from radtransfer.reports.arms import MOST_CLASSES, question
from radtransfer.reports.collect import Arm, ArmDifference, ArmResults, ArmRun, LayerChange, Row, StepDifference
from radtransfer.reports.figures import SimilarityCurve as Curve
from radtransfer.reports.figures import (
    draw_auc_by_size,
    draw_convergence,
    draw_forest,
    draw_gain,
    filter_change,
    similarity_curve,
)
from radtransfer.reports.names import Subject, what_it_is
from radtransfer.reports.page import Picture, Point, Points, Prose, Table
from radtransfer.reports.statistics import (
    GainPoint,
    fit_line,
    interval,
    listed,
    mean_sd,
    number,
    plain_interval,
    signed,
)
from radtransfer.runs.folder import read_folds
from radtransfer.runs.read import reading
from radtransfer.similarity.population import draw_groups, draw_training

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


def convergence_parts(
    curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]],
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[StepDifference],
) -> list[Any]:
    """AUC against steps, steps to the threshold, and how arms differ in them."""
    if not curves or not rows:
        return []
    threshold = rows[0]["threshold"]
    cells = [
        [row["arm"], mean_sd(row["steps_mean"], row["steps_sd"], 0), f"{row['reached']} of {row['watched']}"]
        for row in rows
    ]
    counts = sorted({len(folds) for folds in curves.values()})
    parts = [
        Picture(
            "convergence",
            f"Test AUC against training steps of {', '.join(curves)}.",
            f"Test AUC against training steps: mean over n = {' or '.join(map(str, counts))} trainings, band or bars ± "
            f"sd (ddof 1); bars stand beside their step. Dotted: the threshold of the table, {threshold:g}.",
            draw_convergence(curves, threshold=threshold),
        ),
        Table(
            "steps",
            f"Training steps to a test AUC of {threshold:g}: mean ± sd (ddof 1) over the trainings that reach it; "
            "where some do not, the mean is of the faster ones.",
            ["arm", "steps", "reached"],
            cells,
            rows,
        ),
    ]
    return [*parts, _difference_table(differences, threshold)] if differences else parts


def _difference_table(differences: Sequence[StepDifference], threshold: float) -> Table:
    cells = [
        [d.a, d.b, signed(d.mean, 0), number(d.sd, 0), interval(d.ci95, 0)]
        + [str(d.trainings), str(d.only_a), str(d.only_b)]
        for d in differences
    ]
    caption = (
        f"Steps of A less steps of B to a test AUC of {threshold:g}, on the same seed and fold: mean, sd (ddof 1), and "
        "Student's 95 % interval corrected for shared training images, never narrower than ± the steps between two "
        "looks. A training that never gets there counts with its last step: the real difference is larger."
    )
    header = ["A", "B", "A − B", "sd", "95 % interval", "trainings", "A alone", "B alone"]
    records = [dataclasses.asdict(difference) for difference in differences]
    return Table("step_differences", caption, header, cells, records, text_columns=2)


def gain_rows(points: Mapping[tuple[str, str], Sequence[GainPoint]]) -> list[dict[str, Any]]:
    """Least squares of gain on similarity, by arm and layer."""
    rows = []
    for (arm, layer), members in points.items():
        line = fit_line([point.similarity for point in members], [point.gain for point in members])
        figures = {"slope": line.slope, "intercept": line.intercept, "r": line.r, "ci95": line.ci95, "n": line.n}
        rows.append({"arm": arm, "layer": layer} | figures)
    return rows


def gain_parts(
    points: Mapping[tuple[str, str], Sequence[GainPoint]], rows: Sequence[Mapping[str, Any]]
) -> list[Picture | Table]:
    """Similarity against gain, where a line can be laid through the trainings of some arm."""
    lines = {(row["arm"], row["layer"]): row for row in rows if row["slope"] is not None}
    drawn = {arm for arm, _ in lines}
    if not drawn:
        return []
    arms, layers = (list(dict.fromkeys(key[place] for key in points if key[0] in drawn)) for place in (0, 1))
    shown = [row for row in rows if row["arm"] in drawn]
    cells = [
        [r["arm"], r["layer"], signed(r["slope"], 2), interval(r["ci95"], 2), signed(r["r"], 2), str(r["n"])]
        for r in shown
    ]
    caption = (
        "Least squares of relative gain over the reference arm, (AUC − its AUC) / its AUC on the same fold and seed, "
        "on CCA before and after; n = trainings. 95 % interval of the slope: Student's t on n − 2 degrees of freedom, "
        "trainings taken as independent, which folds and seeds of one data set are not: it is too narrow."
    )
    return [
        Picture(
            "gain",
            f"Gain against similarity of {', '.join(arms)} at {', '.join(layers)}, a point per training; see the "
            "table.",
            "Similarity against gain, a row per arm and a column per layer, a point per training. Line: least squares.",
            draw_gain(
                arms,
                layers,
                {key: [(p.target, p.similarity, p.gain) for p in points[key]] for key in points if key[0] in drawn},
                {key: (row["slope"], row["intercept"]) for key, row in lines.items()},
            ),
        ),
        Table("gain", caption, ["arm", "layer", "slope", "95 % interval", "r", "n"], cells, shown, text_columns=2),
    ]


@dataclass(frozen=True)
class ImageCounts:
    """Different images of a run, of all splits.

    Attributes:
        images: How many.
        patients: How many; None where they are not known.
        classes: How many images have each class or label.
    """

    images: int
    patients: int | None
    classes: Mapping[str, int]

    @property
    def classes_text(self) -> str:
        """As in: benign 437, malignant 210; of many classes, the first."""
        shown = [f"{name} {count:,}" for name, count in list(self.classes.items())[:MOST_CLASSES]]
        more = len(self.classes) - len(shown)
        return ", ".join([*shown, *([f"and {more:,} more"] if more else [])])

    @property
    def patients_text(self) -> str:
        return "not known" if self.patients is None else f"{self.patients:,}"


def count_images(arms: Sequence[Arm]) -> dict[str, ImageCounts]:
    """Of the first run of each arm; those whose `folds.csv` is gone are left out.

    Raises:
        RunError: The file is not as it was written.
    """
    counts = {arm.name: _counts(arm.runs[0]) for arm in arms}
    return {name: found for name, found in counts.items() if found is not None}


def count_facts(counts: Mapping[str, ImageCounts]) -> list[tuple[str, str]]:
    """Classes, images and patients, each where it is the same of all arms, or from how many to how many."""
    if not counts:
        return []
    found = list(counts.values())
    classes = list(dict.fromkeys(each.classes_text for each in found))
    images, patients = (
        sorted({each.images for each in found}),
        list(dict.fromkeys(each.patients_text for each in found)),
    )
    facts = [("classes", classes[0] if len(classes) == 1 else listed(list(found[0].classes)[:MOST_CLASSES]))]
    facts.append(("images", f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"))
    return [*facts, ("patients", patients[0])] if len(patients) == 1 else facts


def count_table(counts: Mapping[str, ImageCounts], arms: Sequence[Arm]) -> list[Table]:
    """What each arm was made on."""
    shown = [
        (arm.name, str(arm.runs[0].settings.get("data.source")), counts[arm.name]) for arm in arms if arm.name in counts
    ]
    if not shown:
        return []
    cells = [[name, source, c.classes_text, f"{c.images:,}", c.patients_text] for name, source, c in shown]
    records: list[dict[str, Any]] = [
        {"arm": name, "data": source, "classes": dict(c.classes), "images": c.images, "patients": c.patients}
        for name, source, c in shown
    ]
    caption = (
        "What the networks were trained, validated and tested on: the images that take part in a fold of the arm's "
        "first run, each counted once, of each class and in all, and their patients."
    )
    header = ["arm", "data", "classes", "images", "patients"]
    return [Table("data", caption, header, cells, records, text_columns=3)]


def _counts(run: ArmRun) -> ImageCounts | None:
    if not (run.path / "folds.csv").is_file():
        return None
    with reading(run.path):
        rows = {row["path"]: (row["label"], row["patient"]) for row in read_folds(run.path)}
    labels: Counter[str] = Counter()
    for label, _ in rows.values():
        labels.update(label.split(";") if run.scoring.task == "multilabel" else [label])
    patients = {patient for _, patient in rows.values() if patient}
    return ImageCounts(len(rows), len(patients) or None, {name: labels[name] for name in run.scoring.in_order})


def facts(found: ArmResults, subject: Subject, counts: Mapping[str, ImageCounts]) -> list[tuple[str, str]]:
    """What stands under the title."""
    tested = {(difference.patients, difference.unit) for difference in found.differences}
    runs = {run.path for arm in subject.arms for run in arm.runs}
    sets = found.image_sets
    scoring = subject.arms[0].runs[0].scoring
    shown = [("question", question(scoring))]
    shown += count_facts(counts) if sets < 2 else [("sets of test images", str(sets))]
    shown += [("arms", str(len(subject.arms))), ("runs", str(len(runs)))]
    shown.append(("networks trained", str(sum(arm.trainings for arm in found.arms))))
    if len(tested) == 1:
        (count, unit) = tested.pop()
        shown.append((f"{unit} tested", f"{count:,}"))
    shown += [("positive class", scoring.positive_class)] if scoring.positive_class is not None else []
    unfinished = [row["status"] for row in subject.unfinished]
    shown += [(f"runs {_STATUS[status]}", str(unfinished.count(status))) for status in _STATUS if status in unfinished]
    return shown


def published_parts(subject: Subject) -> list[Prose]:
    """What a study follows, and the published figures to hold its own against."""
    words = {"follows": "Follows", "published": "Published, to compare with"}
    return [Prose(f"{title}: {text}", kept=True) for key, title in words.items() if (text := subject.about.get(key))]


def provenance_parts(subject: Subject, counts: Mapping[str, ImageCounts]) -> list[Any]:
    """Which runs were read, which have no result, and what was left out."""
    rows = [
        {"arm": arm.name, "run": str(run.path), "seed": run.seed, "folds": [fold.fold for fold in run.folds]}
        for arm in subject.arms
        for run in arm.runs
    ]
    cells = [[row["arm"], row["run"], str(row["seed"]), ", ".join(map(str, row["folds"]))] for row in rows]
    parts: list[Any] = [*_unfinished_table(subject), *count_table(counts, subject.arms)]
    parts.append(
        Table("runs", "The runs behind each arm.", ["arm", "run", "seed", "folds"], cells, rows, text_columns=2)
    )
    notes = [Point("left out", f"{note.rstrip('.')}.") for note in subject.notes]
    return [*parts, Points(notes)] if notes else parts


def _unfinished_table(subject: Subject) -> list[Table]:
    if not subject.unfinished:
        return []
    rows = [
        {"arm": row["arm"], **row["labels"], "run": row["run"], "status": row["status"]}
        | {"folds": row["folds"], "error": row["error"]}
        for row in subject.unfinished
    ]
    labels = any(row["labels"] for row in subject.unfinished)
    cells = [
        [row["arm"], *([_labels(row["labels"])] if labels else []), row["run"]]
        + [_STATUS[row["status"]], _short(row["error"]), str(row["folds"])]
        for row in subject.unfinished
    ]
    caption = (
        "Runs of the study that are not finished. Folds that are count in this report; the rest is missing from it, "
        "and an arm without any is not in it."
    )
    header = ["arm", *(["with"] if labels else []), "run", "state", "why", "folds done"]
    return [Table("unfinished", caption, header, cells, rows, text_columns=len(header) - 1)]


def _labels(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in labels.items())


def _short(error: str | None) -> str:
    """The first line of a message; the whole is in the table's file."""
    lines = (error or "–").splitlines()
    return lines[0] if len(lines[0]) <= _LONG else f"{lines[0][:_LONG]}…"


_LONG = 160
_STATUS = {"partly": "partly done", "failed": "failed", "waiting": "not yet run", "gone": "no longer there"}


_NAN_RUNS = float("nan")

_ONE_LINE = 30
"""Letters of two names that stand on one line beside a figure."""


def auc_parts(found: ArmResults, arms: Sequence[Arm]) -> list[Any]:
    """AUC of every arm: a forest of pooled AUCs, and the table."""
    aucs = {arm.name: [fold.auc for fold in arm.folds if fold.auc is not None] for arm in arms}
    scored = found.scored
    parts: list[Any] = []
    first = "best first" if found.image_sets < 2 else "best first among those tested on the same images"
    if scored:
        parts.append(
            Picture(
                "auc",
                f"AUC of {', '.join(arm.name for arm in scored)}, {first}; the figures are in the first table.",
                f"AUC of each arm, {first}. Dot and bar: the out-of-fold predictions taken together, with the 95 % "
                "interval over patients (images where patients are not known); strokes: single trainings.",
                draw_forest(
                    [arm.name for arm in scored],
                    [(_nan_runs(arm.pooled), *(arm.ci95 or (_NAN_RUNS, _NAN_RUNS))) for arm in scored],
                    label="test AUC",
                    points=[aucs[arm.name] for arm in scored],
                ),
            )
        )
    order = [*scored, *(arm for arm in found.arms if arm.mean is None)]
    what = [what_it_is(arm) for arm in order]
    named = all(arm.name == text for arm, text in zip(order, what, strict=True))
    cells = [
        [
            arm.name,
            *([] if named else [text]),
            mean_sd(arm.mean, arm.sd),
            str(arm.trainings),
            number(arm.pooled),
            plain_interval(arm.ci95),
        ]
        for arm, text in zip(order, what, strict=True)
    ]
    caption = (
        "Test AUC. Mean ± sd over trainings (each a seed and a fold; ddof 1), which is no interval; pooled: all "
        "out-of-fold predictions of a repeat together, averaged over repeats and seeds, with its 95 % interval over "
        "patients. The interval takes the trained networks as they are."
    )
    header = ["arm", *([] if named else ["what it is"]), "AUC, mean ± sd", "trainings", "pooled", "95 % interval"]
    records = [dataclasses.asdict(arm) for arm in order]
    return [*parts, Table("auc", caption, header, cells, records, text_columns=1 if named else 2)]


def difference_parts(found: ArmResults, references: Mapping[str, str]) -> list[Any]:
    """Paired differences: each arm less its reference, or the best arm less each other, and every pair as a table."""
    if not found.differences:
        return []
    scored = [arm.name for arm in found.scored]
    against = {name: references[name] for name in scored if name in references}
    parts = _reference_figure(found, against) if against else _best_figure(found, scored[0], scored[1:])
    counts = {f"{difference.patients:,} {difference.unit}" for difference in found.differences}
    caption = (
        f"Paired differences of AUC, A less B, on the images that both tested (n = {', '.join(sorted(counts))}), "
        "with the 95 % interval over patients; "
        "then training by training on the same seed and fold, mean ± sd (ddof 1), with Student's 95 % "
        "interval corrected for shared training images (Nadeau and Bengio 2003). p: DeLong's test, images counted as "
        "independent, where each arm is a single run without repeats."
    )
    header = ["A", "B", "A − B", "95 % interval", "by training", "95 % interval", "A better", "p"]
    place = {name: number for number, name in enumerate(scored)}
    rows = [d if place[d.a] < place[d.b] else d.turned() for d in found.differences]
    rows.sort(key=lambda difference: (place[difference.a], place[difference.b]))
    cells = [_difference_cells(difference) for difference in rows]
    records = [dataclasses.asdict(difference) for difference in rows]
    return [*parts, Table("differences", caption, header, cells, records, text_columns=2)]


def _reference_figure(found: ArmResults, against: Mapping[str, str]) -> list[Picture]:
    known = [d for name, reference in against.items() if (d := found.difference(name, reference)) is not None]
    names = sorted({difference.b for difference in known})
    one = names[0] if len(names) == 1 else "its reference"
    return _difference_figure(known, f"AUC of each arm less that of {one}")


def _best_figure(found: ArmResults, best: str, others: Sequence[str]) -> list[Picture]:
    known = [difference for name in others if (difference := found.difference(best, name)) is not None]
    return _difference_figure(known, f"AUC of {best}, the best arm, less that of each other")


def _difference_figure(known: Sequence[ArmDifference], what: str) -> list[Picture]:
    if not known:
        return []
    return [
        Picture(
            "differences",
            f"{what}: {', '.join(f'{d.a} and {d.b}' for d in known)}; see the table.",
            f"{what}, on the same images: 95 % interval over patients. Hollow: the interval contains zero.",
            draw_forest(
                [_less(difference.a, difference.b) for difference in known],
                [(d.value, *(d.ci95 or (_NAN_RUNS, _NAN_RUNS))) for d in known],
                label="difference in AUC",
                reference=0.0,
            ),
        )
    ]


def _less(a: str, b: str) -> str:
    """A − B on one line, or on two where that is too long for one."""
    return f"{a} − {b}" if len(a) + len(b) <= _ONE_LINE else f"{a}\n− {b}"


def _difference_cells(difference: ArmDifference) -> list[str]:
    return [
        difference.a,
        difference.b,
        signed(difference.value),
        interval(difference.ci95),
        _signed_sd(difference.fold_mean, difference.fold_sd),
        interval(difference.fold_ci95),
        f"{difference.better} of {difference.trainings}",
        "–" if difference.p is None else f"{difference.p:.2g}",
    ]


def _signed_sd(mean: float | None, sd: float | None) -> str:
    return signed(mean) if mean is None or sd is None else f"{signed(mean)} ± {number(sd)}"


def agreement_parts(found: ArmResults, named: Collection[frozenset[str]] | None) -> list[Any]:
    """Whether arms are right and wrong about the same images, of the pairs `named`; None for all."""
    known = [d for d in found.differences if d.agreement is not None and (named is None or {d.a, d.b} in named)]
    if not known:
        return []
    cells = [
        [d.a, d.b, number(d.agreement[0]), number(d.agreement[1]), number(d.kappa), plain_interval(d.kappa_ci95)]
        for d in known
    ]
    records = [
        {"a": d.a, "b": d.b, "observed": d.agreement[0], "independent": d.agreement[1]}
        | {"kappa": d.kappa, "kappa_ci95": d.kappa_ci95, "n": d.patients, "unit": d.unit}
        for d in known
    ]
    caption = (
        "Prediction similarity: share of images on which A and B are both right or both wrong, against that of "
        "independent networks of the same accuracies, a·b + (1 − a)(1 − b); Cohen's kappa with its 95 % interval over "
        "patients."
    )
    header = ["A", "B", "observed", "independent", "kappa", "95 % interval"]
    return [Table("predictions", caption, header, cells, records, text_columns=2)]


def size_parts(found: ArmResults) -> list[Any]:
    """AUC against parameters, where arms differ in size."""
    known = [arm for arm in found.scored if arm.parameters and arm.pooled is not None]
    if len({arm.parameters for arm in known}) < 2:
        return []
    alike: dict[tuple[str, ...], list] = {}
    for arm in known:
        alike.setdefault((arm.start, arm.depth, arm.recipe, arm.context, arm.images), []).append(arm)
    groups = {
        arms[0].name if len(arms) == 1 else ", ".join(filter(None, words[:-1])): [
            (arm.backbone, arm.parameters, arm.pooled, *(arm.ci95 or (_NAN_RUNS, _NAN_RUNS))) for arm in arms
        ]
        for words, arms in alike.items()
    }
    return [
        Picture(
            "size",
            f"AUC against parameters of {', '.join(arm.name for arm in known)}; the figures are in the first table.",
            "Pooled test AUC against the parameters of the backbone; bars: 95 % interval over patients.",
            draw_auc_by_size(groups),
        )
    ]


def _nan_runs(value: float | None) -> float:
    return _NAN_RUNS if value is None else value


if TYPE_CHECKING:
    from radtransfer.similarity.population import Population


def seed_parts(found: "Mapping[str, Population]") -> list[Any]:
    """Two figures for each arm, and one table."""
    parts: list[Any] = []
    for place, (name, population) in enumerate(found.items(), start=1):
        starts = list(dict.fromkeys(group.starts for group in population.groups))
        counts = ", ".join(f"{s} {_pairs(population, s)}" for s in starts)
        parts += [
            Picture(
                f"seed_pairs_{place}",
                f"Similarity of networks of several seeds of {name} and its reference, layer by layer: "
                f"{', '.join(starts)}; see the table.",
                f"{name} and its random reference, every two seeds compared after training: mean CCA over pairs, bars "
                f"± sd (ddof 1; pairs share networks, so it is no interval). Last place: mean of the two highest "
                f"stages. Pairs: {counts}.",
                draw_groups(population, "cca", top=True),
            ),
            Picture(
                f"seed_training_{place}",
                f"Similarity before training against after it of every pair of seeds of {name} and its reference.",
                f"{name} and its random reference: CCA of every pair of seeds before training (across) against after "
                "it, layer by layer, the lowest first, each panel with its own scales; a point per pair and draw of "
                "channels and positions, a mark per pair. R² with its 95 % interval: see the table. Points on the line "
                "did not change.",
                draw_training(population, "cca"),
            ),
        ]
    return [*parts, _table(found)] if parts else []


def seed_rows(found: "Mapping[str, Population]") -> list[dict[str, Any]]:
    """A row for each arm, kind of pair and layer."""
    return [
        {"arm": name, "starts": g.starts, "layer": g.layer, "pairs": g.pairs, "before": g.initial, "after": g.final}
        | {"after_sd": g.sd, "r_squared": g.r_squared, "r_squared_ci95": g.r_squared_ci95, "n_points": g.n_points}
        for name, population in found.items()
        for g in population.groups
    ]


def _table(found: "Mapping[str, Population]") -> Table:
    rows = seed_rows(found)
    cells = [
        [r["arm"], r["starts"], r["layer"], number(r["before"]), mean_sd(r["after"], r["after_sd"]), str(r["pairs"])]
        + [number(r["r_squared"], 2), plain_interval(r["r_squared_ci95"], 2), str(r["n_points"] or "–")]
        for r in rows
    ]
    caption = (
        "CCA of every two seeds before and after training, mean and sd (ddof 1) over pairs, which share networks. R²: "
        "squared correlation of similarity before and after training in the layer, over points, which are pairs × "
        "draws of channels and positions; none where all start alike or nothing moved. Pairs that share a network are "
        "not independent, so its 95 % interval is a jackknife that leaves out one network after another (Fisher's z, "
        "Student's t; never narrower than that of independent points): wide with few networks, 0 to 1 where they are "
        "too few to tell. With a single pair its draws are left out, which says nothing of other networks."
    )
    header = ["arm", "starts", "layer", "before", "after", "pairs", "R²", "95 % interval", "points"]
    return Table("seed_pairs", caption, header, cells, rows, text_columns=3)


def _pairs(population: "Population", starts: str) -> int:
    return next(group.pairs for group in population.groups if group.starts == starts)


def source_rows(subject: Subject, found: ArmResults) -> list[dict[str, Any]]:
    """A row for each arm and source run that its runs start from."""
    by_key = {row["run"]: row for row in subject.sources}
    summaries = {arm.name: arm for arm in found.arms}
    rows = []
    for arm in subject.arms:
        sources = dict.fromkeys(key for run in arm.runs if (key := _source_of(run, by_key)) is not None)
        target = summaries[arm.name]
        for key in sources:
            source = by_key[key]
            rows.append(
                {"source": source["arm"].removeprefix("source:"), "run": key, "backbone": source["backbone"]}
                | {f"source_{name}": source.get(name) for name in (*stored_metrics("studies"), "auc")}
                | {"source_ci95": _interval(source), "source_images": source["images"], "arm": arm.name}
                | {"target_auc": target.mean, "target_sd": target.sd, "trainings": target.trainings}
                | {"target_pooled": target.pooled, "target_ci95": target.ci95}
            )
    return rows


def source_table(rows: Sequence[Row]) -> list[Table]:
    """The rows as a table; nothing where no arm starts from a source."""
    if not rows:
        return []
    metrics = [METRICS[name] for name in stored_metrics("studies")]
    metrics = [
        item for item in metrics if not item.needs or any(row[f"source_{item.name}"] is not None for row in rows)
    ]
    cells = [
        [
            f"{row['source']}, {row['backbone']}",
            row["arm"],
            *(number(row[f"source_{item.name}"]) for item in metrics),
            f"{number(row['source_auc'])} ({plain_interval(row['source_ci95'])})",
            mean_sd(row["target_auc"], row["target_sd"]),
            f"{number(row['target_pooled'])} ({plain_interval(row['target_ci95'])})",
        ]
        for row in rows
    ]
    named = (f"source {item.label}" for item in metrics)
    header = ["source", "arm", *named, "source AUC", "target AUC, mean ± sd"]
    caption = (
        "How well each source network does on images of its own, and what the networks that start from it reach on the "
        "target. In brackets: 95 % interval over patients. Mean ± sd over trainings (ddof 1). One source "
        "network is one training: the interval does not say how another training of it would do."
    )
    return [Table("sources", caption, [*header, "pooled"], cells, rows, text_columns=2)]


def _source_of(run: ArmRun, by_key: dict[str, Row]) -> str | None:
    """The key of the source run whose file the weights are."""
    file = (run.record.get("weights") or {}).get("file")
    return next((part for part in Path(file).parts if part in by_key), None) if file else None


def _interval(row: Row) -> tuple[float, float] | None:
    return None if row["ci95_low"] is None else (row["ci95_low"], row["ci95_high"])
