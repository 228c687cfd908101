"""Atomic writes of files and folders, system errors in plain words, and text that is safe to show.

Unfinished files have a temporary name with the process that writes them, so that leftovers of killed processes can be
deleted. Names of files, classes, columns and runs may contain any character: outputs pass them through `printable`,
`json_text`, `html_text`, `markdown_text` or `spreadsheet_cell`.
"""

import contextlib
import ctypes
import errno
import html
import json
import os
import re
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from radtransfer.errors import DiskError, RadtransferError, RunError, TrainingError
from radtransfer.process import on_forced_exit

PART = ".part-"  # prefix of unfinished files

_NAME = re.compile(rf"{re.escape(PART)}(\d+)(?:\.\d+)?@([0-9a-f]{{8}})-")


def new_part(path: Path, *, inside: bool = False) -> Path:
    """A temporary path beside or inside `path`; leftovers of ended processes are deleted."""
    folder, name = (path, "") if inside else (path.parent, path.name[-50:])
    for left in folder.glob(f"{PART}*@*"):
        if _NAME.sub("", left.name) == name and not is_written(left):
            delete_part(left)
    # Another thread may write the same file when the process is forced to exit.
    thread = "" if threading.current_thread() is threading.main_thread() else f".{threading.get_native_id()}"
    return folder / f"{PART}{os.getpid()}{thread}@{this_machine()}-{name}"


def delete_part(part: Path) -> None:
    """Delete a file or folder, even if interrupted."""
    try:
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    except KeyboardInterrupt:
        delete_part(part)
        raise


def part_size(part: Path) -> int:
    """Bytes written so far."""
    with contextlib.suppress(OSError):
        files = [part] if part.is_file() else [file for file in part.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)
    return 0


def is_written(part: Path) -> bool:
    """Whether another process is writing it, as far as this machine can tell."""
    found = _NAME.match(part.name)
    if found is not None and found[2] == this_machine():
        return int(found[1]) != os.getpid() and is_running(int(found[1]))
    with contextlib.suppress(OSError):
        return time.time() - part.stat().st_mtime < 24 * 3600  # another machine may write for a day
    return False


@cache
def this_machine() -> str:
    """Eight digits for the host and process namespace (containers have their own)."""
    text = socket.gethostname()
    with contextlib.suppress(OSError):
        text = f"{text} {Path('/proc/self/ns/pid').stat().st_ino}"
    return f"{zlib.crc32(text.encode()):08x}"


def is_running(process: int, start: str = "") -> bool:
    """Whether a local process (with this `start_time`) is running; True if the system does not tell."""
    if os.name == "nt":  # os.kill would end it
        return True
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    now = start_time(process)
    return now is not None and (not start or not now or start == now)


def start_time(process: int) -> str | None:
    """Start time of a process in system ticks; "" if unknown, None if it has ended."""
    try:
        facts = Path(f"/proc/{process}/stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return None if facts[0] in "ZX" else facts[19]


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})  # the disk is full or fails


def write_error(path: Path, error: Exception, *, needed: int = 0, written: int = 0) -> RadtransferError | None:
    """The DiskError or RunError for `error`, raised while writing `path`; None if it is not a system error.

    HDF5 and TensorFlow have the system's error number or text only in their messages. `path` may be temporary;
    `needed` and `written` are bytes.
    """
    number = _number(error)
    if number is None:
        return None
    first = f"Cannot write {Path(_NAME.sub('', str(path)))}: {os.strerror(number)}"  # not the temporary path
    if number in _DISK:
        return DiskError(
            f"{first} ({_room(path, number, needed, written)}). Free some space; finished results are kept."
        )
    return RunError(f"{first}. Choose another folder with --out.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn system errors in a block that writes `path` into a DiskError or RunError."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) or error from error


