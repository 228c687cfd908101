"""The folder of a study: what was asked, how far it is, and what was found.

study.yaml   progress.json   table.csv   table.json
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from radtransfer.data.readers import absolute_source
from radtransfer.errors import RunError
from radtransfer.files import PART, delete_part
from radtransfer.pretrained.source import absolute_weights
from radtransfer.runs.folder import write_json, write_text
from radtransfer.runs.lock import LOCK, locked, made_folder
from radtransfer.studies.file import study_text
from radtransfer.studies.grid import StudyPlan, changed_data
from radtransfer.studies.runs import StudyState
from radtransfer.studies.study import Study, StudyArm
from radtransfer.studies.tables import write_study_table

_SECONDS = 1.0
"""Between two writings of `progress.json`, at least."""


class StudyFolder:
    """A study's folder in use by this process.

    Args:
        path: The folder; `open_study_folder` makes and locks it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = 0.0

    def begin(self, plan: StudyPlan) -> list[str]:
        """Write `study.yaml`; gives what the user should know, of data that have changed above all."""
        notes = [*plan.notes, *changed_data(plan, self._before())]
        write_text(self.path / "study.yaml", study_text(with_full_paths(plan.study)))
        return notes

    def write_progress(self, state: StudyState, *, now: bool = False) -> None:
        """`progress.json`, not more often than once a second unless `now`."""
        if now or time.monotonic() - self._written > _SECONDS:
            self._written = time.monotonic()
            write_json(self.path / "progress.json", state.record())

    def write_table(self, plan: StudyPlan) -> dict[str, Any]:
        """`table.csv` and `table.json`; gives what the latter holds."""
        return write_study_table(plan, self.path)

    def _before(self) -> dict[str, Any]:
        """The data of `table.json`; none, where it was cut: it is written anew."""
        found = None
        with contextlib.suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            found = json.loads((self.path / "table.json").read_text(encoding="utf-8"))["data"]
        return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def open_study_folder(path: Path) -> Iterator[StudyFolder]:
    """Hold the lock of a study's folder, made if needed.

    Raises:
        RunError: It holds something else, is in use, or cannot be written.
    """
    with made_folder(path):
        names = {item.name for item in path.iterdir() if not item.name.startswith((LOCK, PART))}
        if names and "study.yaml" not in names:
            raise RunError(
                f"{path} holds other files ({', '.join(sorted(names)[:3])}) and is no study. Choose another --out."
            )
        with locked(path):
            for part in path.glob(f"{PART}*"):
                delete_part(part)
            yield StudyFolder(path)


def with_full_paths(study: Study) -> Study:
    """The study with full paths of its data and weights, so that it runs from every folder."""
    arms = {name: StudyArm(_full(arm.settings), _all_full(arm.grid)) for name, arm in study.arms.items()}
    sources = {name: replace(source, settings=_full(source.settings)) for name, source in study.sources.items()}
    return replace(study, base=_full(study.base), arms=arms, sources=sources, grid=_all_full(study.grid))


def _full(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _FULL[name](value) if name in _FULL and value else value for name, value in values.items()}


def _all_full(grid: Mapping[str, tuple]) -> dict[str, tuple]:
    return {name: tuple(_full({name: value})[name] for value in values) for name, values in grid.items()}


_FULL = {
    "data.source": absolute_source,
    "data.image_root": lambda path: str(Path(path).expanduser().absolute()),
    # Of any network: only whether it is a name matters.
    "model.weights": lambda weights: absolute_weights(weights, backbone="resnet50"),
}
