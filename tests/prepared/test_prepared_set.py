"""A prepared data set holds what the data held, is written whole, and goes on where it was stopped."""

import csv
import hashlib
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from radtransfer.config.load import load_config
from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data import prepared as prepared_set
from radtransfer.data import prepared as prepared_shards
from radtransfer.data.image_check import check_images
from radtransfer.data.prepared import prepare_set
from radtransfer.data.readers import read_table
from radtransfer.data.splits import assign_folds, image_identities
from radtransfer.errors import ConfigError, DataError, DiskError, RunError
from radtransfer.images.pipeline import make_batches
from radtransfer.images.refs import read_contents
from radtransfer.process import Progress
from radtransfer.runs.lock import locked

SIZE = 20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path):
    """36 colour images of two sizes, JPEG and PNG, of 18 patients."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(36):
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((48, 40) if number % 2 else (30, 33), Image.Resampling.BICUBIC)
        image.save(folder / f"p{number // 2:02d}_{number % 2}.{'jpg' if number % 3 else 'png'}")
    return folder


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def write_csv(file, header, rows):
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])
    return file


def read_csv(file):
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def single_label(folder):
    rows = [[name, "xyz"[number // 2 % 3], name[:3]] for number, name in enumerate(names(folder))]
    return write_csv(folder.parent / "single.csv", ["path", "label", "patient"], rows)


def without_patients(folder):
    rows = [[name, "xyz"[number % 3]] for number, name in enumerate(names(folder))]
    return write_csv(folder.parent / "plain.csv", ["path", "label"], rows)


def several_labels(folder):
    values = ["1", "0", "-1", "", "1", "0", "0"]
    rows = [
        [name, name[:3], values[number % 7], values[number % 5], values[(number + 1) % 4]]
        for number, name in enumerate(names(folder))
    ]
    return write_csv(folder.parent / "several.csv", ["path", "patient", "Edema", "label", "path: x, y"], rows)


def one_split(folder):
    order = ["train"] * 24 + ["val"] * 6 + ["test"] * 6
    rows = [[name, "ab"[number % 2], name[:3], order[number]] for number, name in enumerate(names(folder))]
    return write_csv(folder.parent / "split.csv", ["path", "label", "patient", "split"], rows)


def three_folds(folder):
    rows = [[name, "ab"[number % 2], name[:3], number // 2 % 3] for number, name in enumerate(names(folder))]
    return write_csv(folder.parent / "folds.csv", ["path", "label", "patient", "fold"], rows)


def uneven_folds(folder):
    """In fold 1 some images take no part; one stands in two splits of fold 2."""
    rows = []
    for number, name in enumerate(names(folder)):
        label = "ab"[number % 2]
        if number >= 4:
            rows.append([name, label, "1", "test" if number % 5 == 0 else "train"])
        rows.append([name, label, "2", "test" if number % 4 == 0 else "train"])
    rows.append([names(folder)[0], "a", "2", "train"])
    return write_csv(folder.parent / "uneven.csv", ["path", "label", "fold", "split"], rows)


SHAPES = [single_label, without_patients, several_labels, one_split, three_folds, uneven_folds]


def data_options(source, folder, **more):
    columns = {"label_column": ("Edema", "label", "path: x, y")} if "several" in str(source) else {}
    return {"source": str(source), "image_root": str(folder), **columns, **more}


def prepare(source, folder, out, *, size=SIZE, progress=None, overwrite=False, encoding="raw", **more):
    settings = {f"data.{name}": value for name, value in data_options(source, folder).items()}
    config = load_config(options={**settings, "model.image_size": size, "system.workers": 2, **more})
    return prepare_set(config, out=out, encoding=encoding, overwrite=overwrite, progress=progress)


class Recorder(Progress):
    """Keeps notes and counts; stops after as many prepared images as it is told."""

    def __init__(self, stop_after=None):
        self.notes, self.counts, self.stop_after = [], [], stop_after

    def note(self, text):
        self.notes.append(text)

    def count(self, what, done, total):
        if what == "images prepared":
            self.counts.append((done, total))
            if self.stop_after is not None and done >= self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture
def small_shards(monkeypatch):
    """Eight images in a shard, written in batches of four."""
    monkeypatch.setattr(prepared_shards, "SHARD_BYTES", 8 * SIZE * SIZE * 3)
    monkeypatch.setattr(prepared_set, "_BATCH_BYTES", 4 * SIZE * SIZE * 12)


def pipeline_pixels(table, tmp_path, **more):
    """The images as training sees them, float32."""
    checked = check_images(table, workers=1, on_bad_image="error", report_file=tmp_path / "bad.txt")
    batches = make_batches(
        table.paths, table.files, checked.facts, table.targets, image_size=SIZE, batch_size=4, workers=1, **more
    )
    batch = [(images.numpy(), weights.numpy()) for images, _, weights in batches.in_order()]
    return np.concatenate([images[weights > 0] for images, weights in batch])


def check_equal_tables(found, expected):
    assert (found.paths, found.classes, found.task) == (expected.paths, expected.classes, expected.task)
    assert (found.patients, found.labels) == (expected.patients, expected.labels)
    assert found.targets.dtype == expected.targets.dtype
    np.testing.assert_array_equal(found.targets, expected.targets)
    assert (found.splits is None) == (expected.splits is None)
    if found.splits is not None:
        np.testing.assert_array_equal(found.splits, expected.splits)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_prepared_set_gives_the_same_table_folds_and_pixels(images, tmp_path, shape, small_shards):
    source = shape(images)
    prepare(source, images, tmp_path / "out")
    original = read_table(DataSettings(**data_options(source, images)))
    prepared = read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
    check_equal_tables(prepared, original)
    settings = SplitSettings(folds=3, val_fraction=0.2)
    one, other = (
        assign_folds(table, settings, seed=4, allow_leakage=shape is uneven_folds) for table in (original, prepared)
    )
    assert [fold.split.tolist() for fold in one] == [fold.split.tolist() for fold in other]
    np.testing.assert_array_equal(pipeline_pixels(prepared, tmp_path), pipeline_pixels(original, tmp_path))


def test_a_row_repeated_in_two_splits_stays_one_image(images, tmp_path):
    prepare(uneven_folds(images), images, tmp_path / "out")
    table = read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
    identities = image_identities(table)
    assert (len(table), len(set(identities))) == (37, 36)
    assert identities[table.paths.index(names(images)[0])] == identities[1]


def test_frames_of_one_file_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        pages = [Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for _ in range(3)]
        pages[0].save(tmp_path / f"{number}.tif", save_all=True, append_images=pages[1:])
        rows += [[f"{number}.tif#{frame + 1}", "ab"[number % 2]] for frame in range(3)]
    source = write_csv(tmp_path / "frames.csv", ["path", "label"], rows)
    prepare(source, tmp_path, tmp_path / "out")
    original = read_table(DataSettings(**data_options(source, tmp_path)))
    prepared = read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
    assert len(set(image_identities(prepared))) == 36
    np.testing.assert_array_equal(pipeline_pixels(prepared, tmp_path), pipeline_pixels(original, tmp_path))
    one, other = (
        assign_folds(table, SplitSettings(folds=3), seed=1, allow_leakage=False) for table in (original, prepared)
    )
    assert [fold.split.tolist() for fold in one] == [fold.split.tolist() for fold in other]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_tensorflow_datasets_reads_what_is_written(images, tmp_path, encoding, small_shards):
    source = one_split(images)
    prepare(source, images, tmp_path / "out", encoding=encoding)
    expected = pipeline_pixels(read_table(DataSettings(**data_options(source, images))), tmp_path)
    rows = read_csv(source)
    builder = tfds.builder_from_directory(tmp_path / "out")
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert counts == {"train": 24, "validation": 6, "test": 6}
    examples = [
        example
        for split in ("train", "validation", "test")
        for example in builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator()
    ]
    assert [example["path"].decode() for example in examples] == [row["path"] for row in rows]
    assert [example["patient"].decode() for example in examples] == [row["patient"] for row in rows]
    assert ["ab"[example["label"]] for example in examples] == [row["label"] for row in rows]
    stored = np.stack([example["image"] for example in examples])
    assert stored.dtype == np.uint8
    difference = np.abs(stored - expected)
    assert difference.max() == 0 if encoding == "raw" else 0 < difference.mean() < 3


def test_several_labels_stand_in_the_examples_with_what_is_not_known(images, tmp_path):
    prepare(several_labels(images), images, tmp_path / "out")
    table = read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
    dataset = tfds.builder_from_directory(tmp_path / "out").as_dataset(split="train", shuffle_files=False)
    stored = np.stack([example["labels"] for example in dataset.as_numpy_iterator()])
    assert np.isnan(stored).any()
    np.testing.assert_array_equal(stored, table.targets)


def test_jpegs_keep_the_resolution_of_the_colours(images, tmp_path):
    prepare(single_label(images), images, tmp_path / "out", encoding="jpeg")
    table = read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
    for place in table.files:
        assert Image.open(io.BytesIO(read_contents(place))).layer[0][1:3] == (1, 1)


def test_the_provenance_says_what_it_was_made_of(images, tmp_path):
    source = single_label(images)
    prepare(source, images, tmp_path / "out", **{"images.aspect": "pad"})
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["source"] == str(source)
    assert record["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (record["rows"], record["images"], record["skipped"]) == (36, 36, [])
    assert record["settings"]["images"]["aspect"] == "pad"
    assert {"radtransfer", "tensorflow-datasets"} <= set(record["versions"])
    for row in read_csv(tmp_path / "out" / "images.csv"):
        assert row["sha256"] == hashlib.sha256((images / row["path"]).read_bytes()).hexdigest()


def contents(out):
    """Every file but those that tell the time."""
    kept = [file for file in sorted(out.iterdir()) if file.name not in (".lock", "provenance.json")]
    return {file.name: file.read_bytes() for file in kept}


def stop(source, images, out, after):
    with pytest.raises(KeyboardInterrupt):
        prepare(source, images, out, progress=Recorder(stop_after=after))


def test_a_stopped_job_goes_on_with_the_missing_shards(images, tmp_path, small_shards):
    source, out = single_label(images), tmp_path / "out"
    prepare(source, images, tmp_path / "whole")
    stop(source, images, out, after=20)
    first = sorted(file.name for file in out.glob("radtransfer-*"))
    assert len(first) == 2
    assert not list(out.glob(".part-*"))
    with pytest.raises(DataError, match=r"is incomplete: run the same `radtransfer data prepare` command again"):
        read_table(DataSettings(source=f"tfds:{out}"))
    before = {name: (out / name).stat().st_mtime_ns for name in first}
    progress = Recorder()
    prepare(source, images, out, progress=progress)
    assert progress.counts[-1] == (21, 21)
    assert {name: (out / name).stat().st_mtime_ns for name in first} == before
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_set_is_left_alone(images, tmp_path):
    source = single_label(images)
    prepare(source, images, tmp_path / "out")
    before = contents(tmp_path / "out")
    progress = Recorder()
    result = prepare(source, images, tmp_path / "out", progress=progress)
    assert (result.images, result.splits, progress.counts) == (36, {"train": 36}, [])
    assert any("already prepared" in note for note in progress.notes)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("text", ["[]", "{}", '{"shards": [{}]}', "{"])
def test_a_damaged_provenance_is_written_again(images, tmp_path, text):
    source = single_label(images)
    prepare(source, images, tmp_path / "out")
    (tmp_path / "out/provenance.json").write_text(text)
    prepare(source, images, tmp_path / "out")
    assert json.loads((tmp_path / "out/provenance.json").read_text())["shards"]


def test_a_missing_or_damaged_shard_is_named_and_written_again(images, tmp_path, small_shards):
    source, out = single_label(images), tmp_path / "out"
    prepare(source, images, out)
    whole = contents(out)
    missing, cut = sorted(out.glob("radtransfer-*"))[1:3]
    missing.unlink()
    with pytest.raises(DataError, match=f"Shard .*{missing.name} is missing"):
        read_table(DataSettings(source=f"tfds:{out}"))
    cut.write_bytes(cut.read_bytes()[:-100])
    prepare(source, images, out)
    assert contents(out) == whole
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{cut.name} is damaged: it has"):
        read_table(DataSettings(source=f"tfds:{out}"))


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_and_replace_only_when_told(images, tmp_path, small_shards, finished):
    source, out = single_label(images), tmp_path / "out"
    if finished:
        prepare(source, images, out)
    else:
        stop(source, images, out, after=12)
    with pytest.raises(RunError, match="image_size 20 → 16.*--overwrite"):
        prepare(source, images, out, size=16)
    with pytest.raises(RunError, match="encoding raw → jpeg"):
        prepare(source, images, out, encoding="jpeg")
    prepare(source, images, out, size=16, overwrite=True)
    table = read_table(DataSettings(source=f"tfds:{out}"))
    assert {place.pixels for place in table.files} == {(16, 16)}


def test_changed_labels_or_images_are_refused(images, tmp_path):
    source, out = single_label(images), tmp_path / "out"
    prepare(source, images, out)
    text = source.read_text()
    source.write_text(text.replace(",x,", ",w,"))
    with pytest.raises(RunError, match="have changed since"):
        prepare(source, images, out)
    source.write_text(text)
    prepare(source, images, out)
    Image.new("RGB", (9, 9)).save(images / names(images)[5])
    with pytest.raises(RunError, match="have changed since"):
        prepare(source, images, out)


def test_unreadable_images_are_left_out_when_told_and_stay_so_on_resuming(images, tmp_path, small_shards):
    source, out = single_label(images), tmp_path / "out"
    bad = names(images)[7]
    (images / bad).write_bytes(b"no image")
    with pytest.raises(DataError, match=bad):
        prepare(source, images, out)
    skip = {"data.on_bad_image": "skip"}
    with pytest.raises(KeyboardInterrupt):
        prepare(source, images, out, progress=Recorder(stop_after=20), **skip)
    result = prepare(source, images, out, **skip)
    assert (result.images, result.skipped) == (35, 1)
    table = read_table(DataSettings(source=f"tfds:{out}"))
    assert bad not in table.paths
    assert any("1 unreadable images" in note for note in table.notes)
    record = json.loads((out / "provenance.json").read_text())
    assert record["skipped"][0][0] == bad


def test_a_folder_of_something_else_or_in_use_is_refused(images, tmp_path):
    source, out = single_label(images), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"contains other files \(thesis.txt\)"):
        prepare(source, images, out, overwrite=True)
    assert names(out) in (["thesis.txt"], [".lock", "thesis.txt"])
    other = tmp_path / "other"
    other.mkdir()
    with locked(other), pytest.raises(RunError, match="in use by another process"):
        prepare(source, images, other)
    with pytest.raises(ConfigError, match="contains the original images"):
        prepare(source, images, images)


def test_too_small_a_disk_is_found_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskError, match=r"needs [\d.]+ kB, and 1 kB are free"):
        prepare(single_label(images), images, tmp_path / "out")
    assert not list((tmp_path / "out").glob("radtransfer-*"))


def test_a_prepared_set_can_be_prepared_again(images, tmp_path):
    prepare(several_labels(images), images, tmp_path / "first")
    config = load_config(options={"data.source": f"tfds:{tmp_path / 'first'}", "model.image_size": 16})
    prepare_set(config, out=tmp_path / "second", encoding="jpeg")
    first, second = (read_table(DataSettings(source=f"tfds:{tmp_path / name}")) for name in ("first", "second"))
    check_equal_tables(second, first)


def test_a_prepared_folder_is_found_without_its_prefix_and_can_be_moved(images, tmp_path):
    prepare(single_label(images), images, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    shutil.rmtree(images)
    table = read_table(DataSettings(source=str(tmp_path / "moved")))
    assert len(pipeline_pixels(table, tmp_path)) == 36


def test_labels_and_splits_of_a_prepared_set_can_be_chosen(images, tmp_path):
    prepare(several_labels(images), images, tmp_path / "several")
    source = f"tfds:{tmp_path / 'several'}"
    assert read_table(DataSettings(source=source, label_column=("label", "Edema"))).classes == ("Edema", "label")
    with pytest.raises(ConfigError, match="has Edema, label, path: x, y"):
        read_table(DataSettings(source=source, label_column=("Flu",)))
    notes = read_table(DataSettings(source=source, uncertain="ones")).notes
    assert any("--uncertain ones not used: the set was prepared with ignore" in note for note in notes)
    by_eye = read_table(DataSettings(source=source, patient_regex=r"_(\d)\."))
    assert set(by_eye.patients) == {"0", "1"}
    prepare(one_split(images), images, tmp_path / "split")
    some = read_table(DataSettings(source=f"tfds:{tmp_path / 'split'}?split=validation+test"))
    assert (len(some), some.splits) == (12, None)
    with pytest.raises(ConfigError, match="has its own images"):
        read_table(DataSettings(source=source, image_root=str(images)))


def test_a_damaged_table_is_named(images, tmp_path):
    prepare(single_label(images), images, tmp_path / "out")
    file = tmp_path / "out" / "images.csv"
    lines = file.read_text().splitlines(keepends=True)
    for damaged in (lines[:-1], [*lines[:-1], lines[-1][:-70]], [lines[0].replace("offset", "of"), *lines[1:]], []):
        file.write_text("".join(damaged))
        with pytest.raises(DataError, match=r"images\.csv"):
            read_table(DataSettings(source=f"tfds:{tmp_path / 'out'}"))
