"""`radtransfer data …`: exit codes, what is printed and what is written."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data.readers import read_table
from radtransfer.data.splits import assign_folds
from radtransfer.errors import INTERRUPTED

HOSTILE = "cut <script>alert(1)<&.png"


@pytest.fixture(scope="module")
def bad_images(tmp_path_factory, tiny_images):
    """The tiny images with one of everything that can be wrong, and a table with a split and two mistakes."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(tiny_images / "images", folder, dirs_exist_ok=True)
    with (tiny_images / "images.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))[1:]
    splits = ("train", "train", "train", "val", "test")
    rows = [[*row, splits[int(row[2][1:]) // 2 % 5]] for row in rows]
    with Image.open(folder / rows[0][0]) as image:
        first = image.copy()
    assert rows[0][1:] == ["well", "p00", "train"]

    def add(name, image=None, *, label="well", patient="x", split="train", data=None, **options):
        if image is not None:
            image.save(folder / name, **options)
        elif data is not None:
            (folder / name).write_bytes(data)
        rows.append([name, label, patient, split])

    png = (folder / rows[3][0]).read_bytes()
    add("copy.bmp", first, split="test", patient="c")
    add("copy.tif", first, label="sick")
    add(HOSTILE, data=png[: len(png) // 2])
    add("corrupt.png", data=png[:60] + bytes(40) + png[100:])
    add("empty.png", data=b"")
    add("page.png", data=b"<!doctype html>")
    add("gone.png")
    add("black.png", Image.new("L", (24, 24)))
    add("dull.png", Image.fromarray(np.arange(576, dtype=np.uint8).reshape(24, 24) % 5 + 90))
    add("deep.png", Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24)))
    add("float.tif", Image.fromarray(np.arange(576, dtype="float32").reshape(24, 24)))
    rng = np.random.default_rng(1)
    add("wide.png", Image.fromarray(rng.integers(0, 255, (24, 90), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    add("turned.png", noise, exif=exif)
    near = np.asarray(noise).copy()
    near[0, 0] += 1
    add("near.png", Image.fromarray(near), split="test", patient="y")
    rows[9][3] = "test"
    rows.append([rows[20][0], "well" if rows[20][1] == "sick" else "sick", rows[20][2], rows[20][3]])
    rows.append(["", "well", "p01", "train"])
    with (folder / "images.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient", "split"], *rows])
    return folder


def test_a_sound_set_exits_with_0_and_a_readable_table(radtransfer, tiny_images):
    options = ("--image-root", tiny_images / "images", "--image-size", 24)
    outcome = radtransfer("data", "check", tiny_images / "images.csv", *options, "--folds", 2)
    assert outcome.code == 0, outcome.err
    assert "48 images, 24 patients, 2 classes (sick 24, well 24)" in outcome.out
    assert "24×24 px; grey 48" in outcome.out
    assert re.search(r"1\s+train\s+\d+\s+\d+\s+\d+\s+\d+", outcome.out)
    assert outcome.out.rstrip().endswith("valid     yes")
    assert "error" not in outcome.out and "warning" not in outcome.out


def test_data_that_is_not_there_is_not_called_invalid(radtransfer, tmp_path):
    outcome = radtransfer("data", "check", tmp_path / "nowhere.csv")
    assert outcome.code == 3
    assert "nothing could be checked" in outcome.err and "invalid" not in outcome.err
    assert "nowhere.csv" in outcome.out


def test_every_kind_is_found_and_json_alone_is_printed(radtransfer, bad_images):
    outcome = radtransfer("data", "check", bad_images / "images.csv", "--json")
    assert outcome.code == 3
    assert "results would be invalid" in outcome.err and "leak" in outcome.err
    report = json.loads(outcome.out)
    keys = ("data", "valid", "images", "patients", "classes", "splits", "sizes", "modes", "class_modes", "findings")
    assert tuple(report) == keys
    assert report["valid"] is False
    kinds = {(finding["severity"], finding["kind"]) for finding in report["findings"]}
    errors = {"table", "contradictory_labels", "leak", "truncated", "corrupt", "empty_file", "not_an_image"}
    assert {kind for severity, kind in kinds if severity == "error"} == {*errors, "missing", "constant"}
    warnings = {kind for severity, kind in kinds if severity == "warning"}
    assert warnings == {"few_patients", "nearly_constant", "near_duplicate", "range"}
    notes = {kind for severity, kind in kinds if severity == "note"}
    assert notes == {"table", "small_image", "unusual_size", "mixed_modes", "orientation"}
    for finding in report["findings"]:
        assert set(finding) == {"kind", "severity", "files", "patients", "message"}
        assert finding["message"]
    leaks = [finding for finding in report["findings"] if finding["kind"] == "leak"]
    assert [finding["patients"] for finding in leaks if finding["patients"]] == [["p04"]]
    assert report["splits"]["folds"][0]["train"]["classes"].keys() == {"sick", "well"}


def test_errors_of_reading_are_warnings_if_bad_images_are_skipped(radtransfer, bad_images):
    outcome = radtransfer("data", "check", bad_images / "images.csv", "--on-bad-image", "skip", "--json")
    severities = {finding["kind"]: finding["severity"] for finding in json.loads(outcome.out)["findings"]}
    assert severities["truncated"] == severities["missing"] == "warning"
    assert severities["leak"] == "error" and outcome.code == 3


def test_the_page_is_whole_escaped_and_needs_nothing_else(radtransfer, bad_images, tmp_path):
    outcome = radtransfer("data", "check", bad_images / "images.csv", "--out", tmp_path / "out")
    assert outcome.code == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "check.html"}
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;&amp;.png" in page
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,)", page)
    assert page.count("<img ") > 10
    assert json.loads((tmp_path / "out" / "check.json").read_text())["valid"] is False


def test_a_duplicate_in_drawn_folds_is_a_leak_and_one_in_a_patient_is_not(radtransfer, tiny_images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(tiny_images / "images", root)
    shutil.copy(root / "well" / "p00_0.png", root / "well" / "z99_0.png")
    arguments = ("data", "check", root, "--image-size", 24, "--folds", 3, "--json")
    outcome = radtransfer(*arguments)
    findings = json.loads(outcome.out)["findings"]
    assert outcome.code == 3
    assert [f["files"] for f in findings if f["kind"] == "leak"] == [["well/p00_0.png", "well/z99_0.png"]]
    (root / "well" / "z99_0.png").rename(root / "well" / "p00_2.png")
    outcome = radtransfer(*arguments, "--patient-regex", r"(p\d+)_")
    assert outcome.code == 0, outcome.err
    assert [f["severity"] for f in json.loads(outcome.out)["findings"] if f["kind"] == "duplicate"] == ["warning"]


@pytest.fixture
def spelt(tiny_images, tmp_path):
    """The tiny images, half of each patient in train and half in test, under two spellings."""
    rows = list(csv.reader((tiny_images / "images.csv").read_text().splitlines()))[1:]
    for i, row in enumerate(rows):
        row[2:] = [f"{i // 2:04d}", "test"] if i % 2 else [str(i // 2), "train"]
    with (tmp_path / "spelt.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient", "split"], *rows])
    return tmp_path / "spelt.csv"


def test_two_spellings_of_patients_are_found_with_the_leak_that_they_hide(radtransfer, tiny_images, spelt, tmp_path):
    data = (spelt, "--image-root", tiny_images / "images")
    outcome = radtransfer("data", "check", *data, "--json", "--out", tmp_path / "out")
    assert outcome.code == 3
    report = json.loads(outcome.out)
    kinds = {finding["kind"]: finding for finding in report["findings"] if finding["severity"] == "error"}
    assert set(kinds) == {"patients_alike", "leak"}
    assert report["patients"] == 24
    assert "24 patients have several spellings in column 'patient'" in kinds["patients_alike"]["message"]
    assert kinds["leak"]["patients"] in [[str(number), f"{number:04d}"] for number in range(24)]
    assert "One patient under several spellings" in (tmp_path / "out" / "check.html").read_text()


def test_two_spellings_of_patients_stop_every_command_unless_they_are_allowed(
    radtransfer, tiny_images, spelt, tmp_path
):
    data = (spelt, "--image-root", tiny_images / "images")
    for command in (
        ("data", "split", *data, "--out", tmp_path / "folds.csv"),
        ("data", "prepare", *data, "--image-size", 24, "--out", tmp_path / "prepared"),
        ("finetune", "--data", *data, "--dry-run"),
    ):
        outcome = radtransfer(*command)
        assert (outcome.code, outcome.out) == (3, ""), command
        assert "--allow-alike-patients" in outcome.err and "'0000'" in outcome.err
    outcome = radtransfer("data", "split", *data, "--out", tmp_path / "folds.csv", "--allow-alike-patients")
    assert outcome.code == 0, outcome.err
    assert "48 patients" in outcome.out
    again = outcome.err.splitlines()[-1].split("next      radtransfer finetune ")[1].split()
    table = read_table(DataSettings(source=again[1], image_root=again[3], allow_alike_patients=True))
    assert again[4:] == ["--allow-alike-patients"] and len(set(table.patients)) == 48


@pytest.fixture
def twins(tiny_images, tmp_path):
    """The tiny images with a split, and a brighter JPEG of a training image in test as the other class."""
    shutil.copytree(tiny_images / "images", tmp_path / "images")
    rows = list(csv.reader((tiny_images / "images.csv").read_text().splitlines()))[1:]
    splits = ("train", "train", "train", "val", "test")
    rows = [[*row, splits[int(row[2][1:]) // 2 % 5]] for row in rows]
    assert rows[0][1:] == ["well", "p00", "train"]
    with Image.open(tmp_path / "images" / rows[0][0]) as image:
        twin = image.resize((96, 96), Image.Resampling.BICUBIC).point(lambda value: value + 60)
    twin.save(tmp_path / "images" / "twin.jpg", quality=90)
    rows.append(["twin.jpg", "sick", "other", "test"])
    with (tmp_path / "twins.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient", "split"], *rows])
    return (tmp_path / "twins.csv", "--image-root", tmp_path / "images", "--image-size", 24)


def test_nearly_identical_images_with_opposite_labels_stop_a_check_and_warn_a_training(radtransfer, twins):
    outcome = radtransfer("data", "check", *twins, "--json")
    assert outcome.code == 3
    errors = [finding for finding in json.loads(outcome.out)["findings"] if finding["severity"] == "error"]
    assert [finding["kind"] for finding in errors] == ["near_duplicate"]
    assert errors[0]["files"] == ["well/p00_0.png", "twin.jpg"]
    assert "labelled sick, well; in train and test of fold 1" in errors[0]["message"]
    training = ("finetune", "--data", *twins, "--backbone", "cbr_tiny", "--batch-size", 8, "--dry-run")
    for _ in range(2):  # the second time nothing is decoded
        outcome = radtransfer(*training)
        assert outcome.code == 0, outcome.err
        assert "warning   leak: 1 set of images looks nearly identical but with opposite labels" in outcome.err
        assert "'well/p00_0.png' in train, well and 'twin.jpg' in test, sick, fold 1" in outcome.err


def test_modes_are_shown_by_class_in_text_page_and_json(radtransfer, tiny_images, tmp_path):
    shutil.copytree(tiny_images / "images", tmp_path / "images")
    for file in sorted((tmp_path / "images" / "sick").iterdir())[:22]:
        with Image.open(file) as image:
            converted = image.convert("RGBA")
        converted.save(file)
    options = ("--patient-regex", r"(p\d+)_", "--folds", 3, "--out", tmp_path / "out")
    outcome = radtransfer("data", "check", tmp_path / "images", *options)
    assert outcome.code == 0, outcome.err
    assert re.search(r"class +grey +RGB with alpha\n +sick +2 +22\n +well +24 +0\n", outcome.out)
    assert "22 images stored as RGB with alpha, 26 as grey: all 22 are sick; 22 of 24 sick, 0 of 24" in outcome.out
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report["class_modes"] == {
        "sick": {"grey": 2, "RGB with alpha": 22},
        "well": {"grey": 24, "RGB with alpha": 0},
    }
    page = (tmp_path / "out" / "check.html").read_text()
    assert "<th>stored as grey</th><th>stored as RGB with alpha</th>" in page
    assert "<td>24</td><td>12</td><td>2</td><td>22</td>" in page


def test_a_check_counts_ordered_grades_from_the_positive_one(radtransfer, tmp_path):
    rng = np.random.default_rng(0)
    for grade, count in enumerate((9, 9, 9, 2)):
        (tmp_path / str(grade)).mkdir()
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(tmp_path / str(grade) / f"{number}.png")
    checked = ("data", "check", tmp_path, "--folds", 1, "--json")
    outcome = radtransfer(*checked, "--positive-from", 9)
    assert (outcome.code, "none is at or above it" in outcome.out) == (3, True)
    (tmp_path / "3").rename(tmp_path.parent / "left_out")
    messages = [
        finding["message"] for finding in json.loads(radtransfer(*checked, "--positive-from", 2).out)["findings"]
    ]
    assert any("of grade ≥ 2: its AUC is unreliable" in message for message in messages)
    assert not any("of 2:" in message for message in messages)


def test_too_few_patients_and_missing_data_exit_with_3_and_json(radtransfer, tiny_images, tmp_path):
    outcome = radtransfer("data", "check", tiny_images / "images", "--folds", 60, "--json")
    assert outcome.code == 3
    assert ("few_patients", "error") in {(f["kind"], f["severity"]) for f in json.loads(outcome.out)["findings"]}
    outcome = radtransfer("data", "check", tmp_path / "nowhere", "--json")
    assert outcome.code == 3
    assert [f["kind"] for f in json.loads(outcome.out)["findings"]] == ["table"]


def test_an_out_that_is_no_folder_is_refused_before_anything_is_read(radtransfer, tiny_images, tmp_path):
    (tmp_path / "file").touch()
    assert radtransfer("data", "check", tiny_images / "images", "--out", tmp_path / "file").code == 2


def test_an_out_that_cannot_be_made_exits_with_2(radtransfer, tiny_images, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    outcome = radtransfer("data", "check", tiny_images / "images", "--out", tmp_path / "link" / "checked")
    assert outcome.code == 2
    assert "Choose another" in outcome.err


def test_an_interrupt_exits_with_130(radtransfer, tiny_images, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("radtransfer.cli.terminal.TerminalProgress.count", interrupt)
    assert radtransfer("data", "check", tiny_images / "images").code == INTERRUPTED


def folds_of(source, root, **settings):
    table = read_table(DataSettings(source=str(source), image_root=str(root)))
    return [
        {path: split for path, split in zip(table.paths, fold.split.tolist(), strict=True) if split}
        for fold in assign_folds(table, SplitSettings(**settings), seed=5, allow_leakage=False)
    ]


@pytest.mark.parametrize("size", [(), ("--train-size", 10)])
def test_split_writes_what_finetune_draws_and_reads_back(radtransfer, tiny_images, tmp_path, size):
    out, root = tmp_path / "folds.csv", tiny_images / "images"
    arguments = ("data", "split", tiny_images / "images.csv", "--image-root", root, "--folds", 3, "--repeats", 2)
    outcome = radtransfer(*arguments, "--seed", 5, "--out", out, *size)
    assert outcome.code == 0, outcome.err
    assert "48 images, 24 patients" in outcome.out
    assert f"--data {out} --image-root {root}" in outcome.err
    settings = {"folds": 3, "repeats": 2, "train_size": size[1] if size else None}
    drawn = folds_of(tiny_images / "images.csv", root, **settings)
    assert folds_of(out, root) == drawn and len(drawn) == 6
    assert out.read_text().splitlines()[0] == "path,label,patient,fold,split"
    for fold in drawn:
        assert not size or 7 <= list(fold.values()).count("train") <= 10


def test_split_counts_are_json_and_nothing_is_overwritten(radtransfer, tiny_images, tmp_path):
    arguments = ("data", "split", tiny_images / "images", "--folds", 2, "--out", tmp_path / "folds.csv")
    outcome = radtransfer(*arguments, "--json")
    folds = json.loads(outcome.out)["folds"]
    assert [fold["test"]["classes"] for fold in folds] == [{"sick": 12, "well": 12}] * 2
    before = (tmp_path / "folds.csv").read_text()
    outcome = radtransfer(*arguments, "--seed", 1)
    assert outcome.code == 2 and "--overwrite" in outcome.err
    assert (tmp_path / "folds.csv").read_text() == before
    assert radtransfer(*arguments, "--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "folds.csv").read_text() != before
    assert radtransfer("data", "split", tiny_images / "images", "--out", tmp_path / "folds.txt").code == 2


def test_too_large_a_training_set_exits_with_2_and_both_numbers(radtransfer, tiny_images, tmp_path):
    arguments = ("data", "split", tiny_images / "images", "--train-size", 40, "--folds", 2)
    outcome = radtransfer(*arguments, "--out", tmp_path / "folds.csv")
    assert outcome.code == 2
    assert re.search(r"--train-size 40: fold 1 has 2\d training images", outcome.err)
    assert not (tmp_path / "folds.csv").exists()


def test_finetune_trains_on_the_size_that_was_asked_for(radtransfer, table_options, tmp_path):
    options = ("--folds", 1, "--epochs", 1, "--train-size", 8, "--out", tmp_path / "run")
    outcome = radtransfer("finetune", *table_options, *options)
    assert outcome.code == 0, outcome.err
    assert "--train-size 8: training sets of 8 images, whole patients, stratified" in outcome.err
    with (tmp_path / "run" / "folds.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    trained = [row for row in rows if row["split"] == "train"]
    assert sorted(row["label"] for row in trained) == ["sick"] * 4 + ["well"] * 4
    assert len({row["patient"] for row in trained}) == 4


def test_preview_draws_a_sheet_of_rows_and_copies(radtransfer, tiny_images, tmp_path):
    sizes = []
    for images, copies in ((2, 1), (4, 3)):
        out = tmp_path / f"{images}.png"
        options = ("--image-size", 24, "--images", images, "--copies", copies, "--out", out)
        outcome = radtransfer("data", "preview", tiny_images / "images", *options)
        assert outcome.code == 0, outcome.err
        with Image.open(out) as sheet:
            sizes.append(sheet.size)
    assert sizes[1][0] - sizes[0][0] == pytest.approx(2 * 1.26 * 200, abs=2)
    assert sizes[1][1] - sizes[0][1] == pytest.approx(2 * 1.26 * 200, abs=2)
    assert radtransfer("data", "preview", tiny_images / "images", *options).code == 2
    assert radtransfer("data", "preview", tiny_images / "images", "--augmentation", "lihgt").code == 2
    assert radtransfer("data", "preview", tiny_images / "images", "--out", tmp_path / "a.txt").code == 2


def test_preview_names_images_that_cannot_be_read(radtransfer, tiny_images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(tiny_images / "images", root)
    for file in sorted(root.rglob("*.png"))[2:]:
        file.write_bytes(b"")
    options = ("--image-size", 24, "--images", 48, "--out", tmp_path / "preview.png")
    outcome = radtransfer("data", "preview", root, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("is skipped (an empty file)") == 46


@pytest.fixture
def dialects(tiny_images, tmp_path):
    """The tiny images in a table with missing words, an official split and a column of several labels."""
    with (tiny_images / "images.csv").open(newline="") as handle:
        rows = list(csv.reader(handle))[1:]
    lines = []
    for number, (path, label, patient) in enumerate(rows):
        patient = "NA" if number % 12 == 11 else patient
        lines.append([path, "unknown" if number in (3, 30, 41) else label, patient])
        lines[-1] += ["train" if number < 34 else "test", f"{label}|scar" if number % 4 == 0 else label]
    file = tmp_path / "dialects.csv"
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient", "cohort", "findings"], *lines])
    return file, ("--image-root", tiny_images / "images")


def test_check_counts_missing_words_and_names_the_split_that_is_ignored(radtransfer, dialects):
    file, root = dialects
    outcome = radtransfer("data", "check", file, *root, "--folds", 2, "--image-size", 24, "--json")
    found = {item["kind"]: item for item in json.loads(outcome.out)["findings"]}
    assert outcome.code == 3
    assert found["missing_labels"]["severity"] == "error" and "'unknown' 3" in found["missing_labels"]["message"]
    assert len(found["missing_labels"]["files"]) == 3
    assert found["missing_patients"]["severity"] == "warning" and "'NA' 4" in found["missing_patients"]["message"]
    assert "'cohort' contains splits" in found["split_ignored"]["message"]
    options = ("--missing-values", "drop", "--split-column", "cohort", "--label-column", "label")
    outcome = radtransfer("data", "check", file, *root, *options, "--image-size", 24, "--json")
    found = {item["kind"]: item["severity"] for item in json.loads(outcome.out)["findings"]}
    assert outcome.code == 0
    assert found["missing_labels"] == "note" and "split_ignored" not in found
    outcome = radtransfer("data", "check", file, *root, "--label-column", "findings", "--image-size", 24, "--json")
    assert "joined_labels" in {item["kind"] for item in json.loads(outcome.out)["findings"]}


def test_split_keeps_the_groups_of_missing_patients_and_the_words_that_are_classes(radtransfer, dialects, tmp_path):
    file, root = dialects
    out, again = tmp_path / "folds.csv", tmp_path / "again.csv"
    options = (*root, "--folds", 2, "--missing-values", "class")
    outcome = radtransfer("data", "split", file, *options, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "warning   missing patients: 4 of 48 images have none" in outcome.err
    assert "--missing-values class" in outcome.err.splitlines()[-1]
    images = outcome.out.splitlines()[0]
    outcome = radtransfer("data", "split", out, *options, "--out", again)
    assert outcome.out.splitlines()[0] == images
    assert again.read_text() == out.read_text()


def test_a_config_reads_a_table_in_any_dialect(radtransfer, dialects, tmp_path):
    file, root = dialects
    (tmp_path / "run.yaml").write_text(
        f"data:\n  source: {file}\n  image_root: {root[1]}\n  label_column: findings\n  label_separator: '|'\n"
        "  split_column: cohort\n  missing_patients: own\n  missing_values: drop\n"
        "model: {backbone: cbr_tiny, image_size: 24}\ntraining: {epochs: 1}\n"
    )
    outcome = radtransfer("finetune", tmp_path / "run.yaml", "--dry-run", "-v")
    assert outcome.code == 0, outcome.err
    assert "3 labels (scar 12, sick 24, well 24)" in outcome.err
    outcome = radtransfer("finetune", tmp_path / "run.yaml", "--dry-run", "--missing-patients", "error")
    assert outcome.code == 3 and "4 rows have no patient" in outcome.err


def test_evaluate_and_prepare_take_the_same_tables(radtransfer, dialects, finished_run, tmp_path):
    file, root = dialects
    outcome = radtransfer("evaluate", finished_run.path, "--data", file, *root)
    assert outcome.code == 3 and "3 rows have no label (column 'label': 'unknown' 3)" in outcome.err
    options = ("--missing-values", "drop", "--split-column", "cohort")
    outcome = radtransfer("evaluate", finished_run.path, "--data", file, *root, *options, "--split", "test")
    assert outcome.code == 0, outcome.err
    outcome = radtransfer("data", "prepare", file, *root, *options, "--image-size", 24, "--out", tmp_path / "prepared")
    assert outcome.code == 0, outcome.err
    settings = {"image_root": str(root[1]), "missing_values": "drop", "split_column": "cohort"}
    before = read_table(DataSettings(source=str(file), **settings))
    after = read_table(DataSettings(source=f"tfds:{tmp_path / 'prepared'}"))
    assert (after.patients, after.labels, after.splits.tolist()) == (
        before.patients,
        before.labels,
        before.splits.tolist(),
    )


@pytest.mark.parametrize(("options", "said"), [((), False), (("--folds", 5), True), (("--folds", 3), True)])
def test_folds_that_are_not_used_are_told_to_who_asked_for_them(radtransfer, tmp_path, options, said):
    rows = [f"{split}{label}.png,{label},{split}\n" for split in ("train", "val", "test") for label in "ab"]
    (tmp_path / "t.csv").write_text("path,label,split\n" + "".join(rows))
    outcome = radtransfer("data", "split", tmp_path / "t.csv", *options, "--out", tmp_path / "folds.csv")
    assert outcome.code == 0, outcome.err
    assert ("not used: the data has 1" in outcome.err) is said


def test_formats_that_are_not_read_and_dangling_links_are_told_by_the_check(radtransfer, tiny_images, tmp_path):
    shutil.copytree(tiny_images / "images", tmp_path / "images")
    for number in range(12):
        (tmp_path / "images" / "sick" / f"{number}.heic").write_bytes(b"x")
    (tmp_path / "images" / "well" / "annexed.png").symlink_to("../.git/annex/objects/1.png")
    outcome = radtransfer("data", "check", tmp_path / "images", "--json")
    assert outcome.code == 3
    report = json.loads(outcome.out)
    assert report["images"] == 49
    missing = [finding for finding in report["findings"] if finding["kind"] == "missing"]
    assert [finding["files"] for finding in missing] == [["well/annexed.png"]]
    assert any(finding["message"].startswith("12 HEIC not read") for finding in report["findings"])
    (tmp_path / "images" / "notes.txt").write_text("x")
    (tmp_path / "images" / "third").mkdir()
    shown = radtransfer("data", "check", tmp_path / "images").out
    for words in ("12 HEIC not read", "not images, ignored: 1", "without images, ignored: 'third'"):
        assert words in shown


def test_a_table_that_lists_a_format_that_is_not_read_names_it(radtransfer, tiny_images, tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.nii.gz").write_bytes(b"\x1f\x8b\x08" + bytes(99))
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{number}.nii.gz,{number % 2}\n" for number in range(20)))
    for command in (
        ("data", "check", tmp_path / "t.csv", "--json"),
        ("finetune", "--data", tmp_path / "t.csv", "--dry-run", "--backbone", "cbr_tiny", "--image-size", 24),
    ):
        outcome = radtransfer(*command)
        assert outcome.code == 3
        assert "NIfTI, which is not read; write its slices as PNG" in outcome.out + outcome.err
