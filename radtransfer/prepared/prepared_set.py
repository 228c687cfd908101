"""Writes a data set once at working resolution, so that training neither decodes nor resizes large images again.

    read the table -> check the images -> decode and resize, shard by shard -> index -> metadata

The folder is a data set of TensorFlow Datasets; `images.csv` beside the shards holds what `ImageTable` needs. A
shard appears whole, so a killed job goes on with the missing ones.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable, tell_notes
from radtransfer.datasets.tfds.prepared_table import PROVENANCE, write_table
from radtransfer.datasets.tfds.records import read_examples
from radtransfer.device import resolve_device
from radtransfer.errors import ConfigError, DataError, DiskError
from radtransfer.examination.image_check import CheckedImages, check_images
from radtransfer.image_place import file_of
from radtransfer.prepared.folder import BAD_IMAGES, PreparedFolder, open_folder
from radtransfer.prepared.provenance import fixed_settings, table_digest, write_provenance
from radtransfer.prepared.shards import (
    Shard,
    image_bytes,
    make_features,
    plan_shards,
    same_images,
    stored_images,
    with_files_together,
    write_metadata,
    write_shard,
)
from radtransfer.progress import Progress
from radtransfer.settings import Config
from radtransfer.system_errors import size_text

_BATCH_BYTES = 64_000_000


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        path: Its folder.
        images: How many images it holds.
        shards: In how many files.
        bytes: Of these.
        splits: Images of each TFDS split.
        skipped: Images that could not be read.
    """

    path: Path
    images: int
    shards: int
    bytes: int
    splits: dict[str, int]
    skipped: int


