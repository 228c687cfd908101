import csv
import io
import os
from functools import cache

import numpy as np
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data.labels import is_missing
from radtransfer.data.readers import read_table
from radtransfer.data.splits import assign_folds
from radtransfer.data.table import ImageTable
from radtransfer.errors import RadtransferError
from radtransfer.images.refs import file_of

IMAGES = ("a.png", "b.png", "c.png", "d/e.png", "d/a.png", "näme with space.png", "x,y.png")
cells = st.one_of(
    st.sampled_from(
        ["", "0", "1", "-1", "1.0", "nan", "NaN", "2", "train", "val", "test", " 1 ", "well", "sick", "1e400"]
    ),
    st.sampled_from(["NA", "None", "<NA>", "-", "unknown", "#N/A", "-1.0", "0.37", "True", "no", "eval", "Validate"]),
    st.sampled_from(["a|b", "b", "a;b", "['a', 'b']", "[]", '["a", None]', "[a", "No Finding", "|", "a,,b"]),
    st.text(max_size=12),
)
paths = st.one_of(
    st.sampled_from(IMAGES),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", ".", "..", "a.png#2", "~/a.png", "file:///a.png", "A.JPG"]),
    st.sampled_from(["annexed.png", "circle.png", "'b.png'", "n%C3%A4me%20with%20space.png", "d\\e.png", "c"]),
    cells,
)
headers = st.one_of(
    st.sampled_from(["path", "label", "patient", "fold", "split", "Label", "image", "class", "edema", ""]),
    st.sampled_from(["set", "phase", "is_test", "isTrain", "kfold", "group", "cohort", "Finding Labels"]),
    st.text(max_size=8),
)
settings_drawn = st.builds(
    DataSettings,
    label_column=st.lists(headers, max_size=2).map(tuple),
    path_column=st.one_of(st.none(), headers),
    patient_column=st.one_of(st.none(), headers),
    task=st.sampled_from(["auto", "binary", "multiclass", "multilabel"]),
    positive_from=st.one_of(st.none(), st.integers(-2, 3)),
    frames=st.sampled_from(["first", "all"]),
    split_column=st.one_of(st.none(), st.none(), headers),
    fold_column=st.one_of(st.none(), st.none(), headers),
    label_separator=st.one_of(st.none(), st.none(), st.sampled_from("|;,"), st.text(max_size=2)),
    missing_values=st.sampled_from(["error", "drop", "class"]),
    missing_patients=st.sampled_from(["own", "error"]),
)


@cache
def folder(base):
    place = base / "tables"
    for name in IMAGES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(place / name)
    (place / "annexed.png").symlink_to("../.git/annex/objects/1.png")
    (place / "circle.png").symlink_to("circle.png")
    (place / "c.heic").write_bytes(b"x")
    return place


def check(source, settings, *, inside):
    """What reading and splitting a table give: a table whose parts agree, or a documented error."""

    def work():
        table = read_table(DataSettings(**{**vars(settings), "source": str(source)}))
        assign_folds(table, SplitSettings(folds=2), seed=0, allow_leakage=True)
        return table

    table = answer(work, codes=(2, 3))
    if isinstance(table, ImageTable):
        assert len(table.paths) == len(table.files) == len(table.targets) == len(set(table.paths))
        assert table.targets.shape[1] == len(table.classes) == len(set(table.classes))
        assert not any(map(is_missing, table.patients or ()))
        if table.task == "multiclass" and inside is not None and settings.missing_values != "class":
            assert not any(map(is_missing, table.classes))
        if inside is not None:
            for place in table.files:
                assert place is None or inside in file_of(place).resolve().parents
    return table


@given(st.text(max_size=300), settings_drawn)
@fuzzed(100)
def test_any_text_is_a_table_or_refused(tmp_path_factory, text, settings):
    place = folder(tmp_path_factory.getbasetemp())
    (place / "any.csv").write_text(text, encoding="utf-8", newline="")
    check(place / "any.csv", settings, inside=None)


beginnings = st.lists(
    st.sampled_from(["sep=;", "sep=,", '"sep=\t"', "# by hand, on a day", "#", "#a,b", '"# quoted",,', "", "   "]),
    max_size=4,
)
table_bytes = st.sampled_from(
    [
        b"\x1f\x8b\x08",
        b"PK\x03\x04",
        b"PAR1\x15",
        b"\x93NUMPY",
        b"\x89HDF\r\n\x1a\n",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"<html",
    ]
)


