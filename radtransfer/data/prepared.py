"""Prepare a data set: write its images at working resolution, so that training need not decode and resize large ones.

    read the table -> check the images -> decode and resize, shard by shard -> index -> metadata

The folder is a TFDS data set; `images.csv` beside the shards has what `ImageTable` needs. Shards are TFRecord files,
written atomically, so a killed job continues with the missing ones. `prepare.json` has the settings, a digest of the
sources, and the unreadable images; a job that continues must have the same. `provenance.json` is written last.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from radtransfer.config.schema import Config
from radtransfer.data.image_check import CheckedImages, check_images
from radtransfer.data.readers import absolute_source, read_table
from radtransfer.data.splits import frame_identities, image_identities
from radtransfer.data.table import ImageTable, show_notes
from radtransfer.data.tfds import PROVENANCE, STATE, TABLE, write_table
from radtransfer.data.tfrecords import read_examples
from radtransfer.errors import ConfigError, DataError, DiskError, RunError
from radtransfer.files import PART, atomic_files, size_text
from radtransfer.images.refs import file_of, read_contents
from radtransfer.process import Progress, resolve_device, versions
from radtransfer.runs.folder import atomic_write, differences, now, remove_parts, write_json
from radtransfer.runs.lock import LOCK, locked, made_folder

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SHARD_BYTES = 256_000_000  # approximate size of a shard
NAME = "radtransfer"  # TFDS name of a prepared set

BAD_IMAGES = "bad_images.txt"

JPEG_QUALITY = 95
_JPEG_BYTES_PER_PIXEL = 0.8  # upper estimate for photographs at that quality

_BATCH_BYTES = 64_000_000

_SPLITS = {"train": "train", "val": "validation", "test": "test", "": "unused"}  # our split to TFDS split

_SHARDS = f"{NAME}-*.tfrecord-*"

# In the order of deletion: prepare.json, which marks the folder as ours, is last.
_WRITTEN = (PROVENANCE, TABLE, "dataset_info.json", "features.json", "*.labels.txt", _SHARDS, STATE)

_CHANGE_NOTHING = (
    *("on_bad_image", "allow_leakage", "positive_from", "positive_class", "outside_root", "allow_alike_patients"),
)
"""Data settings that change neither images nor labels."""


@dataclass(frozen=True)
class Prepared:
    """A prepared data set."""

    path: Path
    images: int
    shards: int
    bytes: int  # of all shards
    splits: dict[str, int]  # TFDS split to images
    skipped: int  # unreadable images


def prepare_set(
    config: Config,
    *,
    out: Path,
    encoding: Literal["raw", "jpeg"] = "raw",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write the images of `config.data` to the folder `out`, or continue an interrupted job.

    It uses `data`, `images`, `model.image_size` and `system` of `config`. `raw` is uint8 (height, width, 3), RGB;
    `jpeg` has quality 95 without chroma subsampling. `overwrite` replaces an earlier prepared set.

    Raises:
        ConfigError: The settings are contradictory, or `out` contains the original images.
        DataError: The images or labels cannot be used.
        RunError: `out` is in use, or contains other files or a set with other settings.
        DiskError: The disk is full or fails.
    """
    progress = progress or Progress()
    table = files_as_patients(read_table(config.data, progress=progress))
    show_notes(table.notes, progress)
    top = out.expanduser().absolute()
    inside = next((ref for ref in table.files if ref and top in file_of(ref).absolute().parents), None)
    if inside is not None:
        raise ConfigError(f"--out {out} contains the original images ({file_of(inside)}). Choose another folder.")
    settings, sources = _fixed_settings(config, encoding), _table_digest(table)
    with _open_folder(out, settings, sources, overwrite=overwrite) as (state, replaces):
        skipped = {path for path, _ in state.get("skipped") or ()}
        if skipped:
            table = table.select(np.array([path not in skipped for path in table.paths]))
        if not replaces and _is_finished(out):
            progress.note(f"{out} is already prepared from the same data with the same settings")
        else:
            _Job(out, state, replaces, table, config, encoding, progress).write()
    provenance = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
    return Prepared(
        path=out,
        images=provenance["images"],
        shards=len(provenance["shards"]),
        bytes=sum(shard["bytes"] for shard in provenance["shards"]),
        splits=provenance["splits"],
        skipped=len(provenance["skipped"]),
    )


