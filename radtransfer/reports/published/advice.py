"""What the published results say, in sentences: each from a rule, each with its interval.

A rule is a function of the rows of `published_tables`. It claims a difference only where the 95 % interval leaves out
zero, and says "undecided" otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from radtransfer.reports.numbers import interval, listed, signed
from radtransfer.reports.page import Point
from radtransfer.reports.published.tables import FROZEN, RANDOM, UNFROZEN
from radtransfer.reports.verdicts import SAME, verdict

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
