"""A study's folder as a report reads it: its words, its runs, and what it asks to be compared.

The file is `table.json`, as `radtransfer.studies.tables` writes it. What has been computed since is seen in the runs'
folders.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radtransfer.errors import RunError
from radtransfer.runs import finished_folds, read_run

CHANCE = ("seed", "splits.fold")
"""Settings whose values are repeats of one arm, not other arms."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class StudyRecord:
    """What `table.json` holds.

    Attributes:
        path: The study's folder.
        about: Its words: name, title, follows, needs, published, reference, threshold, axes.
        rows: Of its runs, arms and sources.
        compare: "cca" and "predictions", each a list of {a, b, runs}.
    """

    path: Path
    about: Mapping[str, Any]
    rows: Sequence[Row]
    compare: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def arms(self) -> list[Row]:
        """The rows that are no sources."""
        return [row for row in self.rows if row["kind"] != "source"]

    @property
    def sources(self) -> list[Row]:
        """The rows of runs that others start from."""
        return [row for row in self.rows if row["kind"] == "source"]

    def folder(self, row: Row) -> Path:
        """Where a run is: as the table says, from here or from the study's folder or one above it."""
        place = Path(row["path"])
        tries = [place, *(parent / place for parent in (self.path, *self.path.resolve().parents))]
        return next((path for path in tries if (path / "run.json").is_file()), place)

    def state(self, row: Row) -> dict[str, Any]:
        """Its `run`, `arm`, `labels`, `status`, `error` and how many `folds` it has, by its folder as it is now."""
        folder, status, folds = self.folder(row), row["status"], 0
        if (folder / "run.json").is_file():
            folds = len(finished_folds(folder))
            finished = read_run(folder).get("status") == "finished"
            status = "finished" if finished else "partly" if folds else status
        elif row["status"] == "finished":
            status = "gone"
        return {key: row[key] for key in ("run", "arm", "labels", "error")} | {"status": status, "folds": folds}

    def arm_name(self, row: Row) -> str:
        """The arm, and in brackets its values of the settings that it is run with several values of."""
        axes = [name for name in self.about.get("axes", ()) if name not in CHANCE]
        mine = [other["labels"] for other in self.arms if other["arm"] == row["arm"]]
        varied = [name for name in axes if len({_text(labels.get(name)) for labels in mine}) > 1]
        values = ", ".join(_label(name, row["labels"].get(name)) for name in varied)
        return f"{row['arm']} ({values})" if values else row["arm"]

    def by_name(self) -> dict[str, list[Row]]:
        """The rows of each arm, repeats together, in the order of the table."""
        found: dict[str, list[Row]] = {}
        for row in self.arms:
            found.setdefault(self.arm_name(row), []).append(row)
        return found

    def pairs(self, kind: str) -> Iterator[tuple[str, str, str, str]]:
        """For each pair of runs to be compared: the arms' names, with @initial where asked, and the runs' keys."""
        for item in self.compare.get(kind, ()):
            for keys in item["runs"]:
                yield (*(self._side(side, key) for side, key in zip((item["a"], item["b"]), keys, strict=True)), *keys)

    def _side(self, side: str, key: str) -> str:
        arm, at, moment = side.partition("@")
        row = next(row for row in self.arms if row["run"] == key and row["arm"] == arm)
        return f"{self.arm_name(row)}{at}{moment}"


def read_study(path: Path) -> StudyRecord | None:
    """The study whose folder `path` is; None where it is none.

    Raises:
        RunError: It is a study that has no table yet, or one that cannot be read.
    """
    file = path / "table.json"
    if not file.is_file():
        if (path / "study.yaml").is_file():
            raise RunError(
                f"{path}: the study has no table.json yet, which is written when it ends or is stopped. Go on with it "
                f"(radtransfer study {path / 'study.yaml'}), or report on its runs."
            )
        return None
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        record = StudyRecord(path, table.get("study", {}), table["runs"], table.get("compare", {}))
        record.by_name()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{file} is no table of a study ({error!r}). Run the study again; its runs are kept.") from None
    return record


def _label(name: str, value: Any) -> str:
    """A value by itself where it is a word, such as a backbone; a number with what it is of."""
    text = _text(value)
    return text if isinstance(value, str) else f"{name.rpartition('.')[2].replace('_', ' ')} {text}"


def _text(value: Any) -> str:
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
