"""The small-data regime: whole patients, stratified, never more than asked for, nested."""

import numpy as np
import pytest

from radtransfer.config.schema import SplitSettings
from radtransfer.data.splits import assign_folds, fold_notes, fold_rows, leading_groups
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError


def make_table(labels, patients=None, splits=None):
    classes = tuple(sorted(set(labels)))
    return ImageTable(
        paths=tuple(f"{i}.png" for i in range(len(labels))),
        files=(None,) * len(labels),
        targets=np.array([[label == name for name in classes] for label in labels], dtype="float32"),
        classes=classes,
        task="multiclass",
        patients=None if patients is None else tuple(map(str, patients)),
        splits=None if splits is None else np.array(splits, dtype="U5"),
    )


def draw(table, *, seed=0, **settings):
    return assign_folds(table, SplitSettings(**settings), seed=seed, allow_leakage=False)


def trained(fold):
    return set(np.flatnonzero(fold.split == "train").tolist())


@pytest.fixture(scope="module")
def patients():
    """900 images of 200 patients with 1 to 8 images each, a third of them sick."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(200), rng.integers(1, 9, 200))[:900]
    return make_table(["b" if patient % 3 else "a" for patient in ids], ids)


@pytest.mark.parametrize("size", [20, 61, 200, 400])
def test_training_sets_hold_whole_patients_and_at_most_the_size(patients, size):
    whole = draw(patients, folds=3, repeats=2)
    for fold, uncut in zip(draw(patients, folds=3, repeats=2, train_size=size), whole, strict=True):
        taken = trained(fold)
        assert size - 8 < len(taken) <= size
        assert taken < trained(uncut)
        for name in ("val", "test"):
            np.testing.assert_array_equal(fold.split == name, uncut.split == name)
        left = {patients.patients[i] for i in trained(uncut) - taken}
        assert not left & {patients.patients[i] for i in taken}
        assert set(np.flatnonzero(fold.split == "").tolist()) == trained(uncut) - taken


def test_classes_keep_their_shares(patients):
    for size in (60, 120, 300):
        for fold in draw(patients, folds=2, repeats=5, train_size=size):
            share = patients.targets[fold.split == "train"].mean(axis=0)
            np.testing.assert_allclose(share, patients.targets.mean(axis=0), atol=0.1)


def test_smaller_sets_are_part_of_larger_ones(patients):
    for sizes in zip(*(draw(patients, folds=3, train_size=size) for size in (20, 50, 100, 333)), strict=True):
        for smaller, larger in zip(sizes, sizes[1:], strict=False):
            assert trained(smaller) < trained(larger)


def test_the_seed_of_the_repeat_decides(patients):
    one, two = draw(patients, folds=1, repeats=2, train_size=50)
    (again,) = draw(patients, folds=1, seed=1, train_size=50)
    assert trained(one) != trained(two)
    assert trained(two) == trained(again)


def test_single_images_give_exactly_the_size():
    table = make_table("aab" * 60)
    for size in (5, 17, 100):
        assert [len(trained(fold)) for fold in draw(table, train_size=size)] == [size] * 5


def test_the_size_of_the_whole_training_set_takes_all_of_it(patients):
    (whole,) = draw(patients, folds=1)
    (fold,) = draw(patients, folds=1, train_size=len(trained(whole)))
    np.testing.assert_array_equal(fold.split, whole.split)


def test_given_splits_are_cut_too():
    table = make_table("ab" * 50, splits=[(["train"] * 3 + ["val", "test"]) * 20])
    (fold,) = draw(table, train_size=12)
    assert len(trained(fold)) == 12
    assert (fold.split == "val").sum() == (fold.split == "test").sum() == 20
    assert all(row[4] for row in fold_rows(table, [fold]))


def test_more_than_there_are_is_an_error_with_both_numbers(patients):
    (fold,) = draw(patients, folds=1)
    with pytest.raises(ConfigError, match=rf"--train-size 5000: fold 1 has {len(trained(fold))} training images"):
        draw(patients, folds=1, train_size=5000)


def test_a_size_below_one_patient_is_an_error():
    table = make_table("ab" * 60, np.arange(120) // 10 * 2 + np.arange(120) % 2)
    with pytest.raises(ConfigError, match="patients here have 5 or more"):
        draw(table, folds=1, train_size=4)


def test_one_class_only_is_an_error_that_names_the_option():
    table = make_table("ab" * 60, np.arange(120) // 10 * 2 + np.arange(120) % 2)
    with pytest.raises(DataError, match="raise --train-size"):
        draw(table, folds=1, train_size=5)


def test_a_note_says_how_many_train(patients):
    folds = draw(patients, folds=3, train_size=60)
    sizes = sorted(len(trained(fold)) for fold in folds)
    (note,) = fold_notes(patients, SplitSettings(folds=3, train_size=60), folds)
    assert note == f"--train-size 60: training sets of {sizes[0]} to {sizes[-1]} images, whole patients, stratified"


def test_a_note_names_classes_that_are_not_trained():
    table = make_table("a" * 100 + "b" * 100 + "c" * 5)
    settings = SplitSettings(folds=1, train_size=4)
    notes = fold_notes(table, settings, assign_folds(table, settings, seed=0, allow_leakage=False))
    assert "fold 1: no training image of c" in notes


def test_groups_that_cannot_be_halved_alike_are_still_ordered():
    counts = np.array([[9.0, 9.0], [1.0, 1.0], [1.0, 1.0]])
    sizes = {int(counts[leading_groups(counts, 2, (seed,)), -1].sum()) for seed in range(20)}
    assert sizes <= {0, 1, 2} and 2 in sizes
