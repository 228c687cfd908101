"""Orders and seeds of an epoch: pure functions of seed, fold, epoch and image."""

import numpy as np
import pytest

from radtransfer.images.pipeline import epoch_order, filled_rows, image_seeds, path_keys

SOME = {"seed": 3, "fold": 1, "epoch": 5}


def seeds_of(paths: list[str], **changed: int) -> np.ndarray:
    return image_seeds(path_keys(paths), **SOME | changed)


def test_an_epoch_visits_every_image_once():
    assert sorted(epoch_order(101, **SOME)) == list(range(101))


def test_an_order_can_be_repeated():
    np.testing.assert_array_equal(epoch_order(50, **SOME), epoch_order(50, **SOME))


@pytest.mark.parametrize("changed", [{"seed": 4}, {"fold": 2}, {"epoch": 6}])
def test_order_and_seeds_change_with_seed_fold_and_epoch(changed):
    assert not np.array_equal(epoch_order(50, **SOME), epoch_order(50, **SOME | changed))
    assert not np.any(seeds_of(["a.png", "b.png"]) == seeds_of(["a.png", "b.png"], **changed))


def test_orders_and_seeds_are_the_same_in_every_release():
    assert epoch_order(8, **SOME).tolist() == [7, 5, 2, 0, 3, 6, 1, 4]
    assert seeds_of(["a.png"]).tolist() == [[1081344491, 378936443]]


def test_an_image_keeps_its_seed_whatever_the_others_are():
    alone, together = seeds_of(["b/x.png"]), seeds_of(["a.png", "b/x.png", "c.png"])
    np.testing.assert_array_equal(alone[0], together[1])


def test_seeds_of_many_images_are_spread_over_the_whole_range():
    seeds = seeds_of([f"{i}.png" for i in range(4000)])
    assert seeds.dtype == np.int32 and seeds.shape == (4000, 2)
    assert len(np.unique(seeds, axis=0)) == 4000
    np.testing.assert_allclose(seeds.mean(axis=0) / 2**31, 0, atol=0.05)
    np.testing.assert_allclose(seeds.std(axis=0) / 2**31, 3**-0.5, atol=0.02)


@pytest.mark.parametrize(("images", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 4)])
def test_the_last_batch_is_filled_from_the_first_images_with_weight_zero(images, batch_size):
    order = np.random.default_rng(0).permutation(images)
    rows, weights = filled_rows(order, batch_size)
    assert rows.shape == weights.shape == (-(-images // batch_size), batch_size)
    np.testing.assert_array_equal(rows[weights == 1], order)
    filling = rows[weights == 0]
    np.testing.assert_array_equal(filling, np.tile(order, batch_size)[: len(filling)])
