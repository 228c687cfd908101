"""A prepared data set that lies where TensorFlow's file systems reach, such as `gs://BUCKET/SET`, and its copy here.

Training reads images in another order each epoch, which would be a request for every image. So the set is copied
once, shard by shard, into the cache folder, and read from there. A copy that was stopped goes on with the shard that
it was at; a set whose files have another size or time is copied anew, beside the old one.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radtransfer.cache import cache_folder
from radtransfer.datasets.tfds.builder import METADATA
from radtransfer.environment import require_keras
from radtransfer.errors import DataError, DiskError
from radtransfer.parallel import all_in_parallel
from radtransfer.progress import Progress
from radtransfer.remote_address import RemoteSource
from radtransfer.system_errors import size_text
from radtransfer.whole_file import whole_file

_PIECE = 1 << 24
"""Bytes that are copied at a time."""

_LISTING = 16
"""Files that are asked for their size at a time."""


def copied_set(source: RemoteSource, progress: Progress) -> str:
    """The location on this machine, as dataset `tfds` reads it, of the set at `source`; copied unless it is there.

    Raises:
        DataError: TensorFlow has no such file system or cannot read there, or no prepared data set lies there.
        DiskError: The cache folder has no room, or cannot be written.
    """
    address = source.address
    if source.reader not in (None, "tfds"):
        raise DataError(f"{address}: {source.reader} reads folders of this machine. {_advice(source.scheme)}")
    _check_scheme(address, source.scheme)
    files = _files(source)
    known = hashlib.sha256(f"{address} {sorted(files.items())}".encode()).hexdigest()
    folder = cache_folder() / "remote" / f"{address.rpartition('/')[2]}-{known[:16]}"
    _copy(address, folder, files, progress)
    return f"{folder}{source.options}"


def _check_scheme(address: str, scheme: str) -> None:
    require_keras()
    import tensorflow as tf

    known = sorted(name for name in tf.io.gfile.get_registered_schemes() if name not in ("", "file"))
    if scheme not in known:
        raise DataError(
            f"{address}: this TensorFlow knows {', '.join(f'{name}://' for name in known)} and folders. Mount it as a "
            "folder, or copy the data set to this machine, and name that folder."
        )


def _files(source: RemoteSource) -> Mapping[str, tuple[int, int]]:
    """Size in bytes, and time of change in ns, of each file of the set."""
    import tensorflow as tf

    address = source.address

    def facts(name: str) -> tuple[int, int] | None:
        status = tf.io.gfile.stat(f"{address}/{name}")
        return None if status.is_directory else (status.length, status.mtime_nsec)

    try:
        # Asked first: a list of files is empty for whatever reason.
        facts(METADATA)
        # Names that begin with a dot are locks, and what is still being written.
        names = [name for name in tf.io.gfile.listdir(address) if not name.startswith(".")]
        found = all_in_parallel(facts, names, workers=_LISTING)
    except tf.errors.NotFoundError:
        raise DataError(
            f"No prepared data set lies at {address}: it has no {METADATA}. {_advice(source.scheme)}"
        ) from None
    except tf.errors.OpError as error:
        login = " (`gcloud auth application-default login`)" if source.scheme == "gs" else ""
        raise DataError(
            f"{_unreadable(address, error)} Check that this machine is online, that the address is right, and that you "
            f"may read it{login}."
        ) from None
    return {name: fact for name, fact in zip(names, found, strict=True) if fact is not None}


def _copy(address: str, folder: Path, files: Mapping[str, tuple[int, int]], progress: Progress) -> None:
    """Copy the files that `folder` does not hold yet."""
    missing = [name for name, (size, _) in sorted(files.items()) if _size(folder / name) != size]
    if not missing:
        progress.note(f"{address} is read from its copy in {folder}")
        return
    needed = sum(files[name][0] for name in missing)
    advice = "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DiskError(f"{address} cannot be copied to {folder} ({error.strerror}). {advice}") from None
    if needed > free:
        raise DiskError(f"{address} takes {size_text(needed)} in {folder}; {size_text(free)} are free. {advice}")
    progress.note(f"{address}: copying {len(missing)} files, {size_text(needed)}, to {folder}")
    for done, name in enumerate(missing, start=1):
        _copy_file(f"{address}/{name}", folder / name, files[name])
        progress.count("files copied", done, len(missing))


def _copy_file(address: str, file: Path, facts: tuple[int, int]) -> None:
    """Copy one file, whole or not at all, with its time: that tells whether images have changed."""
    import tensorflow as tf

    size, time = facts
    with whole_file(file) as part:
        try:
            with tf.io.gfile.GFile(address, "rb") as there, part.open("wb") as here:
                while piece := there.read(_PIECE):
                    here.write(piece)
        except tf.errors.OpError as error:
            raise DataError(
                f"{_unreadable(address, error)} What was copied is kept; the same command goes on."
            ) from None
        if part.stat().st_size != size:
            raise DataError(f"{address} ended after {part.stat().st_size} of {size} bytes. Run the command again.")
        os.utime(part, ns=(time, time))


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _unreadable(address: str, error: Any) -> str:
    reason = next(iter(str(error.message).strip().splitlines()), type(error).__name__)
    # TensorFlow wraps what the network says in what its library is called.
    reason = reason.rpartition("error details: ")[2].rstrip(".")
    return f"{address} cannot be read ({reason[:300]})."


def _advice(scheme: str) -> str:
    return (
        "Only prepared data sets are read from there: run `radtransfer data prepare DATA --out SET`, copy the folder "
        f"SET to {scheme}://…, and name that."
    )
