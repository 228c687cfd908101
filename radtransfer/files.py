"""Files and folders that appear whole or not at all, what the machine's errors mean, and text that is safe to show.

What is being written has a temporary name that tells which process writes it, so that what a killed one left can be
deleted. Names of files, classes, columns and runs may hold anything: whatever shows them passes them through
`printable`, `json_text`, `html_text`, `markdown_text` or `spreadsheet_cell`.
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

PART = ".part-"  # how the name of anything begins that is still being written; nobody reads it


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
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    except KeyboardInterrupt:
        delete_part(part)
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
        return time.time() - part.stat().st_mtime < 24 * 3600  # another machine's may be written for a day
    return False


@cache
def this_machine() -> str:
    """Eight digits for the host and the processes that this one sees: containers have numbers of their own."""
    text = socket.gethostname()
    with contextlib.suppress(OSError):
        text = f"{text} {Path('/proc/self/ns/pid').stat().st_ino}"
    return f"{zlib.crc32(text.encode()):08x}"


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


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""The system's numbers for a disk that is full, or that fails."""


def write_error(path: Path, error: Exception, *, needed: int = 0, written: int = 0) -> RadtransferError | None:
    """What `error`, raised while `path` was written, means; None where it is not the system's.

    HDF5 and TensorFlow have the system's number, or its text, in their message only, and ZIP and HDF5 files that cannot
    be closed raise what they will. `path` may be the temporary path; `needed` and `written` are bytes that were to be
    written, and that were written before and are deleted again.
    """
    number = _number(error)
    if number is None:
        return None
    first = f"Cannot write {Path(_NAME.sub('', str(path)))}: {os.strerror(number)}"  # not the temporary path
    if number in _DISK:
        return DiskError(
            f"{first} ({_room(path, number, needed, written)}). Free some space; what was finished is kept."
        )
    return RunError(f"{first}. Choose another place with --out.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a DiskError or RunError; nothing is read in the block."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) or error from error


