"""What a model card has to warn of, by what the files of the run say."""

from collections.abc import Iterator

from radtransfer.exports.run_facts import RunFacts

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
