"""The near end of runs computed elsewhere: what they tell, and the files of those that do not see the study's store."""

import contextlib
from pathlib import Path

from radtransfer.errors import RunInUseError
from radtransfer.locking import LOCK, locked
from radtransfer.parts import PART

PIECE = 16 << 20
"""Bytes of a file that travel at a time."""


class Mailbox:
    """Stands on the machine of the study, in a process of its own.

    Of a run only its latest attempt is served: an earlier one may go on for a while on a machine thought lost. Every
    call may come twice, and what is only remembered may be forgotten in between: the process can be ended and started
    again at any time, as when memory runs out.

    Args:
        store: The folder of the runs.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        self._heard: list[tuple[str, int, str, tuple]] = []
        self._latest: dict[str, int] = {}
        self._locks: dict[str, contextlib.ExitStack] = {}

    def tell(self, key: str, attempt: int, name: str, arguments: tuple) -> None:
        """Keep what a run tells until it is taken."""
        self._heard.append((key, attempt, name, arguments))

    def take(self) -> list[tuple[str, int, str, tuple]]:
        """What was told since the last time."""
        heard, self._heard = self._heard, []
        return heard

    def open(self, key: str, attempt: int) -> None:
        """Hold the lock of the folder of a run, made if needed, for this attempt or a later one.

        Raises:
            RunInUseError: Another process holds it, or there is a later attempt already.
        """
        if attempt < self._latest.get(key, 0):
            raise RunInUseError(f"Run {key} goes on elsewhere; this attempt was given up.")
        self._latest[key] = attempt
        if key not in self._locks:
            folder = self._store / key
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(folder))
                self._locks[key] = stack.pop_all()

    def close(self, key: str, attempt: int) -> None:
        """Free the lock again."""
        self.open(key, attempt)
        self._locks.pop(key).close()

    def files(self, key: str) -> dict[str, int]:
        """The files of a run by their path in its folder, with their sizes."""
        return {name: file.stat().st_size for name, file in files_below(self._store / key).items()}

    def read(self, key: str, name: str, start: int) -> bytes:
        """The next bytes of a file."""
        with (self._store / key / name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def write(self, key: str, attempt: int, name: str, start: int, piece: bytes) -> None:
        """The next bytes of a file that will be kept."""
        self.open(key, attempt)
        part = self._part(key, name)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(piece)

    def keep(self, key: str, attempt: int, written: list[str], gone: list[str]) -> None:
        """Let files that were written take their places, in this order, and delete others."""
        self.open(key, attempt)
        for name in written:
            with contextlib.suppress(FileNotFoundError):  # it took its place when this was called before
                self._part(key, name).replace(self._store / key / name)
        for name in gone:
            (self._store / key / name).unlink(missing_ok=True)

    def _part(self, key: str, name: str) -> Path:
        place = self._store / key / name
        return place.with_name(f"{PART}sent-{place.name}")


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a run by their path in its folder; those that say how far it is come last."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    files = [file for file in files if not file.name.startswith((LOCK, PART))]
    files.sort(key=lambda file: (file.name == "run.json", file.name == "metrics.json", file))
    return {file.relative_to(folder).as_posix(): file for file in files}
