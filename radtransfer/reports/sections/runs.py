"""The sections of a report on runs that tell what each arm scores and how arms differ."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from radtransfer.figures.auc_by_size import draw_auc_by_size
from radtransfer.figures.forest import draw_forest
from radtransfer.reports.arms.arm_names import what_it_is
from radtransfer.reports.arms.arm_results import ArmDifference, ArmResults
from radtransfer.reports.arms.run_arms import Arm
from radtransfer.reports.numbers import interval, mean_sd, number, plain_interval, signed
from radtransfer.reports.page import Picture, Table

_NAN = float("nan")

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
                    [(_nan(arm.pooled), *(arm.ci95 or (_NAN, _NAN))) for arm in scored],
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
                [(d.value, *(d.ci95 or (_NAN, _NAN))) for d in known],
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
            (arm.backbone, arm.parameters, arm.pooled, *(arm.ci95 or (_NAN, _NAN))) for arm in arms
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


def _nan(value: float | None) -> float:
    return _NAN if value is None else value
