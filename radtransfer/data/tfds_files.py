"""Local sets of TensorFlow Datasets: open one, choose its features, and index its images.

Nothing is downloaded or prepared. The position of each image and its values are indexed once and cached. Images of a
TFRecord set are read in place; those of other formats (array_record, Riegeli, Parquet) and of sets without files
(`tfds.testing.mock_data`) are copied, still encoded, to one file in the cache folder.
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
from radtransfer.errors import DataError, closest_names, suggest_path
from radtransfer.images.refs import FilePart
from radtransfer.process import require_keras
from radtransfer.runs.cache import cache_folder, write_once

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclass(frozen=True)
class KnownSet:
    """Facts about a set that its features do not contain."""

    name: str  # feature with the name of an image
    patient: str | None = None  # regular expression; its first group in the name is the patient
    findings: tuple[str, ...] = ()  # names of the entries of a sequence of labels
    usual: tuple[str, ...] = ()  # the default among `findings`
    meanings: Mapping[str, str] = field(default_factory=dict)  # class of such a label to "1", "0", "-1" or ""
    tree: tuple[str, ...] = ()  # contents of the manual folder of TFDS, a line per entry
    advice: str = ""  # further requirements of its preparation


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
        advice="TFDS downloads the labels of the test images; all configs but the original images need "
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
"""Features with the name of an image in other sets, in order of preference."""


class ChosenFeatures(NamedTuple):
    """The features to read."""

    image: str
    name: str | None  # None: images are named by their number
    patient: str | None
    labels: tuple[str, ...]  # the class; or several 0/1 features; or the sequence of findings
    findings: tuple[str, ...]  # sorted names of the findings to read from a sequence
    notes: tuple[str, ...]  # what was guessed and what is not used


def value_features(features: "tfds.features.FeaturesDict") -> tuple[str, ...]:
    """The features with one value per example or a list of labels."""
    import tensorflow_datasets as tfds

    def holds_values(feature: "tfds.features.FeatureConnector") -> bool:
        if isinstance(feature, tfds.features.Sequence):
            return isinstance(feature.feature, tfds.features.ClassLabel)
        return isinstance(feature, tfds.features.Tensor) and feature.shape == ()

    return tuple(name for name, feature in sorted(features.items()) if holds_values(feature))


def choose_features(
    features: "tfds.features.FeaturesDict", settings: DataSettings, known: KnownSet | None
) -> ChosenFeatures:
    """The features that the settings name, the others by `KnownSet` or usual names and types."""
    import tensorflow_datasets as tfds

    values, notes = value_features(features), []
    images = [name for name, feature in features.items() if type(feature) is tfds.features.Image]
    images = [name for name in images if np.dtype(features[name].np_dtype).name in ("uint8", "uint16")]
    if len(images) != 1 and "image" not in images:
        found = listed(images) if images else f"none among {listed(sorted(features))}"
        raise DataError(f"Expected a TFDS data set with one Image feature of 8 or 16 bits. Received: {found}.")
    image = "image" if "image" in images else images[0]
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
        settings=(f"{role}_column",),
    )


def _first(preferred: Sequence[str], found: Collection[str]) -> str | None:
    return next((name for name in preferred if name in found), None)


METADATA = "dataset_info.json"  # file in every TFDS data set

_MANUAL = Path("downloads") / "manual"


def open_builder(location: str, data_dir: str | None) -> "tfds.core.DatasetBuilder":
    """The builder of the set in (or the only one below) the folder `location`, or of NAME[/CONFIG][:VERSION]."""
    folder = Path(location).expanduser()
    inside = set_folder(folder) if folder.is_dir() else None
    require_keras()
    import tensorflow_datasets as tfds

    with quiet():
        if inside is not None:
            try:
                return tfds.builder_from_directory(inside)
            except Exception as error:  # its parsers may raise anything
                raise DataError(f"{inside}: TFDS cannot open this data set ({error}). Prepare it again.") from None
        name = re.split("[/:]", location)[0]
        try:
            return tfds.builder(location, data_dir=data_dir)
        except tfds.core.registered.DatasetNotFoundError:
            hint = closest_names(name, tfds.list_builders(with_community_datasets=False))
            hint = hint if hint.startswith("Did") else "You can also give the folder of a prepared set."
            meant = suggest_path(location) or f" {hint}"
            raise DataError(f"tfds:{location} is neither a folder nor a TFDS data set.{meant}") from None
        except (AssertionError, ValueError, RuntimeError, FileNotFoundError) as error:
            reason = re.sub(r'^Failed to construct dataset .*?}": ', "", str(error)).strip().splitlines()[0]
            configs = []
            with contextlib.suppress(tfds.core.registered.DatasetNotFoundError, ValueError):
                configs = list(tfds.builder_cls(name).builder_configs)
            known = f" Its configs: {', '.join(configs)}." if configs else ""
            raise DataError(f"tfds:{location}: {reason}{known}") from None


def set_folder(folder: Path) -> Path:
    """The folder of the only TFDS set in or below `folder`."""
    if (folder / METADATA).is_file():
        return folder
    # NAME/CONFIG/VERSION is as deep as TFDS goes.
    found = sorted(file.parent for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/{METADATA}"))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(item.relative_to(folder)) for item in found[:6])
        raise DataError(f"{folder} contains {len(found)} TFDS data sets ({shown}). Give the folder of one of them.")
    raise DataError(
        f"{folder} contains no TFDS data set: expected a {METADATA} in or below it. Give a folder written by TFDS or "
        "`radtransfer data prepare`."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the log messages of TFDS."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _not_prepared(builder: "tfds.core.DatasetBuilder", location: str, data_dir: str | None) -> str:
    import tensorflow_datasets as tfds

    root, known = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser(), KNOWN_SETS.get(builder.name)
    where = f", data_dir={str(root)!r}" if data_dir else ""
    # Not `tfds build`: that command also needs Apache Beam.
    command = f"import tensorflow_datasets as tfds; tfds.builder({location!r}{where}).download_and_prepare()"
    lines = [f"tfds:{location} is not prepared in {root}"]
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        terms = f" ({builder.info.homepage})" if builder.info.homepage else ""
        lines[0] += f", and its images must be downloaded manually{terms}. Put them here:"
        lines.append(f"  {root / _MANUAL}/")
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS.strip().splitlines()
        lines += [f"    {entry.strip()}" for entry in (known.tree if known else instructions)]
        lines.append("Then prepare it once:")
    else:
        lines[0] += ". Prepare it once, which downloads it:"
    lines.append(f'  python -c "{command}"')
    if known and known.advice:
        lines.append(known.advice)
    if importlib.util.find_spec("importlib_resources") is None:
        lines.append("TFDS also needs `pip install importlib_resources`.")
    return "\n".join(lines)


_VERSION = 1  # increase when the format of the index changes

_INDEX, _COPIES = "index.json", "images.bin"


class SetIndex(NamedTuple):
    """The examples of some splits, in the order of the set."""

    refs: tuple[FilePart, ...]  # position of each image
    splits: tuple[str, ...]  # split of each image
    values: dict[str, list[Any]]  # feature to a number, text or list of integers per example
    notes: tuple[str, ...] = ()


class Source(NamedTuple):
    """A set, and its features and splits to index."""

    builder: "tfds.core.DatasetBuilder"
    location: str  # as given by the user
    data_dir: str | None  # folder of TFDS; None: its default
    image: str
    features: tuple[str, ...]
    splits: tuple[str, ...]


def index_set(source: Source) -> SetIndex:
    """The index of the set, cached."""
    shards = _shards(source)
    in_place = bool(shards) and source.builder.info.file_format.value == "tfrecord"
    if shards:
        facts = [[str(file), (status := file.stat()).st_size, status.st_mtime_ns] for file, _, _ in shards]
        text = json.dumps([_VERSION, source.image, source.features, source.splits, facts])
        key = hashlib.sha256(text.encode()).hexdigest()
    else:
        # A set without files is identified by its examples.
        digest = hashlib.sha256(f"{_VERSION} {source.features}".encode())
        for example in _examples(source):
            digest.update(repr(example).encode())
        key = digest.hexdigest()

    def write(draft: Path) -> None:
        rows = []
        for number, (file, split, expected) in enumerate(shards if in_place else ()):
            before = len(rows)
            for span, example in read_examples(file, image=source.image):
                rows.append([number, span.offset, span.length, split, *_kept(source, example)])
            if (found := len(rows) - before) != expected:
                raise DataError(
                    f"{file} has {found} examples, expected {expected}. Copy or prepare the data set again."
                )
        if not in_place:
            with (draft / _COPIES).open("wb") as copies:
                for split, image, values in _examples(source):
                    rows.append([0, copies.tell(), len(image), split, *values])
                    copies.write(image)
        columns = [list(column) for column in zip(*rows, strict=True)]
        if not columns:
            raise DataError(f"tfds:{source.location} has no examples in its splits {', '.join(source.splits)}.")
        files = [str(file) for file, _, _ in shards] if in_place else [_COPIES]
        index = {"files": files, "features": source.features, "columns": columns}
        (draft / _INDEX).write_text(json.dumps(index), encoding="utf-8")

    folder = cache_folder() / "tfds" / f"{source.builder.name}-{key[:16]}"
    folder, notes = write_once(folder, write, what=f"The index of tfds:{source.location}")
    if not in_place:
        notes.append(f"the images of tfds:{source.location} cannot be read in place and were copied to {folder}")
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    files = [folder / file for file in index["files"]]
    numbers, offsets, lengths, splits, *values = index["columns"]
    refs = tuple(map(FilePart, (files[number] for number in numbers), offsets, lengths))
    return SetIndex(refs, tuple(splits), dict(zip(index["features"], values, strict=True)), tuple(notes))


def _shards(source: Source) -> list[tuple[Path, str, int]]:
    """File, split and number of examples of every shard; empty if the set has no files."""
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


def _examples(source: Source) -> Iterator[tuple[str, bytes, list[Any]]]:
    """Split, encoded image and values of every example, read by TFDS in stored order."""
    import tensorflow_datasets as tfds

    builder = source.builder
    with quiet():
        for split in source.splits:
            if builder.info.splits and builder.info.file_format.value == "array_record":  # not read by `tf.data`
                records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
                for number in range(len(records)):
                    record, where = records[number], f"tfds:{source.location}, example {number} of {split}"
                    span, values = example_parts(record, Span(0, len(record)), image=source.image, where=where)
                    yield split, record[span.offset : span.offset + span.length], _kept(source, values)
                continue
            try:
                examples = builder.as_dataset(
                    split=split,
                    shuffle_files=False,
                    decoders={source.image: tfds.decode.SkipDecoding()},
                    read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
                )
            except AssertionError:
                raise DataError(_not_prepared(builder, source.location, source.data_dir)) from None
            for example in examples.as_numpy_iterator():
                image = example.pop(source.image)
                values = {
                    name: value.tolist() if getattr(value, "shape", ()) else [value] for name, value in example.items()
                }
                yield split, image, _kept(source, values)


def _kept(source: Source, values: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The values of the indexed features as JSON types: a list, or one value, or None."""
    features, kept = source.builder.info.features, []
    for name in source.features:
        plain = [
            value.decode(errors="replace") if isinstance(value, bytes) else getattr(value, "item", lambda v=value: v)()
            for value in values.get(name, ())
        ]
        kept.append(plain if features[name].shape != () else plain[0] if plain else None)
    return kept
