"""Which images a preview shows."""

import numpy as np
from PIL import Image

from radtransfer.config.load import load_config
from radtransfer.data.pictures import chosen_rows, preview_data
from radtransfer.data.table import ImageTable


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


def test_each_variation_stands_in_the_row_of_its_image(tmp_path):
    for i in range(8):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("L", (24, 24), 20 + 25 * i).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    options = {"data.source": str(tmp_path), "model.image_size": 24, "training.augmentation": "random_rotation"}
    figure = preview_data(load_config(options=options), images=8, copies=3)
    means = np.array([axes.images[0].get_array().mean() for axes in figure.axes]).reshape(8, 4)
    assert sorted(means[:, 0].round().tolist()) == [20 + 25 * i for i in range(8)]
    np.testing.assert_allclose(means, np.repeat(means[:, :1], 4, axis=1), atol=10)


def test_without_augmentation_there_are_no_variations(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (24, 24), 90).save(tmp_path / name / "1.png")
    options = {"data.source": str(tmp_path), "model.image_size": 24, "training.augmentation": "none"}
    assert len(preview_data(load_config(options=options), images=8, copies=3).axes) == 2
