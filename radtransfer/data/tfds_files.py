"""The sets of TensorFlow Datasets on this machine: opened, their features chosen, their images found in place.

Nothing is ever downloaded or prepared without being asked for. Where each image of a set lies, and the values that
stand with it, is found once and kept in the cache folder. The images of a TFRecord set are read in place. Where the
format has no addresses that can be read so (array_record, Riegeli, Parquet), or there are no files
(`tfds.testing.mock_data`), they are copied into the cache folder, as they are encoded, one after the other in one file.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.labels import listed
from radtransfer.data.sheet import USUAL_NAMES
from radtransfer.data.tfrecords import Span, example_parts, read_examples
from radtransfer.errors import DataError, closest_names, near_path
from radtransfer.images.refs import FilePart
from radtransfer.process import require_keras
from radtransfer.runs.cache import cache_folder, write_once

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds


@dataclass(frozen=True)
class KnownSet:
    """What cannot be told from the features of a set.

    Attributes:
        name: The feature that names an image.
        patient: Regular expression whose first group in that name is the patient; None where it is not known.
        findings: What each place of a sequence of labels stands for.
        usual: Those that are read where none are named.
        meanings: What each class of such a label means, in the words of a multi-label table: 1, 0, -1 or nothing.
        tree: What is to be put into TFDS's manual folder, a line per entry.
        advice: What else preparing it needs, a sentence.
    """

    name: str
    patient: str | None = None
    findings: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    tree: tuple[str, ...] = ()
    advice: str = ""


KNOWN_SETS = {
    "diabetic_retinopathy_detection": KnownSet(
        name="name",
        patient=r"^(\d+)_(?:left|right)",
        tree=(
            "train/10_left.jpeg, train/10_right.jpeg, …  (from train.zip)",
            "test/1_left.jpeg, test/1_right.jpeg, …  (from test.zip)",
            "sample/10_left.jpeg, …  (from sample.zip)",
            "trainLabels.csv",
        ),
        advice="TFDS itself fetches the labels of the test images, and all but the original images need "
        "`pip install opencv-python`.",
    ),
    "chexpert": KnownSet(
        name="name",
        patient=r"(patient\d+)",
        findings=(
            *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
            *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
            *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
        ),
        # The five of the CheXpert competition and of Transfusion.
        usual=("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
        meanings={"positive": "1", "negative": "0", "uncertain": "-1", "unmentioned": ""},
        tree=(
            "CheXpert-v1.0-small/train.csv",
            "CheXpert-v1.0-small/valid.csv",
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, …",
            "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg, …",
        ),
    ),
    "patch_camelyon": KnownSet(name="id"),
}

PATH_NAMES = ("name", "filename", "file_name", "image/filename", "path", "image_id", "id")
"""Features that name an image in other sets, the preferred first."""


class ChosenFeatures(NamedTuple):
    """The features that are read.

    Attributes:
        image: The image.
        name: What names it; None: its number does.
        patient: The patient; None where there is none.
        labels: The class; or several of 0 and 1; or the one that holds the findings.
        findings: Names of the findings that are read from a sequence of labels, sorted; else empty.
        notes: What was guessed and what is not used.
    """

    image: str
    name: str | None
    patient: str | None
    labels: tuple[str, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def value_features(features: "tfds.features.FeaturesDict") -> tuple[str, ...]:
    """The features that hold one value per example, or a list of labels."""
    import tensorflow_datasets as tfds

    def holds_values(feature: "tfds.features.FeatureConnector") -> bool:
        if isinstance(feature, tfds.features.Sequence):
            return isinstance(feature.feature, tfds.features.ClassLabel)
        return isinstance(feature, tfds.features.Tensor) and feature.shape == ()

    return tuple(name for name, feature in sorted(features.items()) if holds_values(feature))


def choose_features(
    features: "tfds.features.FeaturesDict", settings: DataSettings, known: KnownSet | None
) -> ChosenFeatures:
    """The features that the settings name, and for the others those that are known, or have usual names and types."""
    values, notes = value_features(features), []
    image = _image(features)
    name = known.name if known else _first(PATH_NAMES, values)
    if settings.path_column:
        name = _named(settings.path_column, values, "path")
    patient = _named(settings.patient_column, values, "patient") if settings.patient_column else None
    squeezed = {"".join(filter(str.isalnum, value.lower())): value for value in reversed(values)}
    usual = _first(USUAL_NAMES["patient"], squeezed)
    if patient is None and settings.patient_regex is None and usual is not None:
        patient = squeezed[usual]
        notes.append(f"patients from feature {patient!r}")
    labels, findings = _labels(features, settings, known, [value for value in values if value not in (name, patient)])
    used = {image, name, patient, *labels}
    if unused := [feature for feature in sorted(features) if feature not in used]:
        notes.append(f"features not used: {listed(unused)}")
    return ChosenFeatures(image, name, patient, labels, findings, tuple(notes))


def _image(features: "tfds.features.FeaturesDict") -> str:
    import tensorflow_datasets as tfds

    images = [name for name, feature in features.items() if type(feature) is tfds.features.Image]
    images = [name for name in images if np.dtype(features[name].np_dtype).name in ("uint8", "uint16")]
    if len(images) == 1 or "image" in images:
        return "image" if "image" in images else images[0]
    found = listed(images) if images else f"none among {listed(sorted(features))}"
    raise DataError(f"Expected a TFDS data set with one Image feature of 8 or 16 bits. Received: {found}.")


def _labels(
    features: "tfds.features.FeaturesDict", settings: DataSettings, known: KnownSet | None, values: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The label features, and the findings in a sequence of labels."""
    import tensorflow_datasets as tfds

    lists = [name for name in values if isinstance(features[name], tfds.features.Sequence)]
    if known and known.findings:
        chosen = [_named(name, known.findings, "label") for name in settings.label_column] or known.usual
        return tuple(lists[:1]), tuple(sorted(chosen))
    plain = [name for name in values if name not in lists]
    if settings.label_column:
        return tuple(_named(name, plain, "label") for name in settings.label_column), ()
    classes = [name for name in plain if isinstance(features[name], tfds.features.ClassLabel)]
    label = _first(USUAL_NAMES["label"], classes) or (classes[0] if len(classes) == 1 else None)
    if label is None:
        raise DataError(
            f"Expected a TFDS data set with one ClassLabel. Received: {listed(classes) or 'none'}; its features are "
            f"{listed(sorted(features))}. Name the label with --label-column NAME."
        )
    return (label,), ()