def system_error(error: Exception) -> RadtransferError | None:
    """The error for an unexpected exception caused by the machine; None if it is a bug."""
    first = next(iter(str(error).splitlines()), "")
    number = _number(error)
    if number not in _DISK and (isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"):
        return TrainingError(
            f"Out of memory{f' ({first[:200]})' if first else ''}. Close other programs, or use a smaller --image-size "
            "or --batch-size, fewer --workers or --jobs."
        )
    if not isinstance(error, OSError):
        return DiskError(f"{first}. Free some space; finished results are kept.") if number in _DISK else None
    if number is None or (error.filename is None and number not in _DISK):
        return None
    if number not in _DISK:
        return RunError(f"Cannot read or write {error.filename}: {os.strerror(number)}.")
    room = "" if error.filename is None else f" ({_room(Path(error.filename), number)})"
    return DiskError(f"Cannot read or write {error.filename or 'the disk'}: {os.strerror(number)}{room}.")


def size_text(size: float) -> str:
    """Bytes in a suitable unit."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"


def _room(path: Path, number: int, needed: int = 0, written: int = 0) -> str:
    """Free and needed space, as far as known."""
    wanted = f"more than {size_text(written)} needed, " if written else ""
    wanted = f"{size_text(needed)} needed, " if needed else wanted
    if number == errno.EFBIG:
        with contextlib.suppress(ImportError):  # Windows
            import resource

            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            if limit != resource.RLIM_INFINITY:
                return f"{wanted}files of this process are limited to {size_text(limit)}: ulimit -f"
    folder = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    try:
        free = size_text(shutil.disk_usage(folder).free)
    except OSError:
        return f"{wanted}unknown free space in {folder}"
    quota = ", but your quota is exceeded" if number == errno.EDQUOT else ""
    return f"{wanted}{free} free in {folder}{quota}"


def disk_number(text: str) -> int | None:
    """The error number of a full or failing disk in a message."""
    return next((number for number in _DISK if os.strerror(number) in text), None)


def _number(error: Exception) -> int | None:
    if isinstance(number := getattr(error, "errno", None), int):
        return number
    found = re.search(r"errno = (\d+)", str(error))
    return int(found[1]) if found else disk_number(str(error))


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path that replaces `path` when the block succeeds; DiskError or RunError for system errors.

    A failure leaves the old file. A device or a pipe, such as `/dev/stdout`, is written directly.
    """
    if path.absolute().parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        with writing(path):
            yield path
        return
    part = new_part(path)
    try:
        with on_forced_exit(lambda: delete_part(part)):
            yield part
            with part.open("rb+") as handle:
                os.fsync(handle.fileno())
            part.replace(path)
        sync_folder(path.parent)
    except RadtransferError:
        raise
    except Exception as error:
        written = part_size(part)
        delete_part(part)
        ours = getattr(error, "filename", None) in (None, str(part))
        known = write_error(path, error, written=written) if ours else None
        if known is None:
            raise
        raise known from error
    finally:
        delete_part(part)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_out(out: Path) -> None:
    """Raises RunError unless results can be written to the folder."""
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
    check_writable(out)


def check_writable(out: Path) -> None:
    """Raises RunError if the folder `out` neither exists nor can be created."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"--out {out}: cannot create a folder in {existing}. Choose another.")


def check_new(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """`check_out`, and RunError if a file matching `names` exists, unless `overwrite`."""
    check_out(out)
    found = [] if overwrite else _existing(out, names)
    if found:
        raise RunError(f"{found[0]} exists. Use --overwrite to replace it, or another --out.")


@contextlib.contextmanager
def atomic_folder(out: Path, earlier: Iterable[str] = (), *, last: str = "") -> Iterator[Path]:
    """A temporary folder whose files all move to `out` when the block succeeds.

    A failure or a kill leaves `out` unchanged; other files in it are kept, files matching `earlier` are replaced or
    deleted. The folders are exchanged in one step if possible; else (a mount point, the current folder, folders of
    others, NFS) files are moved one by one, `last` at the end, and only SIGKILL can leave a mixture.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The folder cannot be written, or as `check_out`.
    """
    check_out(out)
    earlier = list(earlier)

    def put(staging: Path, out: Path) -> None:
        before = {item.name for item in out.iterdir()}
        if out.samefile(Path.cwd()) or not _link_others(staging, out, earlier) or not _exchange(staging, out):
            _move_one_by_one(staging, out, earlier, late=lambda name: name == last)
            return
        for item in staging.iterdir():
            if item.name not in before:  # new file of another process
                item.rename(out / item.name)

    with _staged(out, put) as staging:
        yield staging


@contextlib.contextmanager
def atomic_files(folder: Path, *, first: str) -> Iterator[Path]:
    """A temporary folder whose files all move into the existing `folder`, those matching `first` first.

    A failure or an interrupt moves none of them, SIGKILL at most those matching `first`. Raises as `atomic_folder`.
    """

    def put(staging: Path, folder: Path) -> None:
        _move_one_by_one(staging, folder, [], late=lambda name: not fnmatch(name, first))

    with _staged(folder, put) as staging:
        yield staging


@contextlib.contextmanager
def _staged(out: Path, put_in_place: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A temporary folder beside `out` (inside it if the parent is not writable), deleted at the end."""
    out = out.resolve() if out.exists() else out.absolute()
    missing = [folder for folder in out.parents if not folder.exists()]
    staging = new_part(out, inside=out.exists() and (not os.access(out.parent, os.W_OK) or os.path.ismount(out)))

    def delete() -> None:
        delete_part(staging)
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        if out.exists():
            status = out.stat()
            with contextlib.suppress(OSError):  # owner, group and permissions, as far as allowed
                os.chown(staging, status.st_uid, status.st_gid)
            with contextlib.suppress(OSError):
                shutil.copystat(out, staging)
        with on_forced_exit(delete):
            yield staging
        if out.exists():
            put_in_place(staging, out)
        else:
            staging.rename(out)
        sync_folder(out.parent)
    except Exception as error:
        known = _folder_error(error, staging, out)
        if known is None:
            raise
        raise known from error
    finally:
        delete()


def _folder_error(error: Exception, staging: Path, out: Path) -> RadtransferError | None:
    """The DiskError or RunError for an error while writing a folder; None if it is unrelated."""
    if isinstance(error, DiskError) and error.__cause__ is not None:
        error = error.__cause__  # with the sizes of the folder, not of one file
    elif isinstance(error, RadtransferError):
        return None
    written = part_size(staging)
    delete_part(staging)
    path = Path(getattr(error, "filename", None) or out)
    ours = path in out.parents or out in (path, *path.parents) or staging in (path, *path.parents)
    return write_error(out, error, written=written) if ours else None


def _move_one_by_one(staging: Path, out: Path, earlier: Sequence[str], *, late: Callable[[str], bool]) -> None:
    """Move the files and delete those of an earlier result; undone after a failure or interrupt."""

    def move_back(now: Path, before: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            now.replace(before)

    moves = sorted(_moves(staging, out), key=lambda move: late(move[1].name))
    gone = [path for path in _existing(out, earlier) if not (staging / path.relative_to(out)).exists()]
    replaced = staging / PART
    replaced.mkdir()
    with contextlib.ExitStack() as undo:
        for number, (new, path) in enumerate([*moves, *((None, path) for path in gone)]):
            if os.path.lexists(path):
                undo.callback(move_back, replaced / str(number), path)
                path.replace(replaced / str(number))
            if new is not None:
                undo.callback(move_back, path, new)
                new.replace(path)
        undo.pop_all()
    for folder in {path.parent for path in gone} - {out}:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _moves(staging: Path, out: Path) -> Iterator[tuple[Path | None, Path]]:
    """(source, target) of files in folders that `out` also has, and of all other files and folders."""
    for item in sorted(staging.iterdir()):
        if item.is_dir() and (out / item.name).is_dir():
            yield from _moves(item, out / item.name)
        else:
            yield item, out / item.name


def _link_others(staging: Path, out: Path, earlier: Sequence[str]) -> bool:
    """Hard-link the other files of `out` into `staging`; False if not all can be linked."""
    ours = set(_existing(out, earlier))
    for folder, folders, files in os.walk(out):
        target = staging / Path(folder).relative_to(out)
        others = [path for path in map(Path(folder).joinpath, files) if path not in ours]
        of_others = not target.is_dir() and (others or not files)
        if of_others or any(Path(folder, name).is_symlink() for name in folders):
            return False
        try:
            for path in others:
                if not (target / path.name).exists():
                    os.link(path, target / path.name, follow_symlinks=False)
        except OSError:
            return False
    return True


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders atomically, if Linux and the file system support it."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0


def _existing(out: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names for path in sorted(out.glob(name))]


_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"  # noqa: RUF001
)
"""Invisible characters that Python calls printable."""

_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<![^\W_])_|_(?![^\W_])|^[-+=](?=[-+=\s]|$)")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001


