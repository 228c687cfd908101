"""Sees that the runs of a report answer one question: AUCs of different classes are not to be ranked."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from radtransfer.errors import RunError
from radtransfer.metrics.scoring import Scoring
from radtransfer.reports.arms.run_arms import ArmRun
from radtransfer.reports.numbers import listed

MOST_CLASSES = 12
"""Classes that a question names; of more, the first."""


def check_one_question(runs: Iterable[ArmRun], out: Path, options: Sequence[str] = ()) -> None:
    """See that all runs have the same classes, kind of labels, and positive grades or class.

    Args:
        runs: All of a report.
        out: Its folder, after which those of the commands in the message are called.
        options: Of the command, for the same.

    Raises:
        RunError: They have not; the message names the runs of each question and a command for each.
    """
    asked: dict[Scoring, list[ArmRun]] = {}
    for run in runs:
        asked.setdefault(run.scoring, []).append(run)
    if len(asked) < 2:
        return
    lines = [
        f"Expected runs that answer one question: AUCs of different questions cannot be compared. "
        f"Received {len(asked)} questions:"
    ]
    words = [question(scoring) for scoring in asked]
    for text, (scoring, its) in zip(words, asked.items(), strict=True):
        # Of two runs that tell the same classes apart, the positive class is what differs.
        text = f"{text} {scoring.subject}" if words.count(text) > 1 else text
        lines.append(f"  {text}  {listed([str(run.path) for run in its])}")
    lines.append("Make a report of each:")
    for number, its in enumerate(asked.values(), start=1):
        words = ["radtransfer", "report", *(str(run.path) for run in its), *options, "--out", f"{out}-{number}"]
        lines.append(f"  {shlex.join(words)}")
    raise RunError("\n".join(lines))


def question(scoring: Scoring) -> str:
    """What the main AUC is of, such as "benign or malignant?" or "2 or worse, of 0, 1 and 2?"."""
    if scoring.positive_from is not None:
        return f"{scoring.positive_from} or worse, of {_named(scoring.classes, 'and')}?"
    if scoring.task == "multilabel":
        return f"{_named(scoring.classes, 'and')}: {'each ' if len(scoring.classes) > 1 else ''}present or not?"
    return f"{_named(scoring.classes, 'or')}?"


def _named(classes: Sequence[str], word: str) -> str:
    if len(classes) <= MOST_CLASSES:
        return listed(classes, word)
    return f"{', '.join(classes[:MOST_CLASSES])}, … ({len(classes):,} classes)"
