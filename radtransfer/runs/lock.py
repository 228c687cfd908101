"""Locks a run folder for one process; the lock is released when the process ends."""

import contextlib
import datetime
import errno
import json
import os
import secrets
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from radtransfer.errors import RunInUseError
from radtransfer.files import atomic_write, is_running, start_time, this_machine, writing
from radtransfer.process import on_forced_exit

LOCK = ".lock"
"""Prefix of the lock files."""

HOLDER = f"{LOCK}-holder"

_BUSY = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
"""Errors of a lock that another process holds; other errors mean that the file system has no locks."""

_BREAK = "RADTRANSFER_BREAK_LOCK"
"""An environment variable, so that worker processes inherit it."""


@contextlib.contextmanager
def made_folder(out: Path) -> Iterator[None]:
    """Make the folder; a new one that contains only the lock is removed again."""
    new = not out.exists()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)

    def remove() -> None:
        with contextlib.suppress(OSError):
            if new and [item.name for item in out.iterdir()] == [LOCK]:
                (out / LOCK).unlink()
                out.rmdir()

    try:
        with on_forced_exit(remove):
            yield
    finally:
        remove()


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold `out/.lock`, which the operating system releases when the process ends.

    On a file system without locks, a file `.lock-holder` names the process that holds the folder. It is taken over if
    that process ran on this machine and has ended, or, with `breaking_locks`, ran on another machine. Raises
    RunInUseError if another process holds it.
    """
    with writing(out):
        handle = (out / LOCK).open("a+", encoding="utf-8")
    with handle, contextlib.ExitStack() as stack:
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in _BUSY:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                raise RunInUseError(
                    f"Run folder {out} is in use by another process ({holder}). Wait for it, or choose another --out."
                ) from None
            stack.enter_context(_held(out))
        else:
            if (out / HOLDER).exists():  # from a machine on which this file system has no locks
                stack.enter_context(_held(out))
        with writing(out / LOCK):
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


@contextlib.contextmanager
def breaking_locks() -> Iterator[None]:
    """Let this process and its children take over folders that a process on another machine holds."""
    os.environ[_BREAK] = "1"
    try:
        yield
    finally:
        os.environ.pop(_BREAK, None)


def _lock(handle: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        # Far after the text, which other processes must be able to read.
        handle.seek(1 << 20)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the folder by a file, on a file system without locks."""
    process, since = os.getpid(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    me = {"process": process, "host": socket.gethostname(), "machine": this_machine(), "started": start_time(process)}
    file, text = out / HOLDER, json.dumps(me | {"since": since, "id": secrets.token_hex(8)})
    _take(out, file, text)

    def release() -> None:
        if _text(file) == text:  # not taken over
            file.unlink(missing_ok=True)

    try:
        with on_forced_exit(release):
            yield
    finally:
        release()


def _take(out: Path, file: Path, text: str) -> None:
    """Make `file`, or take it over from a holder that has ended.

    Every holder writes a different text, and a process must hold a file named after that text to take it over. So only
    one of several processes that read the same text replaces it, and none replaces a later holder.
    """
    if _make(file, text):
        return
    found = _text(file)
    if not found and not file.exists():  # released just now
        _take(out, file, text)
        return
    _check_gone(out, file, found)
    claim = file.with_name(f"{HOLDER}-{zlib.crc32(found.encode()):08x}")
    _take(out, claim, text)
    try:
        if _text(file) != found:
            raise RunInUseError(f"{out} was just taken over by another process. Wait for it, or choose another --out.")
        with atomic_write(file) as part:
            part.write_text(text, encoding="utf-8")
    finally:
        claim.unlink(missing_ok=True)


def _make(file: Path, text: str) -> bool:
    """Make the file; False if it exists."""
    with writing(file):
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, text.encode())
        except OSError:
            file.unlink()
            raise
        finally:
            os.close(handle)
    return True


def _check_gone(out: Path, file: Path, text: str) -> None:
    """Raise RunInUseError unless the holder has ended, or is on another machine and its lock may be broken."""
    try:
        holder = json.loads(text)
        process, who = int(holder["process"]), f"process {holder['process']} on {holder['host']}"
        here, since, begun = holder["machine"] == this_machine(), holder["since"], holder["started"]
    except (ValueError, KeyError, TypeError):
        who, here, since = "unknown which", False, "an unknown time"
    used = f"{out} is in use by another process ({who}, since {since}"
    if here:
        if is_running(process, begun):
            raise RunInUseError(f"{used}), which is still running. Wait for it, or choose another --out.")
    elif _BREAK not in os.environ:
        raise RunInUseError(
            f"{used}, according to {file}). The file system has no locks, and this machine cannot check whether that "
            "process is still running. If it has ended, use --break-lock; otherwise wait, or use another --out."
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
