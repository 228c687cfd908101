"""One process at a time in a run folder; the lock dies with the process that holds it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from radtransfer.errors import RunError, RunInUseError
from radtransfer.interruption import before_hard_end

LOCK = ".lock"


@contextlib.contextmanager
def made_folder(out: Path) -> Iterator[None]:
    """Make the folder; one that is new is taken away again if nothing but the lock was written into it.

    Raises:
        RunError: It cannot be made.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the run folder {out}: {error.strerror}. Choose another --out.") from None

    def take_away() -> None:
        with contextlib.suppress(OSError):
            if new and [item.name for item in out.iterdir()] == [LOCK]:
                (out / LOCK).unlink()
                out.rmdir()

    try:
        with before_hard_end(take_away):
            yield
    finally:
        take_away()


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold `out/.lock`; the system frees it when the process ends, however it ends.

    Raises:
        RunInUseError: Another process holds it.
        RunError: The folder cannot be written.
    """
    try:
        handle = (out / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise RunError(f"Cannot write to {out}: {error.strerror}. Choose another --out.") from None
    with handle:
        if not _try_lock(handle):
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise RunInUseError(
                f"Run folder {out} is in use by another process ({holder}). Wait for it, or choose another --out."
            )
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        yield


def _try_lock(handle: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            # Far behind the text, so that another process can still read who holds it.
            handle.seek(1 << 20)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
