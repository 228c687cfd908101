"""The folder that results are written to: fit for it before anything is computed, and whole or as it was after."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from radtransfer.errors import DiskError, RadtransferError, RunError
from radtransfer.interruption import before_hard_end
from radtransfer.parts import PART, delete_part, new_part, part_size
from radtransfer.system_errors import write_error
from radtransfer.whole_file import sync_folder


def check_out(out: Path) -> None:
    """See that results can be written to a folder, before anything is computed.

    Raises:
        RunError: It is a run or a file, or no folder can be made there.
    """
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
    check_place(out)


def check_place(out: Path) -> None:
    """Raises RunError if the folder `out` does not stand and cannot be made."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"--out {out}: no folder can be made in {existing}. Choose another.")


def check_new(out: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """`check_out`, and that no earlier result stands in the folder, unless it may be replaced.

    Args:
        out: The folder.
        names: Of the files that will be written there; `*` stands for any letters.
        overwrite: Whether those that exist are replaced.

    Raises:
        RunError: One exists, or as `check_out`.
    """
    check_out(out)
    found = [] if overwrite else _existing(out, names)
    if found:
        raise RunError(f"{found[0]} exists. Use --overwrite to replace it, or another --out.")


@contextlib.contextmanager
def whole_folder(out: Path, earlier: Iterable[str] = (), *, last: str = "") -> Iterator[Path]:
    """A temporary folder whose contents take their places in `out` when the block succeeds: all of them, or none.

    A failure or a kill leaves `out` as it was; files of others in it stay. The file system exchanges both folders in
    one step. Where it cannot (a mount point, the current folder, one that holds folders of others, NFS), the files
    are moved one by one, and only SIGKILL between two of them leaves some old and some new ones.

    Args:
        out: The folder, made if needed.
        earlier: Names of the files of an earlier result, which are replaced or deleted; `*` stands for any letters.
        last: Name of the file that is moved last.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The folder cannot be written, or as `check_out`.
    """
    check_out(out)
    earlier = list(earlier)
    with _staged(out, lambda staging, out: _exchange_or_move(staging, out, earlier, last)) as staging:
        yield staging


@contextlib.contextmanager
def files_together(folder: Path, *, first: str) -> Iterator[Path]:
    """A temporary folder whose contents come together into `folder`, which may hold anything else.

    A failure or an interrupt leaves none of them there, SIGKILL at most `first` without the others.

    Args:
        folder: Made if needed.
        first: Names of those that are moved first; `*` stands for any letters.

    Raises:
        DiskError: The disk is full, or fails.
        RunError: The folder cannot be written.
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
            _copy_rights(out, staging)
        with before_hard_end(delete):
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


def _exchange_or_move(staging: Path, out: Path, earlier: Sequence[str], last: str) -> None:
    before = {item.name for item in out.iterdir()}
    if out.samefile(Path.cwd()) or not _link_others(staging, out, earlier) or not _exchange(staging, out):
        _move_one_by_one(staging, out, earlier, late=lambda name: name == last)
        return
    for item in staging.iterdir():
        if item.name not in before:  # another process has just put it there
            item.rename(out / item.name)


def _move_one_by_one(staging: Path, out: Path, earlier: Sequence[str], *, late: Callable[[str], bool]) -> None:
    """Move the files and delete those of an earlier result; a failure or an interrupt takes it all back."""
    moves = sorted(_moves(staging, out), key=lambda move: late(move[1].name))
    gone = [path for path in _existing(out, earlier) if not (staging / path.relative_to(out)).exists()]
    replaced = staging / PART
    replaced.mkdir()
    with contextlib.ExitStack() as undo:
        for number, (new, path) in enumerate([*moves, *((None, path) for path in gone)]):
            if os.path.lexists(path):
                undo.callback(_move_back, replaced / str(number), path)
                path.replace(replaced / str(number))
            if new is not None:
                undo.callback(_move_back, path, new)
                new.replace(path)
        undo.pop_all()
    for folder in {path.parent for path in gone} - {out}:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _move_back(now: Path, before: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        now.replace(before)


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


def _copy_rights(out: Path, staging: Path) -> None:
    """Owner, group and rights, as far as this user may give them."""
    status = out.stat()
    with contextlib.suppress(OSError):
        os.chown(staging, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):
        shutil.copystat(out, staging)


def _existing(out: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names for path in sorted(out.glob(name))]
