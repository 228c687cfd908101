"""Data sets prepared once: decoded, resized, written in shards.

The folder of a prepared data set while it is written: whose it is, and what of it is there.

`prepare.json` holds the settings, a digest of what was read, and the images that could not be read; a job that finds
other ones there stops. `provenance.json` is written last.

Writes a data set once at working resolution, so that training neither decodes nor resizes large images again.

    read the table -> check the images -> decode and resize, shard by shard -> index -> metadata

The folder is a data set of TensorFlow Datasets; `images.csv` beside the shards holds what `ImageTable` needs. A
shard appears whole, so a killed job goes on with the missing ones.

What a prepared data set was made of: the settings and sources that decide it, and the record of them.

The shards of a prepared data set: which image goes where, and how one shard is written.

A shard is a TFRecord file of `tf.train.Example`s, which TensorFlow Datasets reads; the bytes of an image stand in it
as they are, so that it can also be read on its own.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from radtransfer.config.schema import Config
from radtransfer.data.image_check import CheckedImages, check_images
from radtransfer.data.readers import absolute_source, read_table
from radtransfer.data.splits import frame_identities, image_identities
from radtransfer.data.table import ImageTable, tell_notes
from radtransfer.data.tfds import PROVENANCE, STATE, TABLE, StoredImage, write_table
from radtransfer.data.tfds_files import read_examples
from radtransfer.errors import ConfigError, DataError, DiskError, RunError
from radtransfer.files import PART, files_together, size_text
from radtransfer.images.refs import file_of, read_contents
from radtransfer.process import Progress, resolve_device, versions
from radtransfer.runs.folder import differences, now, remove_parts, whole_file, write_json
from radtransfer.runs.lock import LOCK, locked, made_folder

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from radtransfer.images.pipeline import Batches

SHARD_BYTES = 256_000_000
"""About how large a shard becomes."""

NAME = "radtransfer"
"""What TFDS calls a prepared set."""

JPEG_QUALITY = 95
_JPEG_BYTES_PER_PIXEL = 0.8
"""What a pixel takes at that quality, at most, in photographs; for planning only."""

_SPLITS = {"train": "train", "val": "validation", "test": "test", "": "unused"}
"""What TFDS calls a split."""


@dataclass(frozen=True)
class Shard:
    """A shard that is, or is to be, written.

    Attributes:
        name: Of its file.
        split: As TFDS calls it.
        rows: The rows of the table whose images it holds, in order.
    """

    name: str
    split: str
    rows: tuple[int, ...]


def image_bytes(size: int, encoding: Literal["raw", "jpeg"]) -> int:
    """What an image takes, for `raw` exactly, for `jpeg` about."""
    return size * size * 3 if encoding == "raw" else int(size * size * _JPEG_BYTES_PER_PIXEL)


def plan_shards(table: ImageTable, *, size: int, encoding: Literal["raw", "jpeg"]) -> tuple[Shard, ...]:
    """Every image in a shard, once even where several rows are the same image.

    One fixed split gives the TFDS splits; without one, or with several folds, all images are in `train`.
    """
    rows_of: dict[str, list[int]] = {}
    for row in np.unique(same_images(table)).tolist():
        split = str(table.splits[0, row]) if table.splits is not None and len(table.splits) == 1 else "train"
        rows_of.setdefault(_SPLITS[split], []).append(row)
    per_shard = max(1, SHARD_BYTES // image_bytes(size, encoding))
    shards = []
    for split, rows in rows_of.items():
        count = -(-len(rows) // per_shard)
        for number, part in enumerate(np.array_split(rows, count)):
            name = f"{NAME}-{split}.tfrecord-{number:05d}-of-{count:05d}"
            shards.append(Shard(name, split, tuple(part.tolist())))
    return tuple(shards)


def same_images(table: ImageTable) -> np.ndarray:
    """The first row that is the same image as each row, int (rows,); frames of one file are images of their own."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(frame_identities(table))])