def files_as_patients(table: ImageTable) -> ImageTable:
    """`table` with files as patients if patients are unknown and some file has several frames.

    A prepared set stores frames separately, so nothing else would keep them together.
    """
    identities = image_identities(table)
    if table.patients is not None or len(set(_same_images(table).tolist())) == len(set(identities)):
        return table
    names: dict[Hashable, str] = {}
    for identity, path in zip(identities, table.paths, strict=True):
        names[identity] = min(path, names.get(identity, path))
    note = "frames of one file stay together: the file is the patient"
    return replace(table, patients=tuple(names[identity] for identity in identities), notes=(*table.notes, note))


def _same_images(table: ImageTable) -> np.ndarray:
    """The first row with the same image as each row, int (rows,); frames are different images."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(frame_identities(table))])


def _is_finished(out: Path) -> bool:
    """Whether everything is written and still present."""
    try:
        provenance = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
        shards = [((out / shard["name"]).stat().st_size, shard["bytes"]) for shard in provenance["shards"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(size == expected for size, expected in shards) and (out / TABLE).is_file()


@contextlib.contextmanager
def _open_folder(
    path: Path, settings: dict[str, Any], sources: str, *, overwrite: bool
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Lock the folder `path`; yields its state (`prepare.json`), and whether to replace an older set.

    Raises RunError if its settings or sources differ, unless `overwrite`.
    """
    with made_folder(path), locked(path):
        before, state = None, {"settings": settings, "sources": sources}
        try:
            before = json.loads((path / STATE).read_text(encoding="utf-8"))
            before = {"settings": before["settings"], "sources": before["sources"], **before}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path / STATE} cannot be read ({error}). Delete {path}, or choose another --out."
            ) from None
        if before is None:
            others = sorted(item.name for item in path.iterdir() if item.name != BAD_IMAGES)
            if others := [name for name in others if not name.startswith((LOCK, PART))]:
                raise RunError(
                    f"{path} contains other files ({', '.join(others[:3])}) and no prepared data set; nothing was "
                    "written. Choose another --out."
                )
        elif not overwrite:
            changed = [f"{name} {old} → {new}" for name, old, new in differences(before["settings"], settings)]
            if not changed and before["sources"] != sources:
                changed = ["the images, labels, patients or splits have changed since"]
            if changed:
                raise RunError(
                    f"{path} was prepared with other settings: {'; '.join(changed)}. "
                    "Use the same ones, another --out, or --overwrite to replace it."
                )
            state = before
        remove_parts(path)
        yield state, overwrite and before is not None


def _fixed_settings(config: Config, encoding: str) -> dict[str, Any]:
    """The settings that determine images and labels, as JSON."""
    data = {name: value for name, value in asdict(config.data).items() if name not in _CHANGE_NOTHING}
    data["source"] = absolute_source(data["source"])
    if data["image_root"]:
        data["image_root"] = str(Path(data["image_root"]).expanduser().absolute())
    size = config.model.image_size
    settings = {"data": data, "images": asdict(config.images), "image_size": size, "encoding": encoding}
    return json.loads(json.dumps(settings))


