import numpy as np
import pytest
from spot_networks import spot_network

from radtransfer.evaluation.heat_maps import class_maps, median, occlusion_maps, on_grid, rank_correlation
from radtransfer.evaluation.scored_network import Decision, ScoredNetwork


@pytest.mark.parametrize(
    ("activation", "outputs", "decisions"),
    [
        ("softmax", 2, [Decision(0), Decision(1)]),
        ("sigmoid", 2, [Decision(0), Decision(1)]),
        ("sigmoid", 1, [Decision(0, present=True)] * 2),
    ],
)
def test_covering_the_spot_that_decides_lowers_the_score_most(spots, activation, outputs, decisions):
    network = ScoredNetwork(spot_network(activation, outputs), None)
    found = occlusion_maps(network, spots, decisions, cells=8)
    for image, columns in ((0, slice(1, 3)), (1, slice(5, 7))):
        if outputs == 1 and image == 0:
            continue  # nothing on the left speaks for the only output
        mass = np.maximum(found[image], 0)
        assert mass[2:5, columns].sum() > 0.6 * mass.sum()


def test_covering_what_speaks_against_raises_the_score(spots):
    network = ScoredNetwork(spot_network("sigmoid", 1), None)
    found = occlusion_maps(network, spots, [Decision(0, present=False)] * 2, cells=8)
    assert found[1, 2:5, 5:7].max() < 0
    assert np.abs(found[0, :, :4]).max() < 1e-5


def test_grad_cam_is_the_weighted_sum_of_the_layer(spots):
    network = ScoredNetwork(spot_network("sigmoid", 1), None)
    maps, gradients = network.gradients(spots, [Decision(0)] * 2)
    expected = np.einsum("nhwc,nc->nhw", maps, gradients.mean(axis=(1, 2)))
    np.testing.assert_allclose(class_maps(network, spots, [Decision(0)] * 2), expected, rtol=1e-5)
    # Of a dense layer on the flattened map the gradient is the kernel, whatever the image.
    kernel = network.model.get_layer("head").get_weights()[0].reshape(8, 8, 3)
    np.testing.assert_allclose(gradients[0], kernel, atol=1e-6)


def test_the_opposite_decision_has_the_opposite_map(spots):
    network = ScoredNetwork(spot_network("sigmoid", 1), None)
    there, absent = (class_maps(network, spots, [Decision(0, present=present)] * 2) for present in (True, False))
    assert there.max() > 0
    np.testing.assert_allclose(there, -absent, rtol=1e-6)


def test_more_images_than_one_pass_takes_are_all_done(spots):
    network = ScoredNetwork(spot_network("sigmoid", 1), None)
    many = np.concatenate([spots] * 6)
    maps = class_maps(network, many, [Decision(0)] * 12)
    assert maps.shape == (12, 8, 8)
    np.testing.assert_allclose(maps[10:], maps[:2], rtol=1e-5)


def test_rank_correlation_has_its_known_values():
    values = np.arange(9.0).reshape(3, 3)
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.zeros((3, 3))) is None
    assert rank_correlation(np.array([1, 1, 2]), np.array([1, 2, 3])) == pytest.approx(np.sqrt(3) / 2)
    assert median([None, 0.2, 0.4, None]) == pytest.approx(0.3)
    assert median([None]) is None


def test_a_map_on_a_coarser_grid_keeps_its_mean():
    maps = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    coarse = on_grid(maps, (4, 4))
    assert coarse.shape == (2, 4, 4)
    np.testing.assert_allclose(coarse.mean(axis=(1, 2)), maps.mean(axis=(1, 2)), atol=0.02)
