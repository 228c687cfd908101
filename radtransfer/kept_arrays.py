"""Arrays that can be made again, kept on disk under a key and memory-mapped: only what is read is in memory."""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radtransfer.cache import PART, cache_folder, new_folder
from radtransfer.errors import RunError

_ABANDONED = 24 * 3600  # seconds after which an unfinished folder is that of a killed process


@dataclass(frozen=True)
class KeptArrays:
    """One kind of arrays in the cache: a folder for each key, whole or not there.

    Attributes:
        name: Of the folder.
        limit: Bytes that all of the kind may take; the least recently used ones make room.
        title: What they are, for messages.
        instead: How to do without, for messages.
    """

    name: str
    limit: int
    title: str
    instead: str

    def get(
        self,
        key: str,
        shapes: Sequence[tuple[int, ...]],
        *,
        dtype: type,
        fill: Callable[[list[np.ndarray]], None],
    ) -> list[np.ndarray]:
        """The arrays of `key`, read-only; `fill` writes them where nobody has done so before.

        Raises:
            RunError: There is no room for them, or no folder.
        """
        folder = cache_folder() / self.name / key
        if not (folder / "0.npy").exists():
            needed = sum(int(np.prod(shape)) for shape in shapes) * np.dtype(dtype).itemsize
            self._make_room(folder.parent, needed=needed)
            _write(folder, shapes, dtype, fill)
        with contextlib.suppress(OSError):  # a cache that only others may write
            folder.touch()
        return [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(len(shapes))]

    def _make_room(self, folder: Path, *, needed: int) -> None:
        """Delete the least recently used arrays until `needed` bytes fit below the limit and on the disk."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.title} cannot be kept in {folder}: {error.strerror}. "
                f"Name another folder in RADTRANSFER_CACHE, or run with {self.instead}."
            ) from None
        kept = sorted((item for item in folder.iterdir() if _may_go(item)), key=lambda item: item.stat().st_mtime)
        sizes = {item: sum(file.stat().st_size for file in item.glob("*.npy")) for item in kept}
        while kept and sum(sizes[item] for item in kept) + needed > self.limit:
            shutil.rmtree(kept.pop(0), ignore_errors=True)
        if needed > shutil.disk_usage(folder).free:
            raise RunError(
                f"{self.title} need {needed / 1e9:.1f} GB in {folder}, which has not that much free. "
                f"Free some space, name another folder in RADTRANSFER_CACHE, or run with {self.instead}."
            )


def _write(
    folder: Path, shapes: Sequence[tuple[int, ...]], dtype: type, fill: Callable[[list[np.ndarray]], None]
) -> None:
    """Fill `folder`, which appears when it is whole."""
    with new_folder(folder) as part:
        arrays = [
            np.lib.format.open_memmap(part / f"{i}.npy", mode="w+", dtype=dtype, shape=shape)
            for i, shape in enumerate(shapes)
        ]
        fill(arrays)
        for array in arrays:
            array.flush()


def _may_go(item: Path) -> bool:
    """Whether `item` holds arrays that no other process is computing at the moment."""
    return item.is_dir() and not (item.name.startswith(PART) and time.time() - item.stat().st_mtime < _ABANDONED)