def with_files_together(table: ImageTable) -> ImageTable:
    """`table`, whose files become the patients if several frames of one are images and patients are not known.

    Frames of one file are never split between sets; in the prepared set, where each lies on its own, nothing else
    could tell.
    """
    identities = image_identities(table)
    if table.patients is not None or len(set(same_images(table).tolist())) == len(set(identities)):
        return table
    names: dict[Hashable, str] = {}
    for identity, path in zip(identities, table.paths, strict=True):
        names[identity] = min(path, names.get(identity, path))
    note = "frames of one file stay together in the prepared set: the file is the patient"
    return replace(table, patients=tuple(names[identity] for identity in identities), notes=(*table.notes, note))


def make_features(table: ImageTable, *, size: int, encoding: Literal["raw", "jpeg"]) -> "tfds.features.FeaturesDict":
    """The features of an example: image, path, sha256, label or labels, and patient where there are any."""
    import tensorflow_datasets as tfds

    shape = (size, size, 3)
    if encoding == "raw":
        image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    else:
        image = tfds.features.Image(shape=shape, encoding_format="jpeg")
    features = {"image": image, "path": tfds.features.Text(), "sha256": tfds.features.Text()}
    if table.task == "multilabel":
        features["labels"] = tfds.features.Tensor(shape=(len(table.classes),), dtype=np.float32)
    else:
        features["label"] = tfds.features.ClassLabel(names=list(table.classes))
    if table.patients is not None:
        features["patient"] = tfds.features.Text()
    return tfds.features.FeaturesDict(features)


def write_shard(
    file: Path,
    rows: Sequence[int],
    *,
    table: ImageTable,
    batches: "Batches",
    features: "tfds.features.FeaturesDict",
    encoding: Literal["raw", "jpeg"],
) -> Iterator[int]:
    """Write the images of `rows`, decoded and resized, to `file`, whole or not at all.

    Yields:
        How many are written, after every batch.

    Raises:
        DataError: An image cannot be decoded; names its file.
    """
    import tensorflow as tf

    epoch, done = batches.in_order(np.array(rows)), 0
    with whole_file(file) as part, tf.io.TFRecordWriter(str(part)) as writer:
        for images, _, weights in epoch:
            for image in _whole_numbers(images.numpy()[weights.numpy() > 0]):
                example = features.serialize_example(_example(table, rows[done], image, encoding))
                # TFDS leaves the order of the features to protobuf, which changes it from process to process.
                writer.write(tf.train.Example.FromString(example).SerializeToString(deterministic=True))
                done += 1
            yield done
        writer.flush()


def stored_images(folder: Path, shards: Sequence[Shard]) -> dict[int, StoredImage]:
    """Where the image of each row lies in the shards, all of which are written.

    Raises:
        DataError: A shard is damaged.
    """
    found = {}
    for shard in shards:
        for row, (span, values) in zip(shard.rows, read_examples(folder / shard.name, image="image"), strict=True):
            found[row] = StoredImage(shard.name, span.offset, span.length, values["sha256"][0].decode())
    return found


def write_metadata(
    folder: Path, shards: Sequence[Shard], features: "tfds.features.FeaturesDict", *, description: str
) -> None:
    """What TFDS needs to open the folder: `dataset_info.json`, `features.json` and the names of the classes."""
    import tensorflow_datasets as tfds

    of_split: dict[str, list[Shard]] = {}
    for shard in shards:
        of_split.setdefault(shard.split, []).append(shard)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.rows) for shard in parts],
            num_bytes=sum((folder / shard.name).stat().st_size for shard in parts),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=folder, dataset_name=NAME, split=split, filetype_suffix="tfrecord"
            ),
        )
        for split, parts in of_split.items()
    ]
    with files_together(folder, first="*") as staging:
        names = [staging / shard.name for shard in shards]
        for file in names:  # TFDS wants to see them
            file.touch()
        tfds.folder_dataset.write_metadata(
            data_dir=staging,
            features=features,
            split_infos=infos,
            version="1.0.0",
            check_data=False,
            description=description,
        )
        for file in names:
            file.unlink()


