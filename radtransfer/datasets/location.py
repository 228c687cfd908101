"""Locations with options: `FOLDER,name=value,…`."""

import re
from pathlib import Path

_OPTIONS = re.compile(r"(?P<folder>.*?)(?P<options>(?:,\s*\w+=[^,/\\]*)*)", re.DOTALL)


def split_location(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The folder, and the (name, value) pairs after it; a folder that is there is never cut."""
    if Path(text).expanduser().exists():
        return text, ()
    match = _OPTIONS.fullmatch(text)
    pairs = (part.partition("=") for part in match["options"].split(",") if part)
    return match["folder"], tuple((name.strip(), value.strip()) for name, _, value in pairs)


def absolute_location(text: str) -> str:
    """`text` with the full path of the folder that is there; where none is, `text` as it stands."""
    folder, options = split_location(text)
    path = Path(folder).expanduser()
    if not folder or not path.exists():
        return text
    return ",".join([str(path.absolute()), *(f"{name}={value}" for name, value in options)])
