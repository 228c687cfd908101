"""Folds: by patient, stratified, reproducible, never leaking."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data.readers import read_table
from radtransfer.data.splits import FOLD_COLUMNS, assign_folds, fold_notes, fold_rows
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError


def make_table(labels, patients=None, splits=None, files=None, paths=None):
    """A table with one label, a letter, per image."""
    classes = tuple(sorted(set(labels)))
    return ImageTable(
        paths=paths or tuple(f"{i}.png" for i in range(len(labels))),
        files=files or (None,) * len(labels),
        targets=np.array([[label == name for name in classes] for label in labels], dtype="float32"),
        classes=classes,
        task="multiclass",
        patients=None if patients is None else tuple(map(str, patients)),
        splits=None if splits is None else np.array(splits, dtype="U5"),
    )


def draw(table, *, seed=0, allow_leakage=False, **settings):
    return assign_folds(table, SplitSettings(**settings), seed=seed, allow_leakage=allow_leakage)


def rows(fold, name):
    return set(np.flatnonzero(fold.split == name).tolist())


TWO_CLASSES = "ab" * 30


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.sampled_from("aab")), min_size=4, max_size=40),
    folds=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
    shuffle=st.randoms(use_true_random=False),
)
def test_drawn_folds_keep_patients_whole_test_each_image_once_and_ignore_row_order(sizes, folds, seed, shuffle):
    sizes = sizes + [(2, label) for label in "ab" for _ in range(6)]
    images = [(f"p{n}", label, f"p{n}/{i}.png") for n, (size, label) in enumerate(sizes) for i in range(size)]

    def folds_of(images):
        patients, labels, paths = zip(*images, strict=True)
        return paths, draw(make_table(labels, patients, paths=paths), folds=folds, seed=seed)

    paths, drawn = folds_of(images)
    assert [fold.number for fold in drawn] == list(range(1, folds + 1))
    for fold in drawn:
        assert set(fold.split.tolist()) == {"train", "val", "test"}
        of_patient = {}
        for (patient, _, _), split in zip(images, fold.split.tolist(), strict=True):
            assert of_patient.setdefault(patient, split) == split
    tested = sum((fold.split == "test").astype(int) for fold in drawn)
    assert (tested == 1).all() if folds > 1 else 0 < tested.sum() < len(images)

    shuffled = shuffle.sample(images, len(images))
    other_paths, other = folds_of(shuffled)
    for fold, same in zip(drawn, other, strict=True):
        assert dict(zip(paths, fold.split, strict=True)) == dict(zip(other_paths, same.split, strict=True))


def test_classes_are_shared_out_alike():
    table = make_table("a" * 437 + "b" * 210 + "c" * 133)
    for fold in draw(table):
        counts = [table.targets[fold.split == name].sum(axis=0) for name in ("train", "val", "test")]
        np.testing.assert_allclose(counts[2], [437 / 5, 210 / 5, 133 / 5], atol=1)
        np.testing.assert_allclose(counts[1], [35, 16.8, 10.6], atol=1)


def test_patients_of_many_sizes_are_shared_out_nearly_alike():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), rng.integers(1, 20, 300))
    labels = rng.choice(list("aaab"), len(patients))
    table = make_table(labels, patients)
    for fold in draw(table):
        share = table.targets[fold.split == "test"].sum(axis=0) / table.targets.sum(axis=0)
        np.testing.assert_allclose(share, 0.2, atol=0.005)


def test_several_labels_are_shared_out_alike():
    rng = np.random.default_rng(0)
    targets = (rng.random((1000, 4)) < [0.5, 0.2, 0.1, 0.02]).astype("float32")
    table = ImageTable(tuple(map(str, range(1000))), (None,) * 1000, targets, tuple("abcd"), "multilabel")
    for fold in draw(table):
        np.testing.assert_allclose(targets[fold.split == "test"].sum(axis=0), targets.sum(axis=0) / 5, atol=2)


def test_the_validation_share_is_as_asked():
    for fraction in (0.05, 0.1, 0.25):
        fold = draw(make_table("ab" * 500), val_fraction=fraction)[0]
        assert len(rows(fold, "val")) == pytest.approx(800 * fraction, abs=2)


def test_one_fold_is_a_fixed_split_with_a_fifth_for_test():
    (fold,) = draw(make_table("ab" * 500), folds=1)
    assert [len(rows(fold, name)) for name in ("train", "val", "test")] == [720, 80, 200]


def test_the_seed_changes_the_folds_also_of_large_unlike_patients():
    patients = np.repeat(np.arange(40), np.arange(1, 41))
    labels = ["ab"[p % 2] for p in patients]
    first, second = (draw(make_table(labels, patients), seed=seed)[0].split for seed in (0, 1))
    assert (first != second).any()


def test_the_same_seed_gives_the_same_folds_on_every_machine():
    splits = "".join(name[1] for name in draw(make_table("ab" * 10), folds=2, seed=3)[0].split)
    assert splits == "eeerrreraeraeerereer"


def test_repeats_are_numbered_through_and_have_seeds_of_their_own():
    folds = draw(make_table(TWO_CLASSES), folds=3, repeats=2, seed=7)
    assert [(fold.number, fold.repeat, fold.seed) for fold in folds] == [
        *((1, 1, 7), (2, 1, 7), (3, 1, 7)),
        *((4, 2, 8), (5, 2, 8), (6, 2, 8)),
    ]
    assert (folds[0].split != folds[3].split).any()
    alone = draw(make_table(TWO_CLASSES), folds=3, seed=8)
    assert (folds[3].split == alone[0].split).all()


def test_a_fold_can_be_chosen_and_an_unknown_one_lists_what_exists():
    assert [fold.number for fold in draw(make_table(TWO_CLASSES), fold=(4, 2))] == [2, 4]
    with pytest.raises(ConfigError, match=r"No fold 6, 9 \(--fold\): there are 1 to 5"):
        draw(make_table(TWO_CLASSES), fold=(9, 6, 1))


def test_links_to_one_file_stay_together(tmp_path):
    labels, paths = "ab" * 12, []
    for i in range(0, 24, 4):
        for j in range(4):
            paths.append(tmp_path / f"{i + j}.png")
            if j < 2:
                paths[-1].write_bytes(b"x")
            else:
                paths[-1].symlink_to(paths[-3])
    names = tuple(f"{i:02}" for i in range(24))
    folds = draw(make_table(labels, files=tuple(paths), paths=names), folds=3)
    backwards = draw(make_table(labels[::-1], files=tuple(paths[::-1]), paths=names[::-1]), folds=3)
    for fold, same in zip(folds, backwards, strict=True):
        assert (fold.split == same.split[::-1]).all()
        for i in range(0, 24, 4):
            assert fold.split[i] == fold.split[i + 2]


# Too little


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ("a" * 20 + "b" * 3, {}, "5 folds need 5 images of every class; 'b' has 3. Use --folds 3 or fewer"),
        ("a" * 20 + "b" * 2, {}, "'b' has 2. Add images of it"),
        ("a" * 20 + "b" * 2 + "c" * 20, {}, "'b' has 2. Leave the class out, or add images of it"),
        ("a" * 20 + "b" * 2 + "c" * 2, {}, "'b' has 2, 'c' has 2. Add images of them"),
        ("a" * 20 + "b" * 2 + "c" * 2 + "d" * 9, {}, "'b' has 2, 'c' has 2. Leave these classes out, or add images of"),
        ("a" * 20 + "b" * 2, {"folds": 1}, "A train, a val and a test set need 3 images of every class; 'b' has 2"),
    ],
)
def test_too_few_images_of_a_class_are_refused_before_anything_is_drawn(labels, settings, message):
    with pytest.raises(DataError, match=message):
        draw(make_table(labels), **settings)


def test_patients_count_not_images():
    with pytest.raises(DataError, match="5 folds need 5 patients of every class; 'b' has 4. Use --folds 4"):
        draw(make_table("a" * 20 + "b" * 20, [*range(20), *(f"b{i % 4}" for i in range(20))]))


def test_every_class_with_enough_patients_is_in_every_set():
    labels = "a" * 100 + "b" * 40 + "c" * 5
    for fold in draw(make_table(labels)):
        for name in ("train", "val", "test"):
            assert {labels[i] for i in rows(fold, name)} == set("abc")


def test_a_rare_label_of_several_is_no_error():
    targets = np.zeros((30, 2), "float32")
    targets[::2, 0] = targets[0, 1] = 1
    table = ImageTable(tuple(map(str, range(30))), (None,) * 30, targets, ("a", "b"), "multilabel")
    folds = draw(table)
    assert any("not in the test set of every fold: b" in note for note in fold_notes(table, SplitSettings(), folds))


# Given splits

GIVEN = [["train"] * 6 + ["val"] * 2 + ["test"] * 2, ["test"] * 2 + ["train"] * 6 + ["val"] * 2]


def test_given_splits_are_used_as_they_are():
    table = make_table("ab" * 5, splits=GIVEN)
    folds = draw(table, repeats=2)
    assert [fold.split.tolist() for fold in folds] == GIVEN * 2
    assert [fold.seed for fold in folds] == [0, 0, 1, 1]
    notes = fold_notes(table, SplitSettings(), folds)
    assert "--folds 5 not used: the data has 2 given folds" in notes
    assert "the test sets contain 4 of 10 images" in notes


def test_a_missing_validation_set_is_drawn_from_train_by_patient_and_anew_in_each_repeat():
    patients = [i // 4 for i in range(80)]
    labels = ["ab"[i // 4 % 2] for i in range(80)]
    table = make_table(labels, patients, splits=[["train"] * 64 + ["test"] * 16])
    first, second = draw(table, repeats=2, val_fraction=0.25)
    for fold in (first, second):
        assert rows(fold, "test") == set(range(64, 80))
        assert len(rows(fold, "val")) == 16
        assert {patients[i] for i in rows(fold, "val")}.isdisjoint(patients[i] for i in rows(fold, "train"))
    assert rows(first, "val") != rows(second, "val")
    assert "no validation set given: 25% of train, by patient, is used" in fold_notes(
        table, SplitSettings(val_fraction=0.25), (first, second)
    )


@pytest.mark.parametrize(("missing", "there"), [("test", "train"), ("train", "test")])
def test_a_given_split_without_train_or_test_images_says_what_to_do(missing, there):
    message = (
        f"Fold 1 of the given split has no {missing} images .*Mark some as {missing}, or remove the split from the data"
    )
    with pytest.raises(DataError, match=message):
        draw(make_table("ab" * 5, splits=[[there] * 8 + ["val"] * 2]))


def test_one_class_in_a_given_train_set_is_an_error_and_in_a_test_set_a_note():
    with pytest.raises(DataError, match="Fold 1 has images of one class only in train. It needs two"):
        draw(make_table("aaaabb", splits=[["train"] * 3 + ["val", "test", "test"]]))
    table = make_table("ababaabb", splits=[["train"] * 4 + ["test"] * 2 + ["val"] * 2])
    folds = draw(table)
    notes = fold_notes(table, SplitSettings(), folds)
    assert "fold 1: test has one class only, its AUC is undefined" in notes
    assert "fold 1: val has one class only, its AUC is undefined" in notes


# Leaks


def test_a_patient_in_two_splits_is_named_with_a_count():
    table = make_table("ab" * 5, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2], splits=GIVEN[:1])
    with pytest.raises(DataError) as caught:
        draw(table)
    assert str(caught.value) == (
        "2 patients are in both train and test of fold 1 (e.g. 1: 0.png, 8.png). "
        "Results would be inflated. Correct the split, or continue with --allow-leakage."
    )
    folds = draw(table, allow_leakage=True)
    assert any(note.startswith("leak: 2 patients are in both") for note in fold_notes(table, SplitSettings(), folds))


def test_all_overlaps_are_reported_together():
    table = make_table("ab" * 5, [1, 2, 3, 4, 5, 6, 1, 8, 9, 1], splits=GIVEN)
    with pytest.raises(DataError) as caught:
        draw(table)
    for pair in ("train and test of fold 1", "train and val of fold 1", "val and test of fold 1", "of fold 2"):
        assert pair in str(caught.value)


def test_an_image_in_two_splits_is_named():
    paths = ("x.png", *(f"{i}.png" for i in range(1, 9)), "x.png")
    with pytest.raises(DataError, match=r"1 image is in both train and test of fold 1 \(e.g. 'x.png'\)"):
        draw(make_table("ab" * 4 + "aa", splits=GIVEN[:1], paths=paths))


def test_two_paths_to_one_file_are_one_image(tmp_path):
    (tmp_path / "0.png").write_bytes(b"x")
    (tmp_path / "9.png").hardlink_to(tmp_path / "0.png")
    files = (tmp_path / "0.png", *[None] * 8, tmp_path / "9.png")
    with pytest.raises(DataError, match="'0.png' and '9.png' are one file"):
        draw(make_table("ab" * 5, splits=GIVEN[:1], files=files))


def test_a_patient_under_two_spellings_is_one_in_leaks_and_drawn_folds_unless_allowed():
    spelt = ["001", "1", *(f"p{i}" for i in range(8))]
    with pytest.raises(DataError, match=r"1 patient is in both .*\(e.g. 001 and 1: 0.png, 1.png\)"):
        draw(make_table("ab" * 5, spelt, splits=[["train", "test", *["train"] * 4, *["test"] * 4]]))
    table = make_table("ab" * 20, [f"{'P0' if i % 2 else 'p'}{i // 2}" for i in range(40)])
    for fold in draw(table, folds=4):
        assert (fold.split[::2] == fold.split[1::2]).all()
    apart = replace(table, exact_patient_ids=True)
    assert any((fold.split[::2] != fold.split[1::2]).any() for fold in draw(apart, folds=4))


# The table of folds


def test_rows_of_the_fold_table_read_back_to_the_same_folds(tmp_path):
    table = make_table("ab" * 15, [i // 2 for i in range(30)])
    folds = draw(table, folds=3)
    text = "\n".join(",".join(map(str, row)) for row in [FOLD_COLUMNS, *fold_rows(table, folds)])
    (tmp_path / "folds.csv").write_text(text + "\n", encoding="utf-8")
    read = read_table(DataSettings(source=str(tmp_path / "folds.csv")))
    assert read.paths == table.paths
    assert read.patients == table.patients
    assert read.labels == table.labels
    assert read.splits.tolist() == [fold.split.tolist() for fold in folds]


def test_images_that_take_no_part_in_a_fold_have_no_row():
    table = make_table("ababab", splits=[["train", "train", "val", "val", "test", ""]])
    found = list(fold_rows(table, draw(table)))
    assert len(found) == 5
    assert found[0] == ("0.png", "a", "", 1, "train")


def test_the_published_busi_folds_stand_as_they_are(busi):
    table = read_table(DataSettings(source=str(busi / "folds"), image_root=str(busi / "images")))
    folds = draw(table)
    assert [len(rows(folds[0], name)) for name in ("train", "val", "test")] == [624, 31, 125]
    assert len(list(fold_rows(table, folds))) == 5 * 780
    assert fold_notes(table, SplitSettings(), folds) == ("the test sets contain 625 of 780 images",)
