"""The shards of a prepared data set: which image goes where, and how one shard is written.

A shard is a TFRecord file of `tf.train.Example`s, which TensorFlow Datasets reads; the bytes of an image stand in it
as they are, so that it can also be read on its own.
"""

import hashlib
import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.tfds.prepared_table import StoredImage
from radtransfer.datasets.tfds.records import read_examples
from radtransfer.image_place import read_contents
from radtransfer.result_folder import files_together
from radtransfer.runs import whole_file
from radtransfer.splits.leaks import frame_identities, image_identities

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from radtransfer.pipeline.batches import Batches

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
