"""TFDS data sets are read in place where that can be, and say what to do where they are not there."""

import io
import logging

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import absolute_source, read_table
from radtransfer.data.tfds_files import KNOWN_SETS
from radtransfer.errors import ConfigError, DataError
from radtransfer.images.refs import FilePart, read_contents

FINDINGS = KNOWN_SETS["chexpert"].findings
LABEL = tfds.features.ClassLabel
IMAGE = {"image": tfds.features.Image()}
RETINA = {**IMAGE, "name": tfds.features.Text(), "label": LABEL(num_classes=5)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def table(source, **settings):
    return read_table(DataSettings(source=str(source), **settings))


def jpeg(number):
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 10, 3), number, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def with_images(examples):
    return [{"image": io.BytesIO(jpeg(number)), **example} for number, example in enumerate(examples)]


def write_records(file, records, file_format):
    if file_format == "array_record":
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


def write_set(folder, name, features, splits, *, shards=2, file_format="tfrecord"):
    """A set as TFDS itself writes it, from the examples of each split."""
    folder.mkdir(parents=True)
    features, infos = tfds.features.FeaturesDict(features), []
    for split, examples in splits.items():
        parts = np.array_split(np.arange(len(examples)), shards)
        for number, part in enumerate(parts):
            file = folder / f"{name}-{split}.{file_format}-{number:05d}-of-{shards:05d}"
            write_records(file, [features.serialize_example(examples[row]) for row in part], file_format)
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix=file_format
        )
        lengths = [len(part) for part in parts]
        infos.append(tfds.core.SplitInfo(split, lengths, num_bytes=0, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, version="3.0.0", check_data=False
    )
    return folder


def retina(folder, **options):
    """Ten eyes, of which one has no label, in a set of the name that is known."""
    rows = [{"name": f"{i // 2 + 1}_{('left', 'right')[i % 2]}", "label": i % 3} for i in range(12)]
    rows[5]["label"] = -1
    examples = with_images(rows)
    splits = {"train": examples[:8], "validation": examples[8:10], "test": examples[10:], "sample": examples[:2]}
    return write_set(folder, "diabetic_retinopathy_detection", RETINA, splits, **options)


@pytest.mark.parametrize("name", ["diabetic_retinopathy_detection/btgraham-300", "chexpert", "patch_camelyon"])
def test_mocked_data_can_be_read(name):
    with tfds.testing.mock_data(num_examples=20):
        found = table(f"tfds:{name}")
    assert len(found) == len(set(found.paths)) == 20
    assert all(path.startswith("train/") for path in found.paths)
    assert (found.patients is None) == (name == "patch_camelyon")
    assert found.task == ("multilabel" if name == "chexpert" else "multiclass")
    assert found.splits is None
    for place in found.files:
        assert isinstance(place, FilePart)
        assert Image.open(io.BytesIO(read_contents(place))).mode == "RGB"


def test_mocked_data_is_read_again_as_it_was():
    with tfds.testing.mock_data(num_examples=8):
        first, again = table("tfds:patch_camelyon"), table("tfds:patch_camelyon")
    with tfds.testing.mock_data(num_examples=9):
        other = table("tfds:patch_camelyon")
    assert (first.files, first.paths) == (again.files, again.paths)
    assert other.files[0].path != first.files[0].path


def test_the_retina_set_has_its_patients_and_leaves_out_what_has_no_label(tmp_path):
    found = table(f"tfds:{retina(tmp_path / 'set')}")
    assert found.paths[:4] == ("train/1_left", "train/1_right", "train/2_left", "train/2_right")
    assert "train/3_right" not in found.paths
    assert found.patients[:5] == ("1", "1", "2", "2", "3")
    assert (found.classes, len(found)) == (("0", "1", "2"), 11)
    assert found.labels[:4] == ("0", "1", "2", "0")
    assert found.splits.tolist() == [["train"] * 7 + ["val"] * 2 + ["test"] * 2]
    assert any("1 images without a label" in note for note in found.notes)


def test_images_are_read_in_place(tmp_path, cache):
    folder = retina(tmp_path / "set", shards=3)
    found = table(f"tfds:{folder}")
    assert {place.path.parent for place in found.files} == {folder}
    numbers = [int(path.split("/")[1].split("_")[0]) * 2 - 2 + path.endswith("right") for path in found.paths]
    assert [read_contents(place) for place in found.files] == [jpeg(number) for number in numbers]
    assert not list(cache.rglob("images.bin"))


def test_the_index_is_kept_and_made_anew_when_a_shard_changes(tmp_path, cache):
    folder = retina(tmp_path / "set")
    first = table(f"tfds:{folder}")
    (index,) = cache.rglob("index.json")
    index.write_text(index.read_text().replace("1_left", "1_kept"))
    assert table(f"tfds:{folder}").paths[0] == "train/1_kept"
    shard = min(folder.glob("*train*"))
    shard.touch()
    assert table(f"tfds:{folder}").paths == first.paths


def test_a_set_of_array_records_is_copied_once(tmp_path):
    in_place = table(f"tfds:{retina(tmp_path / 'one')}")
    copied = table(f"tfds:{retina(tmp_path / 'other', file_format='array_record')}")
    assert any("copied" in note for note in copied.notes)
    assert copied.files[0].path.name == "images.bin"
    for name in ("paths", "labels", "patients"):
        assert getattr(copied, name) == getattr(in_place, name)
    assert list(map(read_contents, copied.files)) == list(map(read_contents, in_place.files))


def test_chosen_splits_are_taken_together(tmp_path):
    folder = retina(tmp_path / "set")
    assert table(f"tfds:{folder}?split=train").splits is None
    both = table(f"tfds:{folder}?split=validation+test")
    assert (len(both), both.splits) == (4, None)
    assert {path.split("/")[0] for path in both.paths} == {"validation", "test"}
    with pytest.raises(DataError, match="no split 'dev'. It has .*sample"):
        table(f"tfds:{folder}?split=dev")
    with pytest.raises(ConfigError, match=r"\?split=train"):
        table(f"tfds:{folder}?fold=1")


def test_the_options_of_a_source_survive_another_folder(tmp_path, monkeypatch):
    folder = retina(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert absolute_source("tfds:set?split=train") == f"tfds:{folder}?split=train"
    assert absolute_source("tfds:chexpert") == "tfds:chexpert"


def test_the_folder_may_be_a_parent_of_one_set_or_given_without_prefix(tmp_path):
    folder = retina(tmp_path / "drd" / "btgraham-300" / "3.0.0")
    assert table(f"tfds:{tmp_path / 'drd'}").paths == table(folder).paths
    retina(tmp_path / "drd" / "original" / "3.0.0")
    with pytest.raises(DataError, match="2 TFDS data sets .*btgraham-300/3.0.0"):
        table(f"tfds:{tmp_path / 'drd'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="contains no TFDS data set"):
        table(f"tfds:{tmp_path / 'empty'}")


def chexpert(folder, *, places=14, splits=("train", "validation")):
    """Eight images whose findings go through all four answers in turn."""
    names = ["uncertain", "positive", "negative", "unmentioned"]
    features = {
        **IMAGE,
        "name": tfds.features.Text(),
        "label": tfds.features.Sequence(LABEL(names=names)),
        "image_view": LABEL(names=["frontal", "lateral"]),
    }

    def example(row):
        name = f"CheXpert-v1.0-small/train/patient{row // 2:05d}/study1/view{row % 2 + 1}_frontal.jpg"
        return {"name": name, "label": [names[(row + k) % 4] for k in range(places)], "image_view": 0}

    examples = with_images(map(example, range(8)))
    return write_set(
        folder, "chexpert", features, dict(zip(splits, (examples[:6], examples[6:]), strict=True)), shards=1
    )


def test_chexpert_has_five_findings_and_its_uncertain_and_unmentioned_answers(tmp_path):
    folder = chexpert(tmp_path / "set")
    found = table(f"tfds:{folder}")
    assert found.classes == ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    column = FINDINGS.index("Atelectasis")
    answers = [(row + column) % 4 for row in range(8)]
    np.testing.assert_array_equal(found.targets[:, 0], [[np.nan, 1, 0, 0][answer] for answer in answers])
    other = table(f"tfds:{folder}", uncertain="ones", unmentioned="ignore")
    np.testing.assert_array_equal(other.targets[:, 0], [[1, 1, 0, np.nan][answer] for answer in answers])
    assert found.patients[:3] == ("patient00000", "patient00000", "patient00001")
    assert any("No Finding" in note and "--label-column" in note for note in found.notes)


def test_a_set_without_test_images_is_tested_on_its_validation_split(tmp_path):
    found = table(f"tfds:{chexpert(tmp_path / 'set')}")
    assert found.splits.tolist() == [["train"] * 6 + ["test"] * 2]
    assert any("validation split is the test set" in note for note in found.notes)


def test_findings_of_chexpert_can_be_chosen(tmp_path):
    folder = chexpert(tmp_path / "set")
    assert table(f"tfds:{folder}", label_column=("fracture", "Edema")).classes == ("Edema", "Fracture")
    with pytest.raises(DataError, match="'Flu'.*Support Devices"):
        table(f"tfds:{folder}", label_column=("Flu",))


def test_chexpert_with_another_number_of_findings_is_an_error(tmp_path):
    with pytest.raises(DataError, match="do not have as many labels as the 14"):
        table(f"tfds:{chexpert(tmp_path / 'set', places=13)}")


GENERIC = {
    **IMAGE,
    "subject_id": tfds.features.Text(),
    "view": tfds.features.Text(),
    "diagnosis": LABEL(names=["well", "sick"]),
    "edema": LABEL(num_classes=2),
    "fracture": tfds.features.Scalar(np.int32),
}


def generic(folder, **options):
    rows = [
        {"subject_id": f"s{i // 2}", "view": "ap", "diagnosis": i % 2, "edema": i // 2 % 2, "fracture": i % 2}
        for i in range(6)
    ]
    return write_set(folder, "some_set", GENERIC, {"train": with_images(rows)}, **options)


def test_an_unknown_set_is_read_by_the_types_and_usual_names_of_its_features(tmp_path):
    found = table(f"tfds:{generic(tmp_path / 'set')}")
    assert found.paths == tuple(f"train/{i}" for i in range(6))
    assert found.labels == ("well", "sick") * 3
    assert found.patients == ("s0", "s0", "s1", "s1", "s2", "s2")
    assert found.splits is None


def test_features_of_an_unknown_set_can_be_named(tmp_path):
    folder = generic(tmp_path / "set")
    several = table(f"tfds:{folder}", label_column=("fracture", "edema"))
    assert (several.task, several.classes) == ("multilabel", ("edema", "fracture"))
    np.testing.assert_array_equal(several.targets, [[i // 2 % 2, i % 2] for i in range(6)])
    assert table(f"tfds:{folder}", label_column=("fracture",)).labels == ("0", "1") * 3
    assert set(table(f"tfds:{folder}", patient_column="view").patients) == {"ap"}
    assert table(f"tfds:{folder}", patient_regex=r"/(\d)").patients == tuple("012345")
    with pytest.raises(DataError, match="'grade'.*diagnosis"):
        table(f"tfds:{folder}", label_column=("grade",))


def test_a_set_without_images_or_labels_says_what_it_has(tmp_path):
    text = {"text": tfds.features.Text()}
    folder = write_set(tmp_path / "text", "some_text", text, {"train": [{"text": "a"}]}, shards=1)
    with pytest.raises(DataError, match="one Image feature.*none among text"):
        table(f"tfds:{folder}")
    examples = with_images([{"text": "a"}])
    folder = write_set(tmp_path / "plain", "plain", {**IMAGE, **text}, {"train": examples}, shards=1)
    with pytest.raises(DataError, match="one ClassLabel. Received: none; its features are image, text"):
        table(f"tfds:{folder}")


def test_damaged_and_missing_shards_are_named(tmp_path):
    folder = retina(tmp_path / "set")
    shard = max(folder.glob("*train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(DataError, match=f"{shard.name} is truncated"):
        table(f"tfds:{folder}")
    shard.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(DataError, match=shard.name):
        table(f"tfds:{folder}")
    shard.unlink()
    with pytest.raises(DataError, match=f"1 of 6 shards are missing, such as .*{shard.name}"):
        table(f"tfds:{folder}")


def test_a_shard_with_fewer_examples_than_recorded_is_an_error(tmp_path):
    folder = retina(tmp_path / "set")
    one, other = sorted(folder.glob("*test*"))
    other.write_bytes(b"".join([one.read_bytes(), one.read_bytes()]))
    with pytest.raises(DataError, match=f"{other.name} has 2 examples, expected 1"):
        table(f"tfds:{folder}")


def test_a_missing_manual_download_gives_the_tree_to_create_and_the_command(tmp_path):
    with pytest.raises(DataError) as error:
        table("tfds:chexpert", image_root=str(tmp_path))
    text = str(error.value)
    assert f"{tmp_path / 'downloads' / 'manual'}/\n" in text
    for entry in ("train.csv", "valid.csv", "train/patient", "valid/patient"):
        assert f"CheXpert-v1.0-small/{entry}" in text
    assert "tfds.builder('chexpert'" in text
    with pytest.raises(DataError, match=r"(?s)train/10_left\.jpeg.*test/1_left\.jpeg.*trainLabels\.csv.*opencv"):
        table("tfds:diabetic_retinopathy_detection/btgraham-300", image_root=str(tmp_path))
    with pytest.raises(DataError, match=r"which downloads it:\n.*patch_camelyon"):
        table("tfds:patch_camelyon", image_root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_tree_that_is_printed_is_the_one_that_the_builders_look_for():
    for name in ("chexpert", "diabetic_retinopathy_detection"):
        builder = tfds.builder_cls(name)
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        tops = {entry.split("/")[0] for entry in KNOWN_SETS[name].tree}
        assert all(top.removesuffix(".csv") in instructions or top == "train" for top in tops)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("chexprt", "Did you mean 'chexpert'"),
        ("chexpert:9.9.9", "only: 3.1.0"),
        ("diabetic_retinopathy_detection/btgraham", "Its configs: original, 1M, 250K, btgraham-300"),
        ("no/such:thing", "Parsing builder name"),
        ("no/such", "neither a folder nor a TFDS data set"),
    ],
)
def test_a_set_config_or_version_that_is_not_there_is_an_error(location, message):
    with pytest.raises(DataError, match=message):
        table(f"tfds:{location}")


def test_settings_that_would_be_ignored_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--image-root"):
        table(f"tfds:{retina(tmp_path / 'set')}", image_root=str(tmp_path))
    with pytest.raises(ConfigError, match="tfds:FOLDER"):
        table("tfds")


def test_reading_leaves_the_loggers_as_they_were(tmp_path, monkeypatch):
    logger = logging.getLogger("absl")
    monkeypatch.setattr(logger, "level", logging.INFO)
    table(f"tfds:{retina(tmp_path / 'set')}")
    assert logger.level == logging.INFO