def printable(text: Any) -> str:
    r"""`text` on one line, with control and invisible characters escaped, such as \x1b."""
    text = str(text)
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(letter if _shows(letter) or letter == "\t" else ascii(letter)[1:-1] for letter in text)


def printable_lines(text: Any) -> str:
    """`printable` for several lines, with later lines indented so that they cannot imitate our output."""
    first, *more = map(printable, str(text).split("\n"))
    return "\n".join([first, *(line if line[:1] in ("", " ", "\t") else f"  {line}" for line in more)])


def decimal(value: float | None, form: str = ".3f") -> str:
    """`value` for a table; "n/a" for None."""
    return "n/a" if value is None else f"{value:{form}}"


def interval(ends: Sequence[float] | None) -> str:
    """Both ends of an interval for a table; "n/a" for None."""
    return "n/a" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON with control characters escaped."""

    def escape(letter: str) -> str:
        return json.dumps(letter)[1:-1] if ord(letter) > 0x7F else f"\\u{ord(letter):04x}"

    text = json.dumps(value, **options)
    if text.isascii():
        return text.replace("\x7f", r"\u007f")
    return "".join(letter if letter == "\n" or _shows(letter) else escape(letter) for letter in text)


def html_text(text: Any) -> str:
    """`text` escaped for HTML and its attributes."""
    return html.escape("\n".join(map(printable, str(text).split("\n"))))


def markdown_text(text: Any) -> str:
    """`text` escaped for Markdown, on one line, also in tables."""
    line = _MARKDOWN.sub(r"\\\g<0>", html.escape(printable(" ".join(str(text).split())), quote=False))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # list numbers


def markdown_code(text: Any) -> str:
    """`text` as inline code in Markdown."""
    line = printable(" ".join(str(text).split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence}{line}{fence}" if fence == "`" else f"{fence} {line} {fence}"


def spreadsheet_cell(value: Any) -> Any:
    """`value`, with an apostrophe before text that a spreadsheet would read as a formula; numbers are unchanged."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        if "_" not in value:
            return value
    return f"'{value}"


def _shows(letter: str) -> bool:
    return letter.isprintable() and not _BLANK.match(letter)
