import numpy as np
import pytest
import tensorflow as tf

from radtransfer.similarity.layer_rows import (
    SAMPLINGS,
    image_order,
    read_rows,
    sample_channels,
    spread_positions,
    whole_image_positions,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_spread_positions_take_as_many_cells_of_every_image():
    positions = spread_positions((7, 5), images=6, rows=100, rng=rng())
    assert positions.rows == 100
    assert set(positions.counts.tolist()) == {16, 17}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_cell_of_an_image_is_read_twice(sampling):
    positions = SAMPLINGS[sampling]((4, 6), images=5, rows=80, rng=rng())
    for image in range(5):
        cells, owners = positions.between(image, image + 1)
        assert np.unique(cells).size == cells.size
        assert not owners.any()
        assert cells.size == 0 or cells.max() < 24


def test_a_layer_with_fewer_positions_gives_all_of_them():
    positions = spread_positions((3, 2), images=4, rows=10_000, rng=rng())
    assert positions.rows == 24
    assert sorted(positions.cells.tolist()) == sorted([*range(6)] * 4)


@pytest.mark.parametrize(("side", "images"), [(56, 3), (28, 13), (14, 51), (7, 204), (4, 625), (112, 1)])
def test_whole_images_are_as_many_as_juodelyte_took(side, images):
    positions = whole_image_positions((side, side), images=700, rows=10_000, rng=rng())
    assert np.count_nonzero(positions.counts) == images
    assert positions.rows == images * side * side


def test_rolled_positions_are_those_of_the_next_image():
    positions = spread_positions((4, 4), images=3, rows=7, rng=rng())
    for image in range(3):
        following, _ = positions.rolled().between(image, image + 1)
        assert following.tolist() == positions.between((image + 1) % 3, (image + 1) % 3 + 1)[0].tolist()


@pytest.mark.parametrize("shape", [(6, 8), (12, 16), (13, 9)])
def test_a_finer_map_is_read_where_the_middle_of_the_cell_lies(shape):
    grid = (6, 8)
    cells = np.arange(48)
    coordinates = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)[np.newaxis]
    maps, images = tf.constant(coordinates, tf.float32), np.zeros(48, np.int64)
    y, x = read_rows(maps, cells, images, grid=grid, channels=np.arange(2)).T
    middle_y, middle_x = (cells // 8 + 0.5) / 6, (cells % 8 + 0.5) / 8
    assert (y == np.floor(middle_y * shape[0])).all()
    assert (x == np.floor(middle_x * shape[1])).all()


def test_layers_of_one_width_are_given_the_same_channels_unless_their_sides_differ():
    a = sample_channels(200, 20, seed=1)
    assert a.tolist() == sample_channels(200, 20, seed=1).tolist()
    assert a.tolist() != sample_channels(200, 20, seed=1, side="b").tolist()
    assert a.tolist() != sample_channels(200, 20, seed=2).tolist()
    assert sample_channels(12, 20, seed=1).tolist() == list(range(12))


def test_a_patient_is_in_one_group_and_never_next_to_itself():
    patients = [f"p{i // 3}" for i in range(60)]
    order, groups = image_order(patients, groups=5, seed=3)
    assert sorted(order.tolist()) == list(range(60))
    assert groups.tolist() == sorted(groups.tolist())
    assert np.bincount(groups).tolist() == [12] * 5
    for patient in set(patients):
        assert len({g for i, g in zip(order, groups, strict=True) if patients[i] == patient}) == 1
    ordered = [patients[i] for i in order]
    assert all(a != b for a, b in zip(ordered, ordered[1:], strict=False))
