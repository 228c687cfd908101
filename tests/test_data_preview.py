"""Which images a preview shows."""

import numpy as np

from radtransfer.data_preview import chosen_rows
from radtransfer.datasets.image_table import ImageTable


def make_table(targets):
    paths = tuple(f"{i}.png" for i in range(len(targets)))
    return ImageTable(paths, (None,) * len(paths), np.array(targets, "float32"), ("a", "b"), "multilabel")


def test_classes_take_turns():
    table = make_table([[1, 0]] * 50 + [[0, 1]] * 3)
    rows = chosen_rows(table, 8, 0)
    assert (table.targets[rows, 1] == 1).sum() == 3
    assert len(set(rows.tolist())) == len(rows) == 8
    assert (np.diff(table.targets[rows, 1]) >= 0).all()


def test_another_seed_chooses_others_and_the_same_one_the_same():
    table = make_table([[1, 0], [0, 1]] * 30)
    np.testing.assert_array_equal(chosen_rows(table, 8, 0), chosen_rows(table, 8, 0))
    assert set(chosen_rows(table, 8, 0).tolist()) != set(chosen_rows(table, 8, 1).tolist())


def test_images_without_or_with_several_labels_are_shown_once():
    table = make_table([[0, 0], [1, 1], [1, 0]])
    assert sorted(chosen_rows(table, 10, 0).tolist()) == [0, 1, 2]
