"""A run on a machine that does not see the study's store: fetched, computed in a copy of the store, sent back.

The records of a run hold full paths. They are rewritten on the way, so that a run that was sent back is the one that
would have been computed in the store.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from radtransfer.config import changed_config
from radtransfer.errors import RunInUseError
from radtransfer.runs import write_json, write_text
from radtransfer.settings import Config
from radtransfer.studies.engines.engine import Relay
from radtransfer.studies.engines.mailbox import PIECE, files_below
from radtransfer.studies.run_cell import Outcome, run_cell
from radtransfer.yaml_text import read_yaml, write_yaml

SECONDS = 300.0
"""After which a run is sent back at the end of an epoch; at the end of a fold it always is."""

Call = Callable[..., Any]
"""Calls a method of the mailbox by name, with its arguments, and waits for what it gives."""


def compute_elsewhere(
    call: Call, key: str, attempt: int, config: Config, path: Path, tell: Callable[[str, tuple], None]
) -> Outcome:
    """Compute the run `path`, which this machine does not see; however it ends, what there is of it is sent back.

    Args:
        call: To the mailbox of the study.
        key: Of the run.
        attempt: At it.
        config: Its settings.
        path: Its folder, on the machine of the study.
        tell: Hears what it does, by method of `Progress`.
    """
    try:
        call("open", key, attempt)
    except RunInUseError as error:
        return Outcome("busy", str(error), error.exit_code)
    with _scratch() as place:
        copy = StoreCopy(call, path.parent, place)
        sent = time.monotonic()

        def hear(name: str, arguments: tuple) -> None:
            nonlocal sent
            if name == "fold" or (name == "epoch" and time.monotonic() - sent > SECONDS):
                copy.send(key, attempt)
                sent = time.monotonic()
            tell(name, arguments)

        try:
            config = changed_config(config, {"model.weights": copy.source(config.model.weights)})
            outcome = run_cell(config, copy.fetch(key), progress=Relay(hear, seconds=1.0))
            return replace(outcome, error=outcome.error and copy.there(outcome.error))
        finally:
            copy.send(key, attempt)
            call("close", key, attempt)


class StoreCopy:
    """Some runs of a store in a folder of this machine.

    Args:
        call: To the mailbox of the study.
        store: The store, on the machine of the study.
        place: The folder.
    """

    def __init__(self, call: Call, store: Path, place: Path) -> None:
        self._call, self._store, self._place = call, store, place
        self._known: dict[str, dict[str, tuple[int, int]]] = {}

    def source(self, weights: str) -> str:
        """Where the weights are that a run starts from, fetched if they are a run of the store."""
        if Path(weights).parent != self._store:
            return weights
        return str(self.fetch(Path(weights).name))

    def fetch(self, key: str) -> Path:
        """The folder of a run, with what the store holds of it."""
        folder = self._place / key
        folder.mkdir()
        for name, size in self._call("files", key).items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as handle:
                while handle.tell() < size and (piece := self._call("read", key, name, handle.tell())):
                    handle.write(piece)
        for file in files_below(folder).values():
            if file.suffix in _RECORDS:
                _rewrite_record(file, self._here)
        self._known[key] = _states(folder)
        return folder

    def send(self, key: str, attempt: int) -> None:
        """What of a run has changed since it was fetched, or sent the last time."""
        folder = self._place / key
        states, before = _states(folder), self._known.get(key, {})
        changed = [name for name, state in states.items() if before.get(name) != state]
        with _scratch() as letters:
            for name in changed:
                self._write(key, attempt, name, _letter(folder / name, letters, self.there))
        self._call("keep", key, attempt, changed, [name for name in before if name not in states])
        self._known[key] = states

    def there(self, text: str) -> str:
        """A text with the paths as they are on the machine of the study."""
        return text.replace(str(self._place), str(self._store))

    def _here(self, text: str) -> str:
        for run in self._place.iterdir():
            text = text.replace(str(self._store / run.name), str(run))
        return text

    def _write(self, key: str, attempt: int, name: str, file: Path) -> None:
        with file.open("rb") as handle:
            start = 0
            while (piece := handle.read(PIECE)) or start == 0:
                self._call("write", key, attempt, name, start, piece)
                start += len(piece)
                if not piece:
                    return


def _letter(file: Path, folder: Path, rewrite: Callable[[str], str]) -> Path:
    """The file as it is sent: a record with its paths rewritten, anything else as it is."""
    if file.suffix not in _RECORDS:
        return file
    letter = folder / f"record{file.suffix}"
    shutil.copyfile(file, letter)
    _rewrite_record(letter, rewrite)
    return letter


def _rewrite_record(file: Path, rewrite: Callable[[str], str]) -> None:
    read, write = _RECORDS[file.suffix]
    value = read(file)
    changed = _rewritten(value, rewrite)
    if changed != value:
        write(file, changed)


def _rewritten(value: Any, rewrite: Callable[[str], str]) -> Any:
    """`value` with every text in it rewritten."""
    if isinstance(value, Mapping):
        return {name: _rewritten(item, rewrite) for name, item in value.items()}
    if isinstance(value, list):
        return [_rewritten(item, rewrite) for item in value]
    return rewrite(value) if isinstance(value, str) else value


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    states = {name: file.stat() for name, file in files_below(folder).items()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="radtransfer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


_RECORDS = {
    ".json": (lambda file: json.loads(file.read_text(encoding="utf-8")), write_json),
    ".yaml": (lambda file: read_yaml(file)[0], lambda file, value: write_text(file, write_yaml(value))),
}
