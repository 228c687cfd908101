"""What every tracker does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it starts.

    Attributes:
        name: What it is called.
        folder: Where the tracker may write; inside the run folder, and there already.
        settings: Dotted names and values: numbers, booleans, None and text.
        plan: Title and text of each aspect, as the terminal shows it before the first step.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    plan: Mapping[str, str]


class Tracker:
    """Shows one run in one program. Any method may raise: the tracker is then left out, and the training goes on.

    To write your own, override the four methods; `start` sets `where`.

    Attributes:
        package: The module that must be installed.
        where: How the user looks at it, once it has started.
    """

    package: ClassVar[str]
    where: str = ""

    def start(self, run: TrackedRun, kept: Mapping[str, str]) -> dict[str, str]:
        """Begin, or go on.

        Args:
            run: What is tracked.
            kept: What this method gave when the run was started first; empty then. The settings and the plan are
                those of that first start and are shown already.

        Returns:
            What the next start needs to go on in the same place; at least one entry.
        """
        raise NotImplementedError

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Show these figures at `step`, the number of training steps; a point may come twice, with equal values."""
        raise NotImplementedError

    def conclude(self, metrics: Mapping[str, float]) -> None:
        """Show the figures of the whole run."""
        raise NotImplementedError

    def end(self, status: str) -> None:
        """Close; `status` is "finished", "failed" or "interrupted", and the run may go on later after the last two."""
        raise NotImplementedError


def plan_markdown(plan: Mapping[str, str]) -> str:
    """The plan block as Markdown that keeps its columns."""
    indented = (f"{title:<10}" + text.replace("\n", "\n" + " " * 10) for title, text in plan.items())
    return "\n".join(f"    {line}" for line in "\n".join(indented).split("\n"))
