"""Locations with options: `FOLDER,name=value,…`, or `FOLDER?…` as TFDS writes them."""

import re
from pathlib import Path

_OPTION = re.compile(r"\s*(\w+)\s*=([^,/\\]*)")


def split_location(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The folder, and the (name, value) pairs after it; a folder that is there is never cut."""
    folder, options = text, []
    while not (folder and Path(folder).expanduser().exists()):
        start, comma, end = folder.rpartition(",")
        option = _OPTION.fullmatch(end)
        if not comma or option is None:
            break
        folder, options = start, [(option[1], option[2].strip()), *options]
    return folder, tuple(options)


def absolute_location(text: str) -> str:
    """`text` with the full path of the folder that is there; where none is, `text` as it stands."""
    folder, options = split_location(text)
    path = Path(folder).expanduser()
    if folder and path.exists():
        return ",".join([str(path.absolute()), *(f"{name}={value}" for name, value in options)])
    before, mark, after = text.partition("?")
    return f"{absolute_location(before)}?{after}" if mark else text