def _named(name: str, known: Sequence[str], role: str) -> str:
    found = [item for item in known if item == name] or [item for item in known if item.lower() == name.lower()]
    if found:
        return found[0]
    raise DataError(
        f"{name!r} (--{role}-column) is not in this TFDS data set. It has {listed(known, limit=20) or 'nothing'}. "
        "Name one of these.",
        misfits=(f"{role}_column",),
    )


def _first(preferred: Sequence[str], found: Collection[str]) -> str | None:
    return next((name for name in preferred if name in found), None)


METADATA = "dataset_info.json"
"""The file that makes a folder a data set of TFDS."""

_MANUAL = Path("downloads") / "manual"


def open_builder(location: str, data_dir: str | None) -> "tfds.core.DatasetBuilder":
    """The builder of the set in the folder `location`, or of the set of that NAME[/CONFIG][:VERSION].

    Args:
        location: A folder that holds the set, or exactly one below it; or a name that TFDS knows.
        data_dir: Where TFDS keeps its sets; default: its own default.
    """
    folder = Path(location).expanduser()
    if folder.is_dir():
        return _from_folder(set_folder(folder))
    require_keras()
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return tfds.builder(location, data_dir=data_dir)
        except tfds.core.registered.DatasetNotFoundError:
            raise DataError(_unknown(location)) from None
        except (AssertionError, ValueError, RuntimeError, FileNotFoundError) as error:
            reason = re.sub(r'^Failed to construct dataset .*?}": ', "", str(error)).strip().splitlines()[0]
            raise DataError(f"tfds:{location}: {reason}{_configs(location)}") from None


