"""The folder of a prepared data set while it is written: whose it is, and what of it is there.

`prepare.json` holds the settings, a digest of what was read, and the images that could not be read; a job that finds
other ones there stops. `provenance.json` is written last.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.datasets.tfds.prepared_table import PROVENANCE, STATE, TABLE
from radtransfer.errors import RunError
from radtransfer.locking import LOCK, locked, made_folder
from radtransfer.parts import PART
from radtransfer.prepared.shards import NAME
from radtransfer.runs import differences, remove_parts, write_json

BAD_IMAGES = "bad_images.txt"

_SHARDS = f"{NAME}-*.tfrecord-*"

# In the order in which they are deleted: while prepare.json stands, the folder is known and can be replaced again.
_WRITTEN = (PROVENANCE, TABLE, "dataset_info.json", "features.json", "*.labels.txt", _SHARDS, STATE)


@dataclass
class PreparedFolder:
    """A folder in use by this process.

    Attributes:
        path: The folder.
        state: What stands in `prepare.json`.
        replaces: Whether an older set stands in the folder until the images of this one are checked.
    """

    path: Path
    state: dict[str, Any]
    replaces: bool = False

    @property
    def skipped(self) -> list[list[str]] | None:
        """Path and reason of the images that could not be read; None where they were not checked yet."""
        return self.state.get("skipped")

    def set_skipped(self, skipped: Sequence[Sequence[str]]) -> None:
        """Keep the images that could not be read: from now on it is known which image is in which shard."""
        if self.replaces:
            _delete(self.path)
            self.replaces = False
        self.state["skipped"] = list(map(list, skipped))
        write_json(self.path / STATE, self.state)

    def bytes_replaced(self) -> int:
        """What the shards of an older set take that this one replaces."""
        return sum(file.stat().st_size for file in self.path.glob(_SHARDS)) if self.replaces else 0

    def finished(self) -> bool:
        """Whether everything is written and still there."""
        if self.replaces:
            return False
        try:
            provenance = json.loads((self.path / PROVENANCE).read_text(encoding="utf-8"))
            shards = [((self.path / shard["name"]).stat().st_size, shard["bytes"]) for shard in provenance["shards"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return all(size == expected for size, expected in shards) and (self.path / TABLE).is_file()


@contextlib.contextmanager
def open_folder(path: Path, settings: dict[str, Any], sources: str, *, overwrite: bool) -> Iterator[PreparedFolder]:
    """Hold the lock of the folder `path`, made if needed; go on with what stands there if it is of the same kind.

    Args:
        path: The folder.
        settings: What decides the images; compared with those that stand there.
        sources: Digest of labels and image files; compared likewise.
        overwrite: Replace what was prepared there before, once the images are checked.

    Raises:
        RunError: It holds something else or a set of other settings or sources, is in use, or cannot be written.
    """
    with made_folder(path), locked(path):
        before, state = _read_state(path), {"settings": settings, "sources": sources}
        replaces = overwrite and before is not None
        if before is None:
            _check_free(path)
        elif not replaces:
            _check_same(path, before, settings, sources)
            state = before
        remove_parts(path)
        yield PreparedFolder(path, state, replaces)


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        return {"settings": state["settings"], "sources": state["sources"], **state}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / STATE} cannot be read ({error}). Delete {path}, or choose another --out.") from None


def _check_free(path: Path) -> None:
    others = sorted(item.name for item in path.iterdir() if item.name != BAD_IMAGES)
    if others := [name for name in others if not name.startswith((LOCK, PART))]:
        raise RunError(
            f"{path} holds other files ({', '.join(others[:3])}) and no prepared data set; nothing was written. "
            "Choose another --out."
        )


def _check_same(path: Path, state: dict[str, Any], settings: dict[str, Any], sources: str) -> None:
    changed = [f"{name} {old} → {new}" for name, old, new in differences(state["settings"], settings)]
    if not changed and state["sources"] != sources:
        changed = ["the images, labels, patients or splits have changed since"]
    if changed:
        raise RunError(
            f"{path} was prepared with other settings: {'; '.join(changed)}. "
            "Use the same ones, another --out, or --overwrite to replace it."
        )


def _delete(path: Path) -> None:
    """Delete what a job like this writes, and nothing else."""
    for pattern in _WRITTEN:
        for item in path.glob(pattern):
            item.unlink()
