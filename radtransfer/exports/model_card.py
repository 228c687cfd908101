"""The model card of one fold: what it was made from and what it is worth, in Markdown; nothing that no file says.

The words are in `reports/templates/model_card.md.j2`, which escapes every name.

References:
    Mitchell et al. 2019, Model Cards for Model Reporting (arXiv 1810.03993): the sections.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radtransfer.evaluation.calibration import edge_note
from radtransfer.evaluation.metrics import shown_metrics
from radtransfer.exports.metadata import (
    NOT_A_DEVICE,
    SPLITS,
    RunFacts,
    caller_text,
    depth_text,
    inside_text,
    weight_terms,
)
from radtransfer.reports.render import render
from radtransfer.reports.statistics import count, number, plain_interval

FEW = 100
"""Test images of a class below which figures are said to be of few."""


@dataclass(frozen=True)
class ExportCheck:
    """How an export came through its check; see `export_run.Exported`.

    Attributes:
        allowed: Largest difference that is let pass.
    """

    usage: str
    size: int
    difference: float
    bytes_difference: float | None
    images: int
    allowed: float


def model_card(
    facts: RunFacts, *, size: int, check: ExportCheck | None = None, values: Mapping[str, Any] | None = None
) -> str:
    """The card as text.

    Args:
        facts: Of the fold.
        size: Side of the images that the model takes, pixels.
        check: Of the export that the card stands beside, if it does.
        values: What more stands in its metadata: `temperature` and `operating_point`, where they were chosen.
    """
    record, splits, tests = facts.record, facts.splits, facts.splits["test"].classes
    temperature, point = ((values or {}).get(name) for name in ("temperature", "operating_point"))
    versions = record.get("versions") or {}
    made_with = (f"{name} {versions[name]}" for name in ("radtransfer", "tensorflow", "keras") if name in versions)
    return render(
        "model_card.md.j2",
        not_a_device=NOT_A_DEVICE,
        facts=facts,
        size=size,
        made_with=", ".join(made_with),
        images=(record.get("data") or {}).get("images") or sum(split.images for split in splits.values()),
        sets=[
            (name, count(splits[name].images), count(splits[name].patients))
            + tuple(count(splits[name].classes.get(label, 0)) for label in facts.scoring.in_order)
            for name in SPLITS
        ],
        leakage=(facts.settings.get("data") or {}).get("allow_leakage"),
        train_size=(facts.settings.get("splits") or {}).get("train_size"),
        results=_results(facts),
        overall=facts.overall.get("auc") or {},
        temperature=temperature,
        edge=edge_note([temperature]) if temperature else None,
        point=point,
        thresholds=point and _thresholds(point),
        steps=_steps(facts.settings.get("training") or {}),
        stages=[
            (part["stage"], part["starts_from"], "yes" if part["trains"] else "no", f"{part['width']:g}")
            for part in (record.get("plan") or {}).get("stages", ())
        ],
        terms=weight_terms(record),
        from_random=(record.get("weights") or {}).get("source") == "random",
        inside=inside_text(record["preprocessing"]),
        caller=caller_text(size, facts.reading),
        depth=depth_text(facts.reading),
        few=[f"{name} ({tests.get(name, 0)})" for name in facts.classes if tests.get(name, 0) < FEW],
        few_images=FEW,
        check=check,
    )


def _results(facts: RunFacts) -> list[tuple[str, str, str]]:
    """Name, value and interval of each figure."""
    metrics, scoring = facts.metrics, facts.scoring
    per_class = metrics.get("per_class") or {}
    of = f" ({scoring.subject})" if scoring.subject else ""
    return [
        ("AUC", number(metrics.get("auc")), plain_interval(facts.summary["auc"]["ci95"] if facts.summary else None)),
        *((f"AUC, {name}", number(per_class[name]), "–") for name in scoring.in_order if name in per_class),
        *(
            (item.label + (of if item.names_subject else ""), number(metrics.get(item.name)), "–")
            for item in shown_metrics(metrics)
        ),
    ]


def _thresholds(point: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (name, f"{threshold:.4g}", number(point["sensitivity"].get(name)), number(point["specificity"].get(name)))
        for name, threshold in point["thresholds"].items()
    ]


def _steps(training: Mapping[str, Any]) -> list[str]:
    """The settings of training that a reader wants first."""
    named = {"optimizer": "", "learning_rate": "learning rate ", "schedule": "", "batch_size": "batch "}
    others = {name: f"{name} " for name in ("augmentation", "loss", "ema_momentum") if training.get(name) is not None}
    return [f"{word}{training[name]}" for name, word in (named | others).items() if name in training]
