"""Whether images and labels are still those that a run was made of."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from radtransfer.cache import cache_folder
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import RadtransferError
from radtransfer.image_place import ImagePlace, file_of
from radtransfer.parallel import in_parallel
from radtransfer.runs import read_folds, read_run, write_text
from radtransfer.settings import DataSettings


def images_digest(places: Iterable[ImagePlace | None], *, workers: int) -> str:
    """SHA-256 of the bytes of all image files in turn, each once: 64 hexadecimal digits.

    Files whose place, number, size and times are those of an earlier call are not read again.

    Raises:
        OSError: One cannot be read.
    """
    files = list(dict.fromkeys(file_of(place) for place in places if place is not None))
    known = _known(files)
    with contextlib.suppress(OSError):
        return known.read_text(encoding="ascii")
    digest = hashlib.sha256()
    for batch in in_parallel(_digest, files, workers=workers):
        digest.update(b"".join(batch))
    found = digest.hexdigest()
    with contextlib.suppress(OSError, RadtransferError):  # a cache that cannot be written keeps nothing
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, found)
    return found


def data_changes(run: Path, data: DataSettings, *, workers: int = 2) -> list[str]:
    """A sentence for each way in which the data of a finished run, or one that goes on, is not what it was.

    Nothing is said where the data is not there any more, or cannot be read: nothing is known of it then.

    Args:
        run: The run folder.
        data: Where its images come from, as its `config.yaml` says.
        workers: Files read at the same time.

    Raises:
        RunError: The run's own files are not as they were written.
    """
    if not (run / "folds.csv").is_file():
        return []
    rows, before = read_folds(run), read_run(run).get("images_sha256")
    try:
        table = read_table(data)
        changes = list(_row_changes(rows, table))
        if not changes and before is not None:
            places = dict(zip(table.paths, table.files, strict=True))
            paths = dict.fromkeys(row["path"] for row in rows)
            if images_digest((places[path] for path in paths), workers=workers) != before:
                changes.append("image files have other contents than when it was made")
    except (RadtransferError, OSError, KeyError):
        return []
    return [f"the data of {run} has changed: {change}. Its figures are of the data as it was" for change in changes]


def _row_changes(rows: Sequence[dict[str, str]], table: ImageTable) -> Iterable[str]:
    patients = table.patients or ("",) * len(table)
    now = dict(zip(table.paths, zip(table.labels, patients, strict=True), strict=True))
    then = {row["path"]: (row["label"], row["patient"]) for row in rows}
    gone = [path for path in then if path not in now]
    if gone:
        yield f"{len(gone)} of its images are not in the table any more, such as {gone[0]!r}"
    for place, what in enumerate(("label", "patient")):
        other = [path for path in then if path in now and then[path][place] != now[path][place]]
        if other:
            path = other[0]
            was, is_now = then[path][place], now[path][place]
            yield f"the {what} of {len(other)} images, such as {path!r}: {was!r}, now {is_now!r}"


def _digest(file: Path) -> bytes:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def _known(files: Sequence[Path]) -> Path:
    """Where the digest of these files, as they are, is kept."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"{file} {times}\n".encode())
    return cache_folder() / "contents" / f"{digest.hexdigest()[:32]}.txt"
