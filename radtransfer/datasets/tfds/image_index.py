"""Where each image of a TFDS set lies, and the values that stand with it; found once and kept in the cache folder.

The images of a TFRecord set are read in place. Where the format has no addresses that can be read so (array_record,
Riegeli, Parquet), or there are no files (`tfds.testing.mock_data`), they are copied into the cache folder, as they
are encoded, one after the other in one file.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.cache import cache_folder
from radtransfer.datasets.cached_images import write_once
from radtransfer.datasets.tfds.builder import quiet, read_split
from radtransfer.datasets.tfds.records import Span, example_parts, read_examples
from radtransfer.errors import DataError
from radtransfer.image_place import FilePart

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_VERSION = 1
"""Raised with every change of what is kept, so that nothing older is read."""

_INDEX, _COPIES = "index.json", "images.bin"


@dataclass(frozen=True)
class SetIndex:
    """The examples of some splits, in the order of the set.

    Attributes:
        places: Where each image lies.
        splits: The split of each.
        values: What each feature holds: an integer, a number, a text, or a list of integers for each example.
        notes: What should be said of it.
    """

    places: tuple[FilePart, ...]
    splits: tuple[str, ...]
    values: dict[str, list[Any]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A set, and what of it is indexed.

    Attributes:
        builder: Of TFDS.
        location: As the user named it.
        data_dir: Where TFDS looks for it; None for its default.
        image: The feature that is the image.
        features: Those whose values are kept.
        splits: In this order.
    """

    builder: "tfds.core.DatasetBuilder"
    location: str
    data_dir: str | None
    image: str
    features: tuple[str, ...]
    splits: tuple[str, ...]


def index_set(source: Source) -> SetIndex:
    """The index of the set, from the cache folder where it is there.

    Raises:
        DataError: The set was not prepared, is incomplete or damaged.
        DiskError: The index does not fit on the disk.
    """
    shards = _shards(source)
    in_place = bool(shards) and source.builder.info.file_format.value == "tfrecord"
    key = _key(source, [shard for shard, _, _ in shards]) if shards else _contents_key(source)

    def write(draft: Path) -> None:
        rows = _scan(source, shards) if in_place else _copy(source, draft / _COPIES)
        _write_index(draft, source, [shard for shard, _, _ in shards] if in_place else [_COPIES], rows)

    folder = cache_folder() / "tfds" / f"{source.builder.name}-{key[:16]}"
    folder, notes = write_once(folder, write, what=f"The index of tfds:{source.location}")
    if not in_place:
        notes.append(f"the images of tfds:{source.location} cannot be read in place and were copied to {folder}")
    return _read_index(folder, tuple(notes))


def _shards(source: Source) -> list[tuple[Path, str, int]]:
    """File, split and number of examples of every shard; nothing where no shard of the set is a file.

    Raises:
        DataError: Some of them are missing.
    """
    infos = source.builder.info.splits
    shards = [
        (Path(file), split, length)
        for split in source.splits
        if split in infos
        for file, length in zip(infos[split].filepaths, infos[split].shard_lengths, strict=True)
    ]
    missing = [file for file, _, _ in shards if not file.is_file()]
    if missing and len(missing) < len(shards):
        raise DataError(
            f"tfds:{source.location} is incomplete: {len(missing)} of {len(shards)} shards are missing, such as "
            f"{missing[0]}. Copy or prepare it again."
        )
    return [] if missing else shards


def _scan(source: Source, shards: Sequence[tuple[Path, str, int]]) -> Iterator[list[Any]]:
    """A row per example: shard, offset, length, split and values."""
    for number, (file, split, expected) in enumerate(shards):
        found = 0
        for span, example in read_examples(file, image=source.image):
            found += 1
            values = [_plain(example.get(name, []), name in _lists(source)) for name in source.features]
            yield [number, span.offset, span.length, split, *values]
        if found != expected:
            raise DataError(
                f"{file} holds {found} examples, its data set says {expected}. Copy or prepare the data set again."
            )


def _copy(source: Source, file: Path) -> Iterator[list[Any]]:
    """Write the images to `file`; a row for each."""
    with file.open("wb") as copies:
        for split, image, values in _examples(source):
            offset = copies.tell()
            copies.write(image)
            yield [0, offset, len(image), split, *values]


def _examples(source: Source) -> Iterator[tuple[str, bytes, list[Any]]]:
    """Split, encoded image and values of every example, as TFDS reads them."""
    with quiet():
        for split in source.splits:
            if source.builder.info.splits and source.builder.info.file_format.value == "array_record":
                examples = _by_number(source, split)
            else:
                examples = _in_turn(source, split)
            for image, example in examples:
                yield split, image, [_plain(example[name], name in _lists(source)) for name in source.features]


def _in_turn(source: Source, split: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    examples = read_split(source.builder, split, image=source.image, location=source.location, data_dir=source.data_dir)
    for example in examples.as_numpy_iterator():
        image = example.pop(source.image)
        yield (
            image,
            {name: value.tolist() if getattr(value, "shape", ()) else [value] for name, value in example.items()},
        )


def _by_number(source: Source, split: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The examples of a format that `tf.data` does not read."""
    import tensorflow_datasets as tfds

    records = source.builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    for number in range(len(records)):
        record, where = records[number], f"tfds:{source.location}, example {number} of {split}"
        span, values = example_parts(record, Span(0, len(record)), image=source.image, where=where)
        yield record[span.offset : span.offset + span.length], defaultdict(list, values)


def _lists(source: Source) -> frozenset[str]:
    """The features that hold a list per example."""
    features = source.builder.info.features
    return frozenset(name for name in source.features if features[name].shape != ())


def _plain(values: Sequence[Any], is_list: bool) -> Any:
    """What JSON can hold: the list, or its one value, None where there is none."""
    plain = [value.decode(errors="replace") if isinstance(value, bytes) else _number(value) for value in values]
    return plain if is_list else plain[0] if plain else None


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _key(source: Source, shards: Sequence[Path]) -> str:
    facts = [[str(shard), (status := shard.stat()).st_size, status.st_mtime_ns] for shard in shards]
    text = json.dumps([_VERSION, source.image, source.features, source.splits, facts])
    return hashlib.sha256(text.encode()).hexdigest()


def _contents_key(source: Source) -> str:
    """The key of a set without files: nothing but its examples tells it from another."""
    digest = hashlib.sha256(f"{_VERSION} {source.features}".encode())
    for example in _examples(source):
        digest.update(repr(example).encode())
    return digest.hexdigest()


def _write_index(folder: Path, source: Source, files: Sequence[Path | str], rows: Iterator[list[Any]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    if not columns:
        raise DataError(f"tfds:{source.location} holds no examples in its splits {', '.join(source.splits)}.")
    index = {"files": list(map(str, files)), "features": source.features, "columns": columns}
    (folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")


def _read_index(folder: Path, notes: tuple[str, ...]) -> SetIndex:
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    files = [folder / file for file in index["files"]]  # an absolute path stays what it is
    numbers, offsets, lengths, splits, *values = index["columns"]
    places = tuple(map(FilePart, (files[number] for number in numbers), offsets, lengths))
    return SetIndex(places, tuple(splits), dict(zip(index["features"], values, strict=True)), notes)