def system_error(error: Exception) -> RadtransferError | None:
    """What an error that nobody expected means where the machine caused it; None where it is a bug."""
    first = next(iter(str(error).splitlines()), "")
    number = _number(error)
    if number not in _DISK and (isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"):
        return TrainingError(
            f"Out of memory{f' ({first[:200]})' if first else ''}. Close other programs, or use a smaller --image-size "
            "or --batch-size, fewer --workers or --jobs."
        )
    if not isinstance(error, OSError):
        return DiskError(f"{first}. Free some space; what was finished is kept.") if number in _DISK else None
    if number is None or (error.filename is None and number not in _DISK):
        return None
    if number not in _DISK:
        return RunError(f"Cannot read or write {error.filename}: {os.strerror(number)}.")
    room = "" if error.filename is None else f" ({_room(Path(error.filename), number)})"
    return DiskError(f"Cannot read or write {error.filename or 'the disk'}: {os.strerror(number)}{room}.")


def size_text(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB" if size < 1000 else f"{size:,.0f} GB"


def _room(path: Path, number: int, needed: int = 0, written: int = 0) -> str:
    """How much there is, and how much it takes as far as that is known."""
    wanted = f"more than {size_text(written)} needed, " if written else ""
    wanted = f"{size_text(needed)} needed, " if needed else wanted
    if number == errno.EFBIG:
        with contextlib.suppress(ImportError):  # Windows
            import resource

            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            if limit != resource.RLIM_INFINITY:
                return f"{wanted}a file of this process may have {size_text(limit)}: ulimit -f"
    # Its file system is the one that the path will be in.
    folder = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    try:
        free = size_text(shutil.disk_usage(folder).free)
    except OSError:
        return f"{wanted}unknown free space in {folder}"
    quota = ", more than your quota lets you write" if number == errno.EDQUOT else ""
    return f"{wanted}{free} free in {folder}{quota}"


def disk_number(text: str) -> int | None:
    """The system's number for a full or failing disk that a message tells of."""
    return next((number for number in _DISK if os.strerror(number) in text), None)


def _number(error: Exception) -> int | None:
    if isinstance(number := getattr(error, "errno", None), int):
        return number
    told = re.search(r"errno = (\d+)", str(error))
    return int(told[1]) if told else disk_number(str(error))


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block succeeds; DiskError or RunError otherwise.

    Readers see the old file or the new one, never a part; a failure leaves the old one. A device or a pipe, such as
    `/dev/stdout`, is `path` itself: it cannot be replaced.
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
        told = write_error(path, error, written=written) if ours else None
        if told is None:
            raise
        raise told from error
    finally:
        delete_part(part)


def sync_folder(folder: Path) -> None:
    """Have the file's new name on the disk as well, where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_out(out: Path) -> None:
    """Raises RunError unless results can be written to a folder; called before anything is computed."""
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
    check_writable(out)


def check_writable(out: Path) -> None:
    """Raises RunError if the folder `out` does not stand and cannot be made."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"--out {out}: no folder can be made in {existing}. Choose another.")


def check_new(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """`check_out`, and that no file of `names` (`*` stands for any letters) is there, unless it may be replaced."""
    check_out(out)
    found = [] if overwrite else _existing(out, names)
    if found:
        raise RunError(f"{found[0]} exists. Use --overwrite to replace it, or another --out.")


@contextlib.contextmanager
def atomic_folder(out: Path, earlier: Iterable[str] = (), *, last: str = "") -> Iterator[Path]:
    """A temporary folder whose contents take their places in `out` when the block succeeds: all of them, or none.

    A failure or a kill leaves `out` as it was; files of others in it stay. The file system exchanges both folders in
    one step. Where it cannot (a mount point, the current folder, one that holds folders of others, NFS), the files
    are moved one by one, `last` in the end, and only SIGKILL between two of them leaves some old and some new ones.
    Files named `earlier` are of an earlier result and are replaced or deleted; `*` stands for any letters.

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
            if item.name not in before:  # another process has just put it there
                item.rename(out / item.name)

    with _staged(out, put) as staging:
        yield staging


@contextlib.contextmanager
def atomic_files(folder: Path, *, first: str) -> Iterator[Path]:
    """A temporary folder whose contents come together into `folder`, which may hold anything else.

    A failure or an interrupt leaves none of them there, SIGKILL at most those named `first` without the others; `*`
    stands for any letters. Raises DiskError or RunError as `atomic_folder`.
    """

    def put(staging: Path, folder: Path) -> None:
        _move_one_by_one(staging, folder, [], late=lambda name: not fnmatch(name, first))

    with _staged(folder, put) as staging:
        yield staging


@contextlib.contextmanager
def _staged(out: Path, put_in_place: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A temporary folder beside `out`, inside it where that may not be written; deleted in the end."""
    out = out.resolve() if out.exists() else out.absolute()
    missing = [folder for folder in out.parents if not folder.exists()]
    staging = new_part(out, inside=out.exists() and (not os.access(out.parent, os.W_OK) or os.path.ismount(out)))

    def delete() -> None:
        delete_part(staging)
        for folder in missing:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        if out.exists():
            status = out.stat()
            with contextlib.suppress(OSError):  # owner, group and rights, as far as this user may give them
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
        told = _folder_error(error, staging, out)
        if told is None:
            raise
        raise told from error
    finally:
        delete()


def _folder_error(error: Exception, staging: Path, out: Path) -> RadtransferError | None:
    """What an error means that came while a folder was written; None where it has nothing to do with that."""
    if isinstance(error, DiskError) and error.__cause__ is not None:
        error = error.__cause__  # its figures are of the one file
    elif isinstance(error, RadtransferError):
        return None
    written = part_size(staging)
    delete_part(staging)
    place = Path(getattr(error, "filename", None) or out)
    ours = place in out.parents or out in (place, *place.parents) or staging in (place, *place.parents)
    return write_error(out, error, written=written) if ours else None


def _move_one_by_one(staging: Path, out: Path, earlier: Sequence[str], *, late: Callable[[str], bool]) -> None:
    """Move the files and delete those of an earlier result; a failure or an interrupt takes it all back."""

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
    """From where to where: what is in folders that `out` has as well, and everything else as it is."""
    for item in sorted(staging.iterdir()):
        if item.is_dir() and (out / item.name).is_dir():
            yield from _moves(item, out / item.name)
        else:
            yield item, out / item.name


def _link_others(staging: Path, out: Path, earlier: Sequence[str]) -> bool:
    """Give `staging` what `out` holds besides an earlier result; False where it cannot have all of it."""
    ours = set(_existing(out, earlier))
    for folder, folders, files in os.walk(out):
        place = staging / Path(folder).relative_to(out)
        others = [path for path in map(Path(folder).joinpath, files) if path not in ours]
        of_others = not place.is_dir() and (others or not files)
        if of_others or any(Path(folder, name).is_symlink() for name in folders):
            return False
        try:
            for path in others:
                if not (place / path.name).exists():
                    os.link(path, place / path.name, follow_symlinks=False)
        except OSError:
            return False
    return True


def _exchange(a: Path, b: Path) -> bool:
    """Let two folders change places in one step, where the system (Linux) and the file system can do so."""
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
"""Characters that Python calls printable and that show nothing."""

_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<![^\W_])_|_(?![^\W_])|^[-+=](?=[-+=\s]|$)")
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001


def printable(text: Any) -> str:
    r"""`text` on one line, with an escape such as \x1b for every character that steers a terminal or shows nothing."""
    text = str(text)
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(letter if _shows(letter) or letter == "\t" else ascii(letter)[1:-1] for letter in text)


def printable_lines(text: Any) -> str:
    """The same of a text of several lines; those after the first are indented: none can pass for one of ours."""
    first, *more = map(printable, str(text).split("\n"))
    return "\n".join([first, *(line if line[:1] in ("", " ", "\t") else f"  {line}" for line in more)])


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON in which no character steers a terminal; it reads back equal."""

    def escape(letter: str) -> str:
        return json.dumps(letter)[1:-1] if ord(letter) > 0x7F else f"\\u{ord(letter):04x}"

    text = json.dumps(value, **options)
    if text.isascii():
        return text.replace("\x7f", r"\u007f")
    return "".join(letter if letter == "\n" or _shows(letter) else escape(letter) for letter in text)


def html_text(text: Any) -> str:
    """`text` as a page shows it letter by letter, also between the quotes of an attribute."""
    return html.escape("\n".join(map(printable, str(text).split("\n"))))


def markdown_text(text: Any) -> str:
    """`text` as Markdown shows it letter by letter, on one line, also in a cell of a table."""
    line = _MARKDOWN.sub(r"\\\g<0>", html.escape(printable(" ".join(str(text).split())), quote=False))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # a number of a list


def markdown_code(text: Any) -> str:
    """`text` as Markdown shows code within a line."""
    line = printable(" ".join(str(text).split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence}{line}{fence}" if fence == "`" else f"{fence} {line} {fence}"


def spreadsheet_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe before it.

    Numbers stay as they are, also those that are written as text.
    """
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        if "_" not in value:
            return value
    return f"'{value}"


def _shows(letter: str) -> bool:
    return letter.isprintable() and not _BLANK.match(letter)
