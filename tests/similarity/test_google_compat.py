"""Numbers published with google/svcca can be reproduced, and its failures are explained."""

import numpy as np
import pytest
import svd_reference

from radtransfer import similarity
from radtransfer.errors import SimilarityError

EPSILONS = [0.0, 1e-12, 1e-10, 1e-6]


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_coefficients_agree_with_the_steps_of_the_package(layers, epsilon):
    result = similarity.cca(*layers, compat="google", epsilon=epsilon)
    np.testing.assert_allclose(result.coefficients, svd_reference.svcca_package(*layers, epsilon), rtol=0, atol=1e-12)
    assert result.value == result.coefficients.mean()


def test_its_shrinkage_is_repeated(layers):
    exact, shrunk = similarity.cca(*layers), similarity.cca(*layers, compat="google", epsilon=1e-3)
    assert shrunk.value < exact.value - 1e-5


@pytest.mark.parametrize("epsilon", EPSILONS[1:])
def test_the_same_channels_are_dropped(make_layers, epsilon):
    x, y = make_layers(0, 2000, 16, 16)
    x, y = x * np.logspace(-4, 4, 16), y * np.logspace(4, -4, 16)
    result = similarity.cca(x, y, compat="google", epsilon=epsilon)
    expected = svd_reference.svcca_package(x, y, epsilon)
    assert min(result.rank_x, result.rank_y) == expected.size < 16
    np.testing.assert_allclose(result.coefficients, expected, rtol=0, atol=1e-9)


def test_dependent_channels_and_a_large_epsilon_agree_to_nine_digits(make_layers):
    x, y = make_layers(0, 2000, 16, 16)
    x[:, :3] = x[:, 5:8]
    result = similarity.cca(x, y, compat="google", epsilon=1e-6)
    np.testing.assert_allclose(result.coefficients, svd_reference.svcca_package(x, y, 1e-6), rtol=0, atol=1e-9)
    assert result.value < similarity.cca(x, y).value - 0.02


def test_where_the_package_stops_the_error_says_why(make_layers):
    left, _, right = np.linalg.svd(make_layers(0, 2000, 16, 16)[0], full_matrices=False)
    x, y = (left * np.logspace(0, -9, 16)) @ right, make_layers(1, 2000, 16, 16)[1]
    with pytest.raises(SimilarityError, match="google/svcca fails on x"):
        similarity.cca(x, y, compat="google", epsilon=1e-15)


def test_it_accepts_few_rows_like_the_package(make_layers):
    x, y = make_layers(0, 50, 16, 16)
    assert similarity.cca(x, y, compat="google", epsilon=1e-10).rows == 50


@pytest.mark.parametrize("option", [{"weights": "google"}, {"compat": "google"}])
def test_pwcca_as_in_the_package_agrees_with_its_steps_on_the_rows(make_layers, option):
    x, y = make_layers(3, 700, 9, 14)
    x += 2.5
    covariance = np.cov(np.hstack([x, y]).T)
    scale_x, scale_y = np.abs(covariance[:9, :9]).max(), np.abs(covariance[9:, 9:]).max()
    roots = []
    for block in (covariance[:9, :9] / scale_x, covariance[9:, 9:] / scale_y):
        values, vectors = np.linalg.eigh(np.linalg.pinv(block))
        roots.append(vectors @ np.diag(np.sqrt(values)) @ vectors.T)
    left, values, _ = np.linalg.svd(roots[0] @ (covariance[:9, 9:] / np.sqrt(scale_x * scale_y)) @ roots[1])
    means = x.mean(axis=0)
    directions, _ = np.linalg.qr((x - means) @ left + means)
    weights = np.abs(directions.T @ x).sum(axis=1)
    assert similarity.pwcca(x, y, **option).value == pytest.approx(weights @ values / weights.sum(), abs=1e-10)


def test_pwcca_as_in_the_package_depends_on_offsets_and_the_papers_does_not(make_layers):
    x, y = make_layers(3, 700, 9, 14)
    google = [similarity.pwcca(rows, y, weights="google").value for rows in (x, x + 100)]
    paper = [similarity.pwcca(rows, y).value for rows in (x, x + 100)]
    assert abs(google[0] - google[1]) > 1e-3
    assert paper[0] == pytest.approx(paper[1], abs=1e-10)


def test_svcca_can_pass_its_components_to_the_package_steps(make_layers):
    x, y = make_layers(2, 900, 20, 20)
    parts = []
    for rows in (x, y):
        left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        count = int(np.argmax(np.cumsum(values) / values.sum() >= 0.99)) + 1
        parts.append(left[:, :count] * values[:count])
    result = similarity.svcca(x, y, rule="singular_values", compat="google", epsilon=1e-6)
    np.testing.assert_allclose(result.coefficients, svd_reference.svcca_package(*parts, 1e-6), atol=1e-10)


def test_an_epsilon_without_compat_is_an_error(layers):
    with pytest.raises(SimilarityError, match="compat='google'"):
        similarity.cca(*layers, epsilon=1e-10)
    with pytest.raises(SimilarityError, match="0 or more"):
        similarity.cca(*layers, compat="google", epsilon=-1.0)


def test_a_constant_layer_is_an_error_here_too(layers):
    with pytest.raises(SimilarityError, match="constant"):
        similarity.cca(np.zeros_like(layers[0]), layers[1], compat="google")
