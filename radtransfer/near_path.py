"""What may be meant by a path that is not there."""

import difflib
import itertools
from collections.abc import Callable
from pathlib import Path

from radtransfer.errors import WeightsNotFoundError

_CLOSE = 0.7
_ENTRIES = 10_000


def near_path(path: Path | str) -> str:
    """A sentence, with a space before it, for the end of a message that `path` is not there.

    It names the path that differs from it by a slip of the finger, else the first folder of it that is missing;
    it is empty where neither says anything new.
    """
    path = Path(path).expanduser()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    if not missing:
        return ""
    first = missing[-1]
    if name := near_name(first):
        meant = first.with_name(name) / path.relative_to(first)
        if meant.exists():
            return f" Did you mean {str(meant)!r}?"
        return f" There is no {str(first)!r}, but a {str(first.with_name(name))!r}."
    return "" if first == path else f" There is no folder {first}."


def near_name(path: Path, wanted: Callable[[Path], bool] = lambda _: True) -> str | None:
    """The name in the folder of `path` that is closest to its own, case and - or _ apart, if one is close."""
    try:
        beside = {
            _plain(item.name): item.name
            for item in itertools.islice(path.parent.iterdir(), _ENTRIES)
            if not item.name.startswith(".") and wanted(item)
        }
    except OSError:
        return None
    close = difflib.get_close_matches(_plain(path.name), beside, n=1, cutoff=_CLOSE)
    return beside[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def no_model(given: str) -> WeightsNotFoundError:
    """The error that no trained model lies at `given`."""
    return WeightsNotFoundError(
        f"No model at {given}. Expected a run (RUN or RUN/fold_K), an exported .keras file or a SavedModel folder."
        f"{near_path(Path(given).expanduser())}"
    )
