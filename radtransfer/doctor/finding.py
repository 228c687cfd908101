"""One thing that was looked at."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found of one subject.

    Attributes:
        subject: Its name, one or two words.
        status: "ok"; "note" if something is missing that not everybody needs; "problem" if nothing works with it.
        text: What was found, a line or several.
        advice: What to do about it; empty if nothing.
        facts: The same for programs.
    """

    subject: str
    status: Status
    text: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