def _table_digest(table: ImageTable) -> str:
    """A digest of the table and the size and modification time of its files."""
    digest = hashlib.sha256()
    for part in (table.task, table.classes, table.paths, table.patients):
        digest.update(repr(part).encode(errors="surrogatepass"))
    digest.update(table.targets.tobytes())
    digest.update(b"" if table.splits is None else table.splits.tobytes())
    stat = functools.cache(os.stat)
    for ref in table.files:
        facts = None
        with contextlib.suppress(OSError):
            facts = ref and stat(file_of(ref))
        digest.update(f"{ref} {facts and (facts.st_size, facts.st_mtime_ns)}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


class _Shard(NamedTuple):
    """A file of a prepared set."""

    name: str
    split: str  # TFDS split
    rows: tuple[int, ...]  # of the table


@dataclass
class _Job:
    """Writes a set into a locked folder; an older set is kept until the new images are checked."""

    out: Path
    state: dict[str, Any]  # content of `prepare.json`; after the check with "skipped", the unreadable images
    replaces: bool
    table: ImageTable
    config: Config
    encoding: str
    progress: Progress

    def __post_init__(self):
        size = self.config.model.image_size
        self.image_bytes = size * size * 3 if self.encoding == "raw" else int(size * size * _JPEG_BYTES_PER_PIXEL)

    def write(self) -> None:
        """Write the missing shards, the table, the TFDS metadata, and last the provenance."""
        checked, out = None, self.out
        if self.state.get("skipped") is None:
            checked = self._check(self.table)
            self.table = checked.table
        shards = self._plan()
        missing = [shard for shard in shards if self.replaces or not self._is_whole(shard)]
        needed = sum(len(shard.rows) for shard in missing) * (self.image_bytes + 300)
        replaced = sum(file.stat().st_size for file in out.glob(_SHARDS)) if self.replaces else 0
        free = shutil.disk_usage(out).free + replaced
        if needed > free:
            raise DiskError(
                f"{out} needs {size_text(needed)}, and {size_text(free)} are free. Free some space, choose another "
                f"--out, a smaller --image-size{', or --encoding jpeg.' if self.encoding == 'raw' else '.'}"
            )
        if checked is not None:  # the shard of each image is now fixed
            for item in (item for pattern in _WRITTEN * self.replaces for item in out.glob(pattern)):
                item.unlink()
            self.replaces = False
            self.state["skipped"] = [[image.path, image.reason] for image in checked.bad]
            write_json(out / STATE, self.state)
        if missing:
            rows = np.arange(len(self.table))
            if checked is None:
                rows = np.array([row for shard in missing for row in shard.rows])
                checked = self._check(self.table.select(rows))
                if checked.bad:
                    bad = checked.bad[0]
                    raise DataError(f"{bad.path!r} cannot be read any more: {bad.reason}. Repair it.")
            self._write_shards(missing, checked, rows)
        # Shard, offset, length and SHA-256 of each image.
        stored = {
            row: (shard.name, span.offset, span.length, values["sha256"][0].decode())
            for shard in shards
            for row, (span, values) in zip(shard.rows, read_examples(out / shard.name, image="image"), strict=True)
        }
        write_table(out, self.table, [stored[row] for row in _same_images(self.table).tolist()])
        self._write_metadata(shards)
        self._write_provenance(shards)

    def _check(self, table: ImageTable) -> CheckedImages:
        return check_images(
            table,
            reading=self.config.images,
            workers=resolve_device(self.config.system).workers,
            on_bad_image=self.config.data.on_bad_image,
            report_file=self.out / BAD_IMAGES,
            progress=self.progress,
        )

    def _plan(self) -> list[_Shard]:
        """The shards, with each image once; all in `train` unless there is one fixed split."""
        rows_of: dict[str, list[int]] = {}
        splits = self.table.splits
        for row in np.unique(_same_images(self.table)).tolist():
            split = str(splits[0, row]) if splits is not None and len(splits) == 1 else "train"
            rows_of.setdefault(_SPLITS[split], []).append(row)
        per_shard = max(1, SHARD_BYTES // self.image_bytes)
        shards = []
        for split, rows in rows_of.items():
            count = -(-len(rows) // per_shard)
            for number, part in enumerate(np.array_split(rows, count)):
                name = f"{NAME}-{split}.tfrecord-{number:05d}-of-{count:05d}"
                shards.append(_Shard(name, split, tuple(part.tolist())))
        return shards

    def _is_whole(self, shard: _Shard) -> bool:
        """Whether the shard exists with all its images."""
        file = self.out / shard.name
        try:
            return file.is_file() and sum(1 for _ in read_examples(file, image="image")) == len(shard.rows)
        except DataError:
            return False

    def _features(self) -> "tfds.features.FeaturesDict":
        from tensorflow_datasets import features as kinds

        shape = (self.config.model.image_size,) * 2 + (3,)
        if self.encoding == "raw":
            image = kinds.Tensor(shape=shape, dtype=np.uint8, encoding=kinds.Encoding.BYTES)
        else:
            image = kinds.Image(shape=shape, encoding_format="jpeg")
        features = {"image": image, "path": kinds.Text(), "sha256": kinds.Text()}
        if self.table.task == "multilabel":
            features["labels"] = kinds.Tensor(shape=(len(self.table.classes),), dtype=np.float32)
        else:
            features["label"] = kinds.ClassLabel(names=list(self.table.classes))
        if self.table.patients is not None:
            features["patient"] = kinds.Text()
        return kinds.FeaturesDict(features)

    def _example(self, row: int, image: np.ndarray) -> dict[str, Any]:
        import tensorflow as tf

        table = self.table
        if self.encoding == "jpeg":
            encoded = tf.io.encode_jpeg(image, quality=JPEG_QUALITY, chroma_downsampling=False)
            image = io.BytesIO(encoded.numpy())
        sha256 = hashlib.sha256(read_contents(table.files[row])).hexdigest()
        example = {"image": image, "path": table.paths[row], "sha256": sha256}
        if table.task == "multilabel":
            example["labels"] = table.targets[row]
        else:
            example["label"] = int(table.targets[row].argmax())
        if table.patients is not None:
            example["patient"] = table.patients[row]
        return example

    def _write_shards(self, shards: Sequence[_Shard], checked: CheckedImages, rows: np.ndarray) -> None:
        """Write the shards atomically; `rows` are the table rows of the `checked` images."""
        import tensorflow as tf

        from radtransfer.images.pipeline import make_batches

        size = self.config.model.image_size
        if deep := sum(facts.deep for facts in checked.facts):
            self.progress.note(f"{deep} images have more than 8 bits and are rounded to 8")
        batches = make_batches(
            checked.table.paths,
            checked.table.files,
            checked.facts,
            checked.table.targets,
            image_size=size,
            reading=self.config.images,
            batch_size=min(32, max(1, _BATCH_BYTES // (size * size * 12))),
            workers=resolve_device(self.config.system).workers,
        )
        features = self._features()
        position = {row: number for number, row in enumerate(rows.tolist())}
        total, done = sum(len(shard.rows) for shard in shards), 0
        for shard in shards:
            epoch, left = batches.in_order(np.array([position[row] for row in shard.rows])), iter(shard.rows)
            with atomic_write(self.out / shard.name) as part, tf.io.TFRecordWriter(str(part)) as writer:
                for images, _, weights in epoch:
                    for image in np.clip(np.rint(images.numpy()[weights.numpy() > 0]), 0, 255).astype(np.uint8):
                        example = features.serialize_example(self._example(next(left), image))
                        # Otherwise the order of features differs between processes.
                        writer.write(tf.train.Example.FromString(example).SerializeToString(deterministic=True))
                        done += 1
                    self.progress.count("images prepared", done, total)
                writer.flush()

    def _write_metadata(self, shards: Sequence[_Shard]) -> None:
        """Write the files that TFDS needs: `dataset_info.json`, `features.json` and the class names."""
        import tensorflow_datasets as tfds

        out, size = self.out, self.config.model.image_size
        source = self.config.data.source
        description = f"Prepared by radtransfer from {source} at {size}×{size} pixels; see {PROVENANCE}."
        if self.table.task == "multilabel":
            description += f" labels: {', '.join(self.table.classes)}; NaN is unknown."
        of_split: dict[str, list[_Shard]] = {}
        for shard in shards:
            of_split.setdefault(shard.split, []).append(shard)
        infos = [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(shard.rows) for shard in parts],
                num_bytes=sum((out / shard.name).stat().st_size for shard in parts),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=out, dataset_name=NAME, split=split, filetype_suffix="tfrecord"
                ),
            )
            for split, parts in of_split.items()
        ]
        with atomic_files(out, first="*") as staging:
            names = [staging / shard.name for shard in shards]
            for file in names:  # TFDS checks that they exist
                file.touch()
            tfds.folder_dataset.write_metadata(
                data_dir=staging,
                features=self._features(),
                split_infos=infos,
                version="1.0.0",
                check_data=False,
                description=description,
            )
            for file in names:
                file.unlink()

    def _write_provenance(self, shards: Sequence[_Shard]) -> None:
        """Write `provenance.json`, which completes the set."""
        out, source, table = self.out, self.config.data.source, self.table
        splits = Counter()
        for shard in shards:
            splits[shard.split] += len(shard.rows)
        file = Path(source.partition(":")[2] if source.startswith("csv_table:") else source).expanduser()
        write_json(
            out / PROVENANCE,
            {
                "source": source,
                "prepared": now(),
                "image_size": self.config.model.image_size,
                "encoding": self.encoding,
                "task": table.task,
                "classes": list(table.classes),
                "positive_from": table.positive_from,
                "rows": len(table),
                "images": splits.total(),
                "splits": dict(splits),
                "shards": [
                    {"name": shard.name, "images": len(shard.rows), "bytes": (out / shard.name).stat().st_size}
                    for shard in shards
                ],
                "skipped": self.state["skipped"],
                "notes": list(table.notes),
                "settings": self.state["settings"],
                "source_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None,
                "sources_digest": self.state["sources"],
                "table_sha256": hashlib.sha256((out / TABLE).read_bytes()).hexdigest(),
                "versions": versions() | {"tensorflow-datasets": importlib.metadata.version("tensorflow-datasets")},
            },
        )