def _example(table: ImageTable, row: int, image: np.ndarray, encoding: str) -> Mapping[str, Any]:
    example = {
        "image": image if encoding == "raw" else io.BytesIO(_jpeg(image)),
        "path": table.paths[row],
        "sha256": hashlib.sha256(read_contents(table.files[row])).hexdigest(),
    }
    if table.task == "multilabel":
        example["labels"] = table.targets[row]
    else:
        example["label"] = int(table.targets[row].argmax())
    if table.patients is not None:
        example["patient"] = table.patients[row]
    return example


def _whole_numbers(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _jpeg(image: np.ndarray) -> bytes:
    import tensorflow as tf

    return tf.io.encode_jpeg(image, quality=JPEG_QUALITY, chroma_downsampling=False).numpy()


BAD_IMAGES = "bad_images.txt"

_SHARDS = f"{NAME}-*.tfrecord-*"

# In the order in which they are deleted: while prepare.json stands, the folder is known and can be replaced again.
_WRITTEN = (PROVENANCE, TABLE, "dataset_info.json", "features.json", "*.labels.txt", _SHARDS, STATE)


@dataclass
class PreparedFolder:
    """A folder in use by this process.

    Attributes:
        path: The folder.
        state: What stands in `prepare.json`.
        replaces: Whether an older set stands in the folder until the images of this one are checked.
    """

    path: Path
    state: dict[str, Any]
    replaces: bool = False

    @property
    def skipped(self) -> list[list[str]] | None:
        """Path and reason of the images that could not be read; None where they were not checked yet."""
        return self.state.get("skipped")

    def set_skipped(self, skipped: Sequence[Sequence[str]]) -> None:
        """Keep the images that could not be read: from now on it is known which image is in which shard."""
        if self.replaces:
            _delete(self.path)
            self.replaces = False
        self.state["skipped"] = list(map(list, skipped))
        write_json(self.path / STATE, self.state)

    def bytes_replaced(self) -> int:
        """What the shards of an older set take that this one replaces."""
        return sum(file.stat().st_size for file in self.path.glob(_SHARDS)) if self.replaces else 0

    def finished(self) -> bool:
        """Whether everything is written and still there."""
        if self.replaces:
            return False
        try:
            provenance = json.loads((self.path / PROVENANCE).read_text(encoding="utf-8"))
            shards = [((self.path / shard["name"]).stat().st_size, shard["bytes"]) for shard in provenance["shards"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return all(size == expected for size, expected in shards) and (self.path / TABLE).is_file()


@contextlib.contextmanager
def open_folder(path: Path, settings: dict[str, Any], sources: str, *, overwrite: bool) -> Iterator[PreparedFolder]:
    """Hold the lock of the folder `path`, made if needed; go on with what stands there if it is of the same kind.

    Args:
        path: The folder.
        settings: What decides the images; compared with those that stand there.
        sources: Digest of labels and image files; compared likewise.
        overwrite: Replace what was prepared there before, once the images are checked.

    Raises:
        RunError: It holds something else or a set of other settings or sources, is in use, or cannot be written.
    """
    with made_folder(path), locked(path):
        before, state = _read_state(path), {"settings": settings, "sources": sources}
        replaces = overwrite and before is not None
        if before is None:
            _check_free(path)
        elif not replaces:
            _check_same(path, before, settings, sources)
            state = before
        remove_parts(path)
        yield PreparedFolder(path, state, replaces)


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        return {"settings": state["settings"], "sources": state["sources"], **state}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / STATE} cannot be read ({error}). Delete {path}, or choose another --out.") from None


def _check_free(path: Path) -> None:
    others = sorted(item.name for item in path.iterdir() if item.name != BAD_IMAGES)
    if others := [name for name in others if not name.startswith((LOCK, PART))]:
        raise RunError(
            f"{path} holds other files ({', '.join(others[:3])}) and no prepared data set; nothing was written. "
            "Choose another --out."
        )


def _check_same(path: Path, state: dict[str, Any], settings: dict[str, Any], sources: str) -> None:
    changed = [f"{name} {old} → {new}" for name, old, new in differences(state["settings"], settings)]
    if not changed and state["sources"] != sources:
        changed = ["the images, labels, patients or splits have changed since"]
    if changed:
        raise RunError(
            f"{path} was prepared with other settings: {'; '.join(changed)}. "
            "Use the same ones, another --out, or --overwrite to replace it."
        )


def _delete(path: Path) -> None:
    """Delete what a job like this writes, and nothing else."""
    for pattern in _WRITTEN:
        for item in path.glob(pattern):
            item.unlink()


_CHANGE_NOTHING = (
    *("on_bad_image", "allow_leakage", "positive_from", "positive_class", "outside_root", "allow_alike_patients"),
)
"""Settings of the data that change no prepared image and no label."""


def fixed_settings(config: Config, encoding: str) -> dict[str, Any]:
    """What decides the images and labels, as JSON has it."""
    data = {name: value for name, value in asdict(config.data).items() if name not in _CHANGE_NOTHING}
    data["source"] = absolute_source(data["source"])
    if data["image_root"]:
        data["image_root"] = str(Path(data["image_root"]).expanduser().absolute())
    settings = {
        "data": data,
        "images": asdict(config.images),
        "image_size": config.model.image_size,
        "encoding": encoding,
    }
    return json.loads(json.dumps(settings))


def table_digest(table: ImageTable) -> str:
    """What tells this table and its files, by size and time of change, from others."""
    digest = hashlib.sha256()
    for part in (table.task, table.classes, table.paths, table.patients):
        digest.update(repr(part).encode(errors="surrogatepass"))
    digest.update(table.targets.tobytes())
    digest.update(b"" if table.splits is None else table.splits.tobytes())
    stat = functools.cache(os.stat)
    for place in table.files:
        facts = None
        with contextlib.suppress(OSError):
            facts = place and stat(file_of(place))
        digest.update(f"{place} {facts and (facts.st_size, facts.st_mtime_ns)}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def write_provenance(
    folder: PreparedFolder, table: ImageTable, shards: Sequence[Shard], config: Config, encoding: str
) -> None:
    """Write `provenance.json`, which makes the set a finished one."""
    out, source = folder.path, config.data.source
    write_json(
        out / PROVENANCE,
        {
            "source": source,
            "prepared": now(),
            "image_size": config.model.image_size,
            "encoding": encoding,
            "task": table.task,
            "classes": list(table.classes),
            "positive_from": table.positive_from,
            "rows": len(table),
            "images": sum(len(shard.rows) for shard in shards),
            "splits": _splits(shards),
            "shards": [
                {"name": shard.name, "images": len(shard.rows), "bytes": (out / shard.name).stat().st_size}
                for shard in shards
            ],
            "skipped": folder.skipped,
            "notes": list(table.notes),
            "settings": folder.state["settings"],
            "source_sha256": _source_sha256(source),
            "sources_digest": folder.state["sources"],
            "table_sha256": hashlib.sha256((out / TABLE).read_bytes()).hexdigest(),
            "versions": versions() | {"tensorflow-datasets": importlib.metadata.version("tensorflow-datasets")},
        },
    )


def _splits(shards: Sequence[Shard]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard.split] = counts.get(shard.split, 0) + len(shard.rows)
    return counts


def _source_sha256(source: str) -> str | None:
    """Of the table that was read, where it is one file; the images' own stand in the table of the set."""
    file = Path(source.partition(":")[2] if source.startswith("csv_table:") else source).expanduser()
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


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
    from radtransfer.images.pipeline import make_batches

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
