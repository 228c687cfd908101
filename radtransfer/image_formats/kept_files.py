"""Files of several images, kept open from one frame to the next.

Whoever opens such a file again for each of its n frames walks to each from the first: n² steps. Here a file is opened
once and read in order; frames that build on each other, as in a GIF, are kept for a while, since several threads ask
for them, and training asks again.
"""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from radtransfer.errors import BadImageError
from radtransfer.image_place import FilePart

_MOST_FILES, _ROOM = 8, 256_000_000
"""Files kept open; bytes of the decoded frames that are kept of each."""


class KeptFile:
    """What is known of a file that is kept open, by name; what has to be closed is closed with it."""

    def __init__(self, identity: tuple) -> None:
        self.identity, self.lock, self._known = identity, threading.RLock(), {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for the file as it is now."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def close(self) -> None:
        with self.lock:
            for item in self._known.values():
                if hasattr(item, "close"):
                    item.close()
            self._known.clear()


_files: OrderedDict[Path, KeptFile] = OrderedDict()
_files_lock = threading.Lock()


@contextmanager
def kept_file(path: Path) -> Iterator[KeptFile]:
    """The file `path`, which this thread alone reads while the block runs.

    Raises:
        OSError: It is not there.
    """
    status = path.stat()
    # A forked process shares the places in open files with its parent, and would move them.
    identity = os.getpid(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    with _files_lock:
        kept, old = _files.pop(path, None), []
        if kept is None or kept.identity != identity:
            kept, old = KeptFile(identity), [kept] if kept and kept.identity[0] == identity[0] else []
        _files[path] = kept
        if len(_files) > _MOST_FILES:
            old.append(_files.popitem(last=False)[1])
    for file in old:
        file.close()
    with kept.lock:
        yield kept


@atexit.register
def close_files() -> None:
    """Close all files that are kept open, unless they are a parent process' own."""
    while _files:
        _, kept = _files.popitem()
        if kept.identity[0] == os.getpid():
            kept.close()


class FrameSequence:
    """The frames of an open Pillow image that builds each on the one before: a GIF, a WebP or an animated PNG."""

    def __init__(self, image: Image.Image) -> None:
        self._image, self._next, self._failure = image, 0, None
        self._kept: OrderedDict[int, Image.Image] = OrderedDict()

    def frame(self, place: FilePart) -> Image.Image:
        """The frame that `place` names, decoded.

        Raises:
            BadImageError: There is none, or it or one before it is damaged.
        """
        if place.frame not in self._kept and place.frame < self._next:
            self._next = 0
        while place.frame not in self._kept:
            if self._failure is not None and self._next == self._failure[0]:
                raise BadImageError(place, self._failure[1])
            self._decode_next()
        return self._kept[place.frame]

    def close(self) -> None:
        self._image.close()
        self._kept.clear()

    def _decode_next(self) -> None:
        try:
            self._image.seek(self._next)
            frame = self._image.copy()
        except EOFError:
            self._failure = self._next, f"it has no frame {self._next + 1}"
        except Exception as error:  # Pillow raises what it meets in a damaged file
            self._failure = self._next, f"damaged or truncated ({error})"
        else:
            frame.format = self._image.format
            self._kept[self._next] = frame
            self._next += 1
            if len(self._kept) > max(1, _ROOM // (4 * frame.width * frame.height)):
                self._kept.popitem(last=False)
