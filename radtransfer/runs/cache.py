"""The cache folder, and memory-mapped arrays in it."""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.errors import DiskError
from radtransfer.files import PART, delete_part, is_written, new_part, size_text
from radtransfer.process import on_forced_exit

if TYPE_CHECKING:
    import numpy as np

_substitutes: dict[Path, tempfile.TemporaryDirectory] = {}
"""Temporary folders in place of those that cannot be written to the cache."""

_reported: set[Path] = set()
"""The cache folders that `cache_note` has reported."""

_CANNOT_ALLOCATE = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
"""Errors of a file system that cannot reserve space."""

_CHUNK = 1 << 24
"""Bytes written at a time if space cannot be reserved."""


def cache_folder() -> Path:
    """$RADTRANSFER_CACHE, or the user's cache folder; in the temporary folder if the user has no home."""
    chosen, local = os.environ.get("RADTRANSFER_CACHE"), os.environ.get("LOCALAPPDATA")
    if not chosen and sys.platform == "win32" and local:
        return Path(local) / "radtransfer"
    path = chosen or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/radtransfer"
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"radtransfer-{os.getuid()}", path.lstrip("~/"))


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `folder` when the block succeeds, unless another process made it first.

    Raises OSError if the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = new_part(folder)
    try:
        draft.mkdir()
        with on_forced_exit(lambda: delete_part(draft)):
            yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        delete_part(draft)


def cache_note(error: Exception) -> str | None:
    """A note that the cache folder cannot be used; None after the first time."""
    folder = cache_folder()
    if folder in _reported:
        return None
    _reported.add(folder)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = _reason(cause) or str(cause)
    return (
        f"the cache {folder} cannot be written ({reason.rstrip('.')}): nothing is cached for later runs, which compute "
        "it again. Free some space there, or name another folder in RADTRANSFER_CACHE"
    )


def _reason(error: BaseException) -> str | None:
    return "it is not a directory" if isinstance(error, FileExistsError) else getattr(error, "strerror", None)


def write_once(folder: Path, write: Callable[[Path], None], *, what: str) -> tuple[Path, list[str]]:
    """Make `folder` if it is missing, or a temporary one if the cache cannot be written.

    If several processes try at once, the folder of the first to finish is used. `write` is called with the empty
    folder; `what` names the content in messages. Returns the folder and notes for the user. Raises DiskError if it fits
    neither into the cache nor into a temporary folder.
    """
    if folder in _substitutes:
        return Path(_substitutes[folder].name), []
    try:
        if not folder.is_dir():
            with new_folder(folder) as draft:
                write(draft)
        return folder, []
    except OSError as error:
        note = cache_note(error)
        other = None
        try:
            other = tempfile.TemporaryDirectory(prefix="radtransfer-")
            write(Path(other.name))
        except OSError:
            if other is not None:
                other.cleanup()
            raise DiskError(
                f"{what} could not be written to {folder} ({error}). "
                "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
            ) from error
        _substitutes[folder] = other
        return Path(other.name), [note] if note else []


def delete_temporary() -> None:
    """Delete the temporary folders of `write_once`, for a process that does not exit normally."""
    while _substitutes:
        _substitutes.popitem()[1].cleanup()


def fingerprint(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits that change with the path, size or time of any file."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ArrayCache:
    """One kind of arrays in the cache, with a folder for each key."""

    name: str  # of the folder
    limit: int  # bytes for all arrays of this kind; the least recently used are deleted
    title: str  # for messages
    instead: str  # the option to run without this cache, for messages

    def get(
        self, key: str, shapes: Sequence[tuple[int, ...]], *, dtype: type, fill: "Callable[[list[np.ndarray]], None]"
    ) -> "list[np.ndarray]":
        """The arrays of `key`, read-only; `fill` writes them the first time. DiskError if they do not fit."""
        import numpy as np

        folder = cache_folder() / self.name / key
        try:
            if not (folder / "0.npy").exists():
                needed = sum(int(np.prod(shape)) for shape in shapes) * np.dtype(dtype).itemsize
                self._make_room(folder.parent, needed=needed)
                with new_folder(folder) as part:
                    arrays = [_new_array(part / f"{i}.npy", shape, dtype) for i, shape in enumerate(shapes)]
                    fill(arrays)
                    for array in arrays:
                        array.flush()
            with contextlib.suppress(OSError):  # a read-only cache
                folder.touch()
            return [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(len(shapes))]
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(cache_folder())):
                raise  # an image
            raise DiskError(
                f"{self.title} cannot be cached in {folder.parent}: {_reason(error)}. Free some space, name another "
                f"folder in RADTRANSFER_CACHE, or run with {self.instead}."
            ) from error

    def _make_room(self, folder: Path, *, needed: int) -> None:
        """Delete the least recently used arrays until `needed` bytes fit below the limit and on the disk."""
        folder.mkdir(parents=True, exist_ok=True)
        # Folders that another process is writing are not touched.
        cached = [
            item for item in folder.iterdir() if item.is_dir() and not (item.name.startswith(PART) and is_written(item))
        ]
        cached.sort(key=lambda item: item.stat().st_mtime)
        sizes = {item: sum(file.stat().st_size for file in item.glob("*.npy")) for item in cached}
        free = shutil.disk_usage(folder).free
        if needed > free + sum(sizes.values()):
            raise DiskError(
                f"{self.title} need {size_text(needed)} in {folder}, which has {size_text(free)} free. "
                f"Free some space, name another folder in RADTRANSFER_CACHE, or run with {self.instead}."
            )
        while cached and (sum(sizes[item] for item in cached) + needed > self.limit or needed > free):
            free += sizes[cached[0]]
            shutil.rmtree(cached.pop(0), ignore_errors=True)


def _new_array(file: Path, shape: tuple[int, ...], dtype: type) -> "np.ndarray":
    """A memory-mapped array of zeros; its space is reserved, as a full disk would crash the process later."""
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    left = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with file.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        handle.flush()
        try:
            os.posix_fallocate(handle.fileno(), handle.tell(), left)
        except (AttributeError, OSError) as error:  # macOS and Windows have no such call
            if isinstance(error, OSError) and error.errno not in _CANNOT_ALLOCATE:
                raise
            while left:
                left -= handle.write(bytes(min(left, _CHUNK)))
        handle.flush()
        os.fsync(handle.fileno())
    return np.load(file, mmap_mode="r+")