@given(beginnings, st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@fuzzed(75)
def test_whatever_stands_before_the_header_the_rows_are_read_or_refused(tmp_path_factory, before, delimiter, encoding):
    place = folder(tmp_path_factory.getbasetemp())
    rows = [["path", "label", "patient"], ["a.png", "x", "1"], ["b.png", "y", "2"]]
    text = "\n".join([*before, *(delimiter.join(row) for row in rows)])
    (place / "before.csv").write_text(text, encoding=encoding, newline="")
    table = answer(read_table, DataSettings(source=str(place / "before.csv")), codes=(3,))
    if isinstance(table, ImageTable):
        assert (table.paths, table.labels, table.patients) == (("a.png", "b.png"), ("x", "y"), ("1", "2"))
    else:
        assert any(line.lower().strip('"').startswith("sep=") for line in before) or "#a,b" in before, str(table)


@given(table_bytes, st.binary(max_size=300))
@fuzzed(50)
def test_files_of_other_kinds_are_refused_as_tables(tmp_path_factory, start, content):
    place = folder(tmp_path_factory.getbasetemp())
    (place / "kind.csv").write_bytes(start + content)
    found = check(place / "kind.csv", DataSettings(), inside=None)
    assert "kind.csv" in str(found) and not isinstance(found, ImageTable)


@given(st.binary(max_size=300))
@fuzzed(50)
def test_any_bytes_are_a_table_or_refused_by_name(tmp_path_factory, content):
    place = folder(tmp_path_factory.getbasetemp())
    (place / "bytes.csv").write_bytes(content)
    found = check(place / "bytes.csv", DataSettings(), inside=None)
    assert isinstance(found, ImageTable) or "bytes.csv" in str(found)


@given(
    st.lists(headers, min_size=1, max_size=5),
    st.lists(st.tuples(paths, cells, cells, cells, cells), max_size=8),
    st.sampled_from(",;\t|"),
    settings_drawn,
    st.booleans(),
)
@fuzzed(200)
def test_any_cells_are_a_table_or_refused(tmp_path_factory, header, rows, delimiter, settings, rooted):
    place = folder(tmp_path_factory.getbasetemp())
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(
        [["path", *header][:5], *(row[: len(header) + 1][:5] for row in rows)]
    )
    (place / "cells.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    if rooted:
        settings = DataSettings(**{**vars(settings), "image_root": str(place)})
    check(place / "cells.csv", settings, inside=place.resolve())


MISSING = st.sampled_from(["", "NA", "nan", "None", "null", "unknown", "-", "<NA>", "n/a", " N/A "])


@given(
    st.lists(
        st.tuples(st.one_of(MISSING, st.sampled_from("xyz")), st.one_of(MISSING, st.sampled_from("1234"))), min_size=4
    ),
    st.sampled_from(["drop", "class"]),
)
@fuzzed(50)
def test_missing_words_are_never_one_class_or_one_patient(tmp_path_factory, rows, how):
    place = folder(tmp_path_factory.getbasetemp())
    with (place / "words.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [["path", "label", "patient"], *((f"{i}.png", *row) for i, row in enumerate(rows))]
        )
    table = check(place / "words.csv", DataSettings(missing_values=how), inside=place.resolve())
    if isinstance(table, ImageTable):
        said = {f"{i}.png": row for i, row in enumerate(rows)}
        kept = [said[path] for path in table.paths]
        assert len(table) == len(rows) if how == "class" else set(table.classes) == {label for label, _ in kept}
        known = [patient for _, patient in kept if not is_missing(patient)]
        if table.patients is None:
            assert not known
        else:
            assert len(set(table.patients)) == len(set(known)) + len(kept) - len(known)


def spelt(number, how):
    """One of the many ways in which a patient id is written."""
    prefix, zeros, before, after = how
    return f"{before}{prefix}{'0' * zeros}{number}{after}"


spellings = st.tuples(
    st.sampled_from(["p", "P", "\uff30", "p\u200b"]),
    st.integers(0, 5),
    st.sampled_from(["", " ", "\u00a0", "\ufeff", "'", '"', "\t"]),
    st.sampled_from(["", " ", ".0", ".00", "\u200b", '"', "\u2003"]),
)


@given(st.lists(st.tuples(st.integers(1, 12), spellings), min_size=4, max_size=20))
@fuzzed(75)
def test_patients_in_any_spelling_are_told_apart_by_their_numbers_or_refused(tmp_path_factory, written):
    place = folder(tmp_path_factory.getbasetemp())
    rows = [[f"{row}.png", "ab"[number % 2], spelt(number, how)] for row, (number, how) in enumerate(written)]
    rows[0][0] = "a.png"
    text = io.StringIO()
    csv.writer(text).writerows([["path", "label", "patient"], *rows])
    (place / "spelt.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    allowed = DataSettings(allow_alike_patients=True)
    as_written = check(place / "spelt.csv", allowed, inside=place.resolve())
    found = check(place / "spelt.csv", DataSettings(), inside=place.resolve())
    if isinstance(as_written, ImageTable):
        people = len({number for number, _ in written})
        several = len(set(as_written.patients)) > people
        assert isinstance(found, ImageTable) != several
        assert not several or "--allow-alike-patients" in str(found)


names = st.text(
    st.characters(blacklist_characters="/\x00", blacklist_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


# A folder that is called like a missing value is a class, with a note.
labels = names.filter(lambda name: not is_missing(name))


@given(st.lists(labels, min_size=2, max_size=4, unique=True), st.lists(names, min_size=1, max_size=3, unique=True))
@fuzzed(30)
def test_any_file_and_folder_names_are_read_or_refused(tmp_path_factory, classes, stems):
    place = tmp_path_factory.mktemp("named")
    image = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(image, "PNG")
    count = 0
    for label in classes:
        (place / label).mkdir(exist_ok=True)
        for stem in stems:
            (place / label / f"{stem}.png").write_bytes(image.getvalue())
            count += not stem.startswith(".") and not label.startswith(".")
    table = check(place, DataSettings(), inside=place.resolve())
    if isinstance(table, ImageTable):
        assert len(table) == count
        assert all(file.is_file() for file in table.files)


def test_a_name_that_is_not_text_is_refused_by_name(tmp_path):
    for label in ("well", "sick"):
        (tmp_path / label).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / label / "a.png")
    (tmp_path / "well" / "a.png").rename(tmp_path / "well" / os.fsdecode(b"\xff\xfe.png"))
    error = answer(read_table, DataSettings(source=str(tmp_path)), names="not valid Unicode", codes=(3,))
    assert isinstance(error, RadtransferError)
