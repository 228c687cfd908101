"""What a source taught: its own accuracy and AUC beside those of the networks that start from it.

References:
    Juodelyte et al. 2023 (arXiv 2302.08272), Table 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radtransfer.reports.arms.arm_results import ArmResults
from radtransfer.reports.arms.run_arms import ArmRun
from radtransfer.reports.arms.study_record import Row
from radtransfer.reports.arms.subject import Subject
from radtransfer.reports.numbers import mean_sd, number, plain_interval
from radtransfer.reports.page import Table


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
                | {f"source_{name}": source[name] for name in ("accuracy", "top5_accuracy", "auc")}
                | {"source_ci95": _interval(source), "source_images": source["images"], "arm": arm.name}
                | {"target_auc": target.mean, "target_sd": target.sd, "trainings": target.trainings}
                | {"target_pooled": target.pooled, "target_ci95": target.ci95}
            )
    return rows


def source_table(rows: Sequence[Row]) -> list[Table]:
    """The rows as a table; nothing where no arm starts from a source."""
    if not rows:
        return []
    top5 = any(row["source_top5_accuracy"] is not None for row in rows)
    cells = [
        [
            f"{row['source']}, {row['backbone']}",
            row["arm"],
            number(row["source_accuracy"]),
            *([number(row["source_top5_accuracy"])] if top5 else []),
            f"{number(row['source_auc'])} ({plain_interval(row['source_ci95'])})",
            mean_sd(row["target_auc"], row["target_sd"]),
            f"{number(row['target_pooled'])} ({plain_interval(row['target_ci95'])})",
        ]
        for row in rows
    ]
    header = ["source", "arm", "source accuracy", *(["top 5"] if top5 else []), "source AUC", "target AUC, mean ± sd"]
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