def prepare_set(
    config: Config,
    *,
    out: Path,
    encoding: Literal["raw", "jpeg"] = "raw",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write the images of `config.data` to the folder `out`, or go on where the same job was stopped.

    Args:
        config: Of which the data, how images are read, `model.image_size` and `system.workers` count.
        out: The folder.
        encoding: `raw` is uint8 RGB, height × width × 3; `jpeg` has quality 95 and full colour resolution.
        overwrite: Replace what was prepared there before.
        progress: Hears what is found and done.

    Raises:
        ConfigError: The settings do not fit, or `out` holds the images themselves.
        DataError: The images or labels cannot be used.
        RunError: `out` is in use, or holds something else or a set of other settings.
        DiskError: The disk is too small, or fails.
    """
    progress = progress or Progress()
    table = with_files_together(read_table(config.data, progress=progress))
    tell_notes(table.notes, progress)
    _check_apart(table, out)
    settings = fixed_settings(config, encoding)
    with open_folder(out, settings, table_digest(table), overwrite=overwrite) as folder:
        skipped = {path for path, _ in folder.skipped or ()}
        if skipped:
            table = table.select(np.array([path not in skipped for path in table.paths]))
        if folder.finished():
            progress.note(f"{out} is already prepared from the same data with the same settings")
            return _result(out)
        table, shards = _write_images(folder, table, config, encoding, progress)
        _finish(folder, table, shards, config, encoding)
    return _result(out)


def _write_images(
    folder: PreparedFolder, table: ImageTable, config: Config, encoding: str, progress: Progress
) -> tuple[ImageTable, tuple[Shard, ...]]:
    """Write the missing shards; gives the readable images, and all shards."""
    workers, checked = resolve_device(config.system).workers, None
    if folder.skipped is None:
        checked = _check(folder, table, config, workers, progress)
        table = checked.table
    shards = plan_shards(table, size=config.model.image_size, encoding=encoding)
    missing = [shard for shard in shards if folder.replaces or not is_whole(folder.path / shard.name, shard)]
    _check_space(folder, missing, config.model.image_size, encoding)
    if checked is not None:
        folder.set_skipped([(image.path, image.reason) for image in checked.bad])
    if not missing:
        return table, shards
    rows = np.arange(len(table))
    if checked is None:
        rows = np.array([row for shard in missing for row in shard.rows])
        checked = _check(folder, table.select(rows), config, workers, progress)
        if checked.bad:
            raise DataError(f"{checked.bad[0].path!r} could be read before: {checked.bad[0].reason}. Repair it.")
    _write_shards(folder.path, missing, checked, rows, config, encoding, workers, progress)
    return table, shards


def is_whole(file: Path, shard: Shard) -> bool:
    """Whether the shard is written, with as many images as it is to hold."""
    try:
        return file.is_file() and sum(1 for _ in read_examples(file, image="image")) == len(shard.rows)
    except DataError:
        return False


def _check(
    folder: PreparedFolder, table: ImageTable, config: Config, workers: int, progress: Progress
) -> CheckedImages:
    return check_images(
        table,
        reading=config.images,
        workers=workers,
        on_bad_image=config.data.on_bad_image,
        report_file=folder.path / BAD_IMAGES,
        progress=progress,
    )


def _write_shards(
    out: Path,
    missing: Sequence[Shard],
    checked: CheckedImages,
    rows: np.ndarray,
    config: Config,
    encoding: str,
    workers: int,
    progress: Progress,
) -> None:
    """Write the `missing` shards; `rows` are the numbers of the `checked` images in the whole table."""
    from radtransfer.pipeline.batches import make_batches

    size, table = config.model.image_size, checked.table
    if deep := sum(facts.deep for facts in checked.facts):
        progress.note(f"{deep} images have more than 8 bits; prepared, they are rounded to 8")
    batches = make_batches(
        table.paths,
        table.files,
        checked.facts,
        table.targets,
        image_size=size,
        reading=config.images,
        batch_size=min(32, max(1, _BATCH_BYTES // (size * size * 12))),
        workers=workers,
    )
    features = make_features(table, size=size, encoding=encoding)
    position = {row: place for place, row in enumerate(rows.tolist())}
    total, before = sum(len(shard.rows) for shard in missing), 0
    for shard in missing:
        places = [position[row] for row in shard.rows]
        writing = write_shard(
            out / shard.name, places, table=table, batches=batches, features=features, encoding=encoding
        )
        for done in writing:
            progress.count("images prepared", before + done, total)
        before += len(places)


def _check_space(folder: PreparedFolder, missing: Sequence[Shard], size: int, encoding: str) -> None:
    out, needed = folder.path, sum(len(shard.rows) for shard in missing) * (image_bytes(size, encoding) + 300)
    free = shutil.disk_usage(out).free + folder.bytes_replaced()
    if needed > free:
        raise DiskError(
            f"{out} needs {size_text(needed)} and has {size_text(free)} free. Free some space, choose another --out, a "
            "smaller --image-size" + (", or --encoding jpeg." if encoding == "raw" else ".")
        )


def _finish(folder: PreparedFolder, table: ImageTable, shards: Sequence[Shard], config: Config, encoding: str) -> None:
    """Write the table, the metadata of TFDS, and last the provenance."""
    out, size = folder.path, config.model.image_size
    stored = stored_images(out, shards)
    write_table(out, table, [stored[row] for row in same_images(table).tolist()])
    source = config.data.source
    write_metadata(
        out,
        shards,
        make_features(table, size=size, encoding=encoding),
        description=f"Prepared by radtransfer from {source} at {size}×{size} pixels; see {PROVENANCE}."
        + (f" labels: {', '.join(table.classes)}; NaN is not known." if table.task == "multilabel" else ""),
    )
    write_provenance(folder, table, shards, config, encoding)


def _result(out: Path) -> Prepared:
    provenance = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    shards = provenance["shards"]
    return Prepared(
        path=out,
        images=provenance["images"],
        shards=len(shards),
        bytes=sum(shard["bytes"] for shard in shards),
        splits=provenance["splits"],
        skipped=len(provenance["skipped"]),
    )


def _check_apart(table: ImageTable, out: Path) -> None:
    """The images must not lie in the folder that is written, or replaced."""
    folder = out.expanduser().absolute()
    inside = next((place for place in table.files if place and folder in file_of(place).absolute().parents), None)
    if inside is not None:
        raise ConfigError(f"--out {out} holds the images themselves ({file_of(inside)}). Choose another folder.")
