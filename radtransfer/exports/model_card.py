"""The model card of one fold: what it was made from and what it is worth, in Markdown; nothing that no file says.

References:
    Mitchell et al. 2019, Model Cards for Model Reporting (arXiv 1810.03993): the sections.

What a model card has to warn of, by what the files of the run say.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from radtransfer.files import markdown_code
from radtransfer.files import markdown_text as _text
from radtransfer.reports.statistics import mean_sd, number

FEW = 100
"""Test images, or images of a class among them, below which figures are said to be of few."""


def card_limits(facts: RunFacts) -> list[str]:
    """One sentence or two each."""
    return list(_limits(facts))


def _limits(facts: RunFacts) -> Iterator[str]:
    test, record = facts.splits["test"], facts.record
    yield (
        "It was tested on images of the same source as those it learned from only; on those of another hospital, "
        "device, population or protocol it may be much worse."
    )
    if test.patients is None:
        yield (
            "Patients were not known: images of one patient may have been in training and in test, and the figures too "
            "good; the interval takes the images for independent and may be too narrow."
        )
    if (facts.settings.get("data") or {}).get("allow_leakage"):
        yield "The split was used though images or patients stand in several of its sets; the figures may be too good."
    few = [f"{name} ({test.classes.get(name, 0)})" for name in facts.classes if test.classes.get(name, 0) < FEW]
    if few:
        yield f"Fewer than {FEW} test images of {', '.join(few)}: its figures on them are uncertain."
    undefined = facts.metrics.get("undefined") or {}
    for name, reason in undefined.items():
        yield f"No AUC of {name}: {reason}."
    yield "Its probabilities are given as they are, not calibrated: 0.9 does not mean nine in ten."
    yield (
        "It gives probabilities for any image, also for one that shows something else or a class it never saw, and "
        "does not say that it cannot tell."
    )
    failed = record.get("status") not in (None, "finished")
    if failed:
        yield f"The run is {record['status']}, not finished."
    if len(facts.folds) > 1:
        yield "Each fold of the run is another model; figures over all folds are not this model's."


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
    values = values or {}
    limits = card_limits(facts)
    of = f"fold {facts.fold}" if len(facts.folds) > 1 else "its only fold"
    parts = [
        f"# Model card: {_text(facts.record['backbone'])}, run {_text(facts.name)}, {of}",
        f"> **{NOT_A_DEVICE}** Not made for, and not tested in, the diagnosis or treatment of patients.",
        *_section("Model", _model(facts, size)),
        *_section("Training and test data", _data(facts)),
        *_section("Results on test images", _results(facts)),
        *_section("How its probabilities are used", _use(facts, values)),
        *_section("How it was trained", _training(facts)),
        *_section("Weights it started from, and their terms", _weights(facts)),
        *_section("Input", _input(facts, size)),
        *_section("Limits", [f"* {_text(limit)}" for limit in limits]),
    ]
    if check is not None:
        parts += _section("Check of this export", _check(check))
    return "\n\n".join(parts) + "\n"


def _section(title: str, blocks: Sequence[str]) -> Iterator[str]:
    yield f"## {title}"
    yield from (["\n".join(blocks)] if all(block.startswith("* ") for block in blocks) else blocks)


def _model(facts: RunFacts, size: int) -> list[str]:
    record, plan = facts.record, facts.record.get("plan") or {}
    versions = record.get("versions") or {}
    made = ", ".join(f"{name} {versions[name]}" for name in ("radtransfer", "tensorflow", "keras") if name in versions)
    total = plan.get("total_parameters")
    parameters = f", {total:,} backbone parameters" if total else ""
    head = "one label per image" if record["head"] == "softmax" else "a probability for each label by itself"
    return [
        _table(
            ("what", ""),
            [
                ("network", record["backbone"] + parameters),
                ("takes", f"RGB images of {size}×{size} pixels"),
                ("gives", f"{record['head']} over {', '.join(facts.classes)} ({head})"),
                ("run", f"{facts.name}, fold {facts.fold}, seed {record.get('seed')}, {record.get('started') or ''}"),
                ("made with", made),
                ("sha256 of the run's model", facts.model_sha256),
            ],
        )
    ]


def _data(facts: RunFacts) -> list[str]:
    record, splits = facts.record, facts.splits
    patients = _patients(facts)
    total = (record.get("data") or {}).get("images") or sum(split.images for split in splits.values())
    rows = [
        (name, f"{splits[name].images:,}", _count(splits[name].patients))
        + tuple(f"{splits[name].classes.get(label, 0):,}" for label in facts.scoring.in_order)
        for name in SPLITS
    ]
    notes = [f"* {_text(note)}" for note in facts.notes]
    return [
        f"{_text(facts.source)}: {total:,} images, {patients}. This fold:",
        _table(("set", "images", "patients", *facts.scoring.in_order), rows, figures=2 + len(facts.classes)),
        _text(_split_sentence(facts)),
        *(["\n".join(notes)] if notes else []),
    ]


def _patients(facts: RunFacts) -> str:
    if facts.splits["test"].patients is None:
        return "patients not known"
    return f"{sum(split.patients for split in facts.splits.values()):,} patients in the sets of this fold"


def _split_sentence(facts: RunFacts) -> str:
    settings = facts.settings.get("splits") or {}
    grouped = (
        "patients were not known, so that images of one patient may stand in several sets"
        if facts.splits["test"].patients is None
        else "no patient stands in two sets"
    )
    if (facts.settings.get("data") or {}).get("allow_leakage"):
        grouped = "--allow-leakage was given: images or patients may stand in several sets"
    size = f" The training set was cut to {settings['train_size']} images." if settings.get("train_size") else ""
    return f"Fold {facts.fold}; finished folds: {', '.join(map(str, facts.folds))}; {grouped}.{size}"


def _results(facts: RunFacts) -> list[str]:
    metrics, summary, overall = facts.metrics, facts.summary, facts.overall.get("auc") or {}
    unit = "images" if metrics.get("n_patients") is None else "patients"
    ends = _between(summary["auc"]["ci95"] if summary else None)
    per_class = metrics.get("per_class") or {}
    of = f" ({facts.scoring.subject})" if facts.scoring.subject else ""
    rows = [
        ("AUC", number(metrics.get("auc")), ends),
        *((f"AUC, {name}", number(per_class[name]), "–") for name in facts.scoring.in_order if name in per_class),
        *(
            (item.label + (of if item.names_subject else ""), number(metrics.get(item.name)), "–")
            for item in shown_metrics(metrics)
        ),
    ]
    grade, positive = facts.scoring.positive_from, facts.scoring.positive_class
    lines = [
        f"{metrics['n_images']:,} test images, "
        + (f"{metrics['n_patients']:,} patients" if metrics.get("n_patients") is not None else "patients not known")
        + (f"; the AUC is that of grade {grade} or worse" if grade is not None else "")
        + (f"; positive class {_text(positive)}: sensitivity and Brier score are of it" if positive is not None else "")
        + f". The interval is over {unit} of the test set; it does not cover another training.",
        _table(("figure", "this fold", "95 % interval"), rows, figures=2),
    ]
    if len(overall.get("per_fold") or ()) > 1:
        lines.append(
            f"All {len(overall['per_fold'])} folds of the run, each a model of its own: AUC "
            f"{mean_sd(overall['mean'], overall['sd'])} (mean ± standard deviation over folds), pooled "
            f"{number(overall['pooled'])}, 95 % interval {_between(overall['ci95'])}."
        )
    return lines


def _use(facts: RunFacts, values: Mapping[str, Any]) -> list[str]:
    temperature, point = values.get("temperature"), values.get("operating_point")
    validation = facts.splits["val"].images
    lines = ["The model gives its probabilities as they are; the metadata of the export says what to do with them."]
    if temperature:
        lines.append(
            f"Temperature, fitted on {validation:,} validation images: divide the logits by {temperature:.4g}. Fitted "
            "on few images it may make the probabilities worse; `radtransfer evaluate` tells both errors."
        )
        note = edge_note([temperature])
        lines += [f"{note[0].upper()}{note[1:]}."] if note else []
    if point:
        rows = [
            (name, f"{threshold:.4g}", number(point["sensitivity"].get(name)), number(point["specificity"].get(name)))
            for name, threshold in point["thresholds"].items()
        ]
        header = ("positive from", "threshold", "sensitivity", "specificity")
        of = "" if facts.scoring.positive_class is None else f"; {_text(facts.scoring.subject)}"
        lines.append(f"Operating point {_text(point['rule'])}, chosen on {point['n_images']:,} validation images{of}:")
        lines.append(_table(header, rows, figures=3))
    return lines if len(lines) > 1 else ["No threshold was chosen and no temperature fitted: that is left to the user."]


def _training(facts: RunFacts) -> list[str]:
    record, training = facts.record, facts.settings.get("training") or {}
    plan = record.get("plan") or {}
    stages = [
        (part["stage"], part["starts_from"], "yes" if part["trains"] else "no", f"{part['width']:g}")
        for part in plan.get("stages", ())
    ]
    named = {"optimizer": "", "learning_rate": "learning rate ", "schedule": "", "batch_size": "batch "}
    steps = ", ".join(f"{word}{training[name]}" for name, word in named.items() if name in training)
    others = {name: training.get(name) for name in ("augmentation", "loss", "ema_momentum")}
    more = "".join(f", {name} {value}" for name, value in others.items() if value is not None)
    through = f" through {plan['through']}" if plan.get("through") else ""
    return [
        _text(
            f"Scheme {plan.get('scheme', 'not recorded')}{through}; recipe {facts.settings.get('recipe', 'default')}: "
            f"{steps}{more}; {facts.metrics.get('epochs')} epochs, the weights are those of epoch "
            f"{facts.metrics.get('best_epoch')}, chosen on the validation images."
        ),
        _table(("stage", "starts from", "trains", "width"), stages),
    ]


def _weights(facts: RunFacts) -> list[str]:
    found = weight_terms(facts.record)
    hashed = f" sha256 {markdown_code(found.sha256)}." if found.sha256 else ""
    random = (facts.record.get("weights") or {}).get("source") == "random"
    terms = "terms of the images" if random else "terms of these weights, and of the images,"
    return [
        f"{_text(found.source)}.{hashed} {_text(found.terms)}",
        f"The {terms} that it was trained on go with the model; the licence of radtransfer does not cover them.",
    ]


def _input(facts: RunFacts, size: int) -> list[str]:
    doubt = ", assumed from the network: the weights file does not say" if facts.scale_assumed else ""
    return [
        f"Inside the model: {_text(inside_text(facts.record['preprocessing']))}{doubt}.",
        f"Left to the caller: {_text(caller_text(size, facts.reading))}. Values of more than 8 bits: "
        f"{_text(depth_text(facts.reading))}.",
    ]


def _check(check: ExportCheck) -> list[str]:
    images = f"{check.images} of the run's images" if check.images else "drawn images (the run's are not there)"
    files = "" if check.bytes_difference is None else f"; decoding the files itself, by {check.bytes_difference:.2g}"
    return [
        f"Reloaded in a fresh process, its probabilities on {images} differ from the run's model by "
        f"{check.difference:.2g} at most{files}; more than {check.allowed:g} is refused. {check.size / 1e6:.1f} MB.",
        f"Use: {markdown_code(check.usage)}",
    ]


def _between(ends: Sequence[float] | None) -> str:
    return "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, figures: int = 0) -> str:
    """GitHub's Markdown; the last `figures` columns are numbers."""
    rule = ["---"] * (len(header) - figures) + ["---:"] * figures
    lines = [map(_text, header), rule, *(map(_text, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
