"""What is written into an exported model about it: labels, input, and where it comes from.

Further parts may stand beside these; readers take what they know.
"""

from collections.abc import Mapping
from typing import Any

from radtransfer import __version__
from radtransfer.exports.input_rules import input_record
from radtransfer.exports.run_facts import RunFacts
from radtransfer.exports.weight_terms import weight_terms
from radtransfer.runs import now

FORMAT = 1
"""Raised when something that stands here changes its meaning."""

NOT_A_DEVICE = "Research software, not a medical device."


def export_metadata(facts: RunFacts, *, size: int) -> dict[str, Any]:
    """Plain values, for JSON; no folder of this machine stands in them.

    Args:
        facts: Of the fold.
        size: Side of the images that the model takes, pixels.
    """
    record = facts.record
    return {
        "format": FORMAT,
        "written_by": f"radtransfer {__version__}",
        "written": now(),
        "notice": NOT_A_DEVICE,
        "task": record["task"],
        "classes": list(facts.classes),
        "activation": record["head"],
        "positive_from": record.get("positive_from"),
        "positive_class": facts.scoring.positive_class,
        "input": input_record(record, facts.reading, size=size),
        "output": {
            "name": "probabilities",
            "shape": [None, len(facts.classes)],
            "meaning": "a probability for each class, in the order of classes",
        },
        "provenance": _provenance(facts),
    }


def _provenance(facts: RunFacts) -> dict[str, Any]:
    record, weights = facts.record, weight_terms(facts.record)
    return {
        "run": facts.name,
        "fold": facts.fold,
        "started": record.get("started"),
        "model_sha256": facts.model_sha256,
        "versions": record.get("versions"),
        "seed": record.get("seed"),
        "backbone": record["backbone"],
        "plan": _plan(record.get("plan") or {}),
        "weights": {"source": weights.source, "sha256": weights.sha256, "terms": weights.terms},
        "data": {
            "source": facts.source,
            "images": (record.get("data") or {}).get("images"),
            "table_sha256": record.get("table_sha256"),
        },
        "test": {name: facts.metrics.get(name) for name in ("auc", "accuracy", "n_images", "n_patients")},
    }


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    stages = [
        {name: part.get(name) for name in ("stage", "starts_from", "trains", "width")}
        for part in plan.get("stages", ())
    ]
    return {"scheme": plan.get("scheme"), "through": plan.get("through"), "stages": stages}