def set_folder(folder: Path) -> Path:
    """The folder of the one TFDS set that lies in `folder` or below it."""
    if (folder / METADATA).is_file():
        return folder
    # NAME/CONFIG/VERSION is as deep as TFDS goes.
    found = sorted(file.parent for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/{METADATA}"))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(item.relative_to(folder)) for item in found[:6])
        raise DataError(f"{folder} holds {len(found)} TFDS data sets ({shown}). Name the folder of one of them.")
    raise DataError(
        f"{folder} holds no TFDS data set: expected a {METADATA} in it or below it. Give the folder that TFDS or "
        "`radtransfer data prepare` wrote."
    )


def read_split(
    builder: "tfds.core.DatasetBuilder", split: str, *, image: str, location: str, data_dir: str | None
) -> "tf.data.Dataset":
    """The examples of one split in the order in which they are stored, the feature `image` undecoded."""
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return builder.as_dataset(
                split=split,
                shuffle_files=False,
                decoders={image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
            )
        except AssertionError:
            raise DataError(_not_prepared(builder, location, data_dir)) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the remarks of TFDS to its own developers off the terminal."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _from_folder(folder: Path) -> "tfds.core.DatasetBuilder":
    require_keras()
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # whatever its parsers meet in a damaged file
            raise DataError(f"{folder}: TFDS cannot open this data set ({error}). Prepare it again.") from None


def _unknown(location: str) -> str:
    import tensorflow_datasets as tfds

    hint = closest_names(re.split("[/:]", location)[0], tfds.list_builders(with_community_datasets=False))
    # Hundreds of names help nobody.
    hint = hint if hint.startswith("Did") else "A prepared set is also found by its folder."
    meant = near_path(location) or f" {hint}"
    return f"tfds:{location} is neither a folder nor a data set that TFDS knows.{meant}"


def _configs(location: str) -> str:
    """A sentence with the configs of the set, if there is one and it has some."""
    import tensorflow_datasets as tfds

    try:
        configs = list(tfds.builder_cls(re.split("[/:]", location)[0]).builder_configs)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        return ""
    return f" Its configs: {', '.join(configs)}." if configs else ""


def _not_prepared(builder: "tfds.core.DatasetBuilder", location: str, data_dir: str | None) -> str:
    import tensorflow_datasets as tfds

    root, known = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser(), KNOWN_SETS.get(builder.name)
    where = f", data_dir={str(root)!r}" if data_dir else ""
    # Not `tfds build`: that command also needs Apache Beam.
    command = f"import tensorflow_datasets as tfds; tfds.builder({location!r}{where}).download_and_prepare()"
    lines = [f"tfds:{location} is not prepared in {root}"]
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        terms = f" ({builder.info.homepage})" if builder.info.homepage else ""
        lines[0] += f", and its images must be downloaded by hand{terms}. Put them exactly there:"
        lines.append(f"  {root / _MANUAL}/")
        # What a builder says of itself, where nothing better is known.
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS.strip().splitlines()
        lines += [f"    {entry.strip()}" for entry in (known.tree if known else instructions)]
        lines.append("Then prepare it once:")
    else:
        lines[0] += ". Prepare it once, which downloads it:"
    lines.append(f'  python -c "{command}"')
    if known and known.advice:
        lines.append(known.advice)
    if importlib.util.find_spec("importlib_resources") is None:
        lines.append("TFDS needs `pip install importlib_resources` for that, which it does not say.")
    return "\n".join(lines)


if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_VERSION = 1
"""Raised with every change of what is kept, so that nothing older is read."""

_INDEX, _COPIES = "index.json", "images.bin"


class SetIndex(NamedTuple):
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


class Source(NamedTuple):
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
    """The index of the set, from the cache folder where it is there."""
    shards = _shards(source)
    in_place = bool(shards) and source.builder.info.file_format.value == "tfrecord"
    if shards:
        facts = [[str(file), (status := file.stat()).st_size, status.st_mtime_ns] for file, _, _ in shards]
        text = json.dumps([_VERSION, source.image, source.features, source.splits, facts])
        key = hashlib.sha256(text.encode()).hexdigest()
    else:
        key = _contents_key(source)

    def write(draft: Path) -> None:
        rows = _scan(source, shards) if in_place else _copy(source, draft / _COPIES)
        columns = [list(column) for column in zip(*rows, strict=True)]
        if not columns:
            raise DataError(f"tfds:{source.location} holds no examples in its splits {', '.join(source.splits)}.")
        files = [str(file) for file, _, _ in shards] if in_place else [_COPIES]
        index = {"files": files, "features": source.features, "columns": columns}
        (draft / _INDEX).write_text(json.dumps(index), encoding="utf-8")

    folder = cache_folder() / "tfds" / f"{source.builder.name}-{key[:16]}"
    folder, notes = write_once(folder, write, what=f"The index of tfds:{source.location}")
    if not in_place:
        notes.append(f"the images of tfds:{source.location} cannot be read in place and were copied to {folder}")
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    files = [folder / file for file in index["files"]]  # an absolute path stays what it is
    numbers, offsets, lengths, splits, *values = index["columns"]
    places = tuple(map(FilePart, (files[number] for number in numbers), offsets, lengths))
    return SetIndex(places, tuple(splits), dict(zip(index["features"], values, strict=True)), tuple(notes))


def _shards(source: Source) -> list[tuple[Path, str, int]]:
    """File, split and number of examples of every shard; nothing where no shard of the set is a file."""
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
            yield [number, span.offset, span.length, split, *_kept(source, example)]
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
                yield split, image, _kept(source, example)


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
        yield record[span.offset : span.offset + span.length], values


def _kept(source: Source, values: Mapping[str, Sequence[Any]]) -> list[Any]:
    """What JSON can hold of each feature that is kept: the list, or its one value, None where there is none."""
    features, kept = source.builder.info.features, []
    for name in source.features:
        plain = [
            value.decode(errors="replace") if isinstance(value, bytes) else getattr(value, "item", lambda v=value: v)()
            for value in values.get(name, ())
        ]
        kept.append(plain if features[name].shape != () else plain[0] if plain else None)
    return kept


def _contents_key(source: Source) -> str:
    """The key of a set without files: nothing but its examples tells it from another."""
    digest = hashlib.sha256(f"{_VERSION} {source.features}".encode())
    for example in _examples(source):
        digest.update(repr(example).encode())
    return digest.hexdigest()
