"""Names of what is being written: they tell which process writes it, so that what a killed one left can go."""

import contextlib
import os
import re
import shutil
import socket
import threading
import time
import zlib
from functools import cache
from pathlib import Path

PART = ".part-"
"""How the name of anything begins that is still being written; nobody reads it."""

_ABANDONED = 24 * 3600
"""Seconds after which another machine's is that of a process that was killed."""

_NAME = re.compile(rf"{re.escape(PART)}(\d+)(?:\.\d+)?@([0-9a-f]{{8}})-")


def new_part(path: Path, *, inside: bool = False) -> Path:
    """The temporary path of `path`, beside it or inside it; those that ended processes left of it are deleted."""
    folder, name = (path, "") if inside else (path.parent, path.name[-50:])
    for left in folder.glob(f"{PART}*@*"):
        if _NAME.sub("", left.name) == name and not is_written(left):
            delete_part(left)
    # Another thread writes the same file where the process is ended while the main thread writes it.
    thread = "" if threading.current_thread() is threading.main_thread() else f".{threading.get_native_id()}"
    return folder / f"{PART}{os.getpid()}{thread}@{this_machine()}-{name}"


def delete_part(part: Path) -> None:
    """Delete a file or folder, also when an interrupt comes just now."""
    try:
        _delete(part)
    except KeyboardInterrupt:
        _delete(part)
        raise


def part_size(part: Path) -> int:
    """Bytes that are written so far."""
    with contextlib.suppress(OSError):
        files = [part] if part.is_file() else [file for file in part.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)
    return 0


def is_written(part: Path) -> bool:
    """Whether another process is writing it at this moment, as far as this machine can tell."""
    found = _NAME.match(part.name)
    if found is not None and found[2] == this_machine():
        return int(found[1]) != os.getpid() and is_running(int(found[1]))
    with contextlib.suppress(OSError):
        return time.time() - part.stat().st_mtime < _ABANDONED
    return False


def true_path(path: Path) -> Path:
    """Where a file will stand that is written below a temporary path."""
    return Path(_NAME.sub("", str(path)))


@cache
def this_machine() -> str:
    """Eight digits for the host and the processes that this one sees: containers have numbers of their own."""
    with contextlib.suppress(OSError):
        return _digits(f"{socket.gethostname()} {Path('/proc/self/ns/pid').stat().st_ino}")
    return _digits(socket.gethostname())


def is_running(process: int, begun: str = "") -> bool:
    """Whether a process of this machine, which `started` then, has not ended; True where the system does not tell."""
    if os.name == "nt":  # os.kill would end it
        return True
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    now = started(process)
    return now is not None and (not begun or not now or begun == now)


def started(process: int) -> str | None:
    """When a process that is there started, in ticks of this machine; "" where nobody knows, None if it has ended."""
    try:
        facts = Path(f"/proc/{process}/stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return None if facts[0] in "ZX" else facts[19]


def _digits(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _delete(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
