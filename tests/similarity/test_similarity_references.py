"""Each measure against an independent computation from the rows."""

import numpy as np
import pytest
import svd_reference

from radtransfer import similarity
from radtransfer.errors import SimilarityError, UnknownNameError


def test_cca_agrees_with_singular_values_between_orthonormal_bases(layers):
    result = similarity.cca(*layers)
    expected = svd_reference.coefficients(*layers)
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-12)
    assert result.value == pytest.approx(expected.mean(), abs=1e-12)
    assert similarity.cca(*layers, squared=True).value == pytest.approx(np.mean(expected**2), abs=1e-12)


@pytest.mark.parametrize(("rule", "power"), [("variance", 2), ("singular_values", 1)])
def test_svcca_agrees_with_cca_of_the_leading_components(layers, rule, power):
    result = similarity.svcca(*layers, rule=rule)
    parts = [svd_reference.leading(rows, power) for rows in layers]
    assert (result.rank_x, result.rank_y) == tuple(part.shape[1] for part in parts)
    np.testing.assert_allclose(result.coefficients, np.linalg.svd(parts[0].T @ parts[1])[1], atol=1e-12)


def test_the_two_svcca_rules_keep_different_numbers_of_components(make_layers):
    x, y = make_layers(3, 2000, 40, 40)
    x, y = x * np.logspace(0, -3, 40), y * np.logspace(0, -3, 40)
    assert similarity.svcca(x, y).rank_x < similarity.svcca(x, y, rule="singular_values").rank_x < 40


def test_svcca_of_everything_is_cca(layers):
    whole = similarity.svcca(*layers, threshold=1.0)
    assert whole.value == pytest.approx(similarity.cca(*layers).value, abs=1e-12)


def test_pwcca_agrees_with_the_paper_by_qr(layers):
    x, y = layers
    assert similarity.pwcca(x, y).value == pytest.approx(svd_reference.projection_weighted(x, y), abs=1e-12)
    assert similarity.pwcca(y, x).value == pytest.approx(svd_reference.projection_weighted(y, x), abs=1e-12)


def test_pwcca_weighs_by_its_first_argument(layers):
    x, y = layers
    assert similarity.pwcca(x, y).value != pytest.approx(similarity.pwcca(y, x).value, abs=1e-4)


@pytest.mark.parametrize("debiased", [True, False])
def test_streamed_linear_cka_agrees_with_kernels_of_rows_by_rows(layers, debiased):
    expected = svd_reference.kernel_alignment(*(rows @ rows.T for rows in layers), debiased)
    assert similarity.cka(*layers, debiased=debiased).value == pytest.approx(expected, abs=1e-12)


def test_debiased_cka_survives_large_offsets(layers):
    x, y = layers
    assert similarity.cka(x + 1e5, y - 1e4).value == pytest.approx(similarity.cka(x, y).value, abs=1e-10)


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_survives_activations_as_large_as_float32_holds(layers, debiased):
    x, y = layers
    large = similarity.cka(x * 1e37, y * 1e36, debiased=debiased)
    assert large.value == pytest.approx(similarity.cka(x, y, debiased=debiased).value, abs=1e-12)


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_of_more_channels_than_rows_agrees_with_kernels(debiased):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 300)) + 3, rng.normal(size=(60, 20))
    expected = svd_reference.kernel_alignment(x @ x.T, y @ y.T, debiased)
    assert similarity.cka(x, y, debiased=debiased).value == pytest.approx(expected, abs=1e-12)


def test_unrelated_wide_layers_look_alike_to_biased_cka_only():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 512))
    assert similarity.cka(x, y, debiased=False).value > 0.6
    assert abs(similarity.cka(x, y).value) < 0.02


@pytest.mark.parametrize("debiased", [True, False])
def test_rbf_cka_agrees_with_kernels_written_out(layers, debiased):
    kernels = []
    for rows in layers:
        distances = np.sum((rows[:, None] - rows[None]) ** 2, axis=2)
        kernels.append(np.exp(-distances / (2 * np.median(distances[np.triu_indices(len(rows), 1)]))))
    expected = svd_reference.kernel_alignment(*kernels, debiased)
    assert similarity.rbf_cka(*layers, debiased=debiased).value == pytest.approx(expected, abs=1e-10)


def test_procrustes_is_the_cosine_after_the_best_rotation(make_layers):
    x, y = make_layers(5, 300, 8, 8)
    result = similarity.procrustes(x, y)
    assert result.value == pytest.approx(svd_reference.best_rotation(x, y), abs=1e-12)
    assert result.coefficients.sum() == pytest.approx(result.value, abs=1e-12)


def test_linear_regression_agrees_with_least_squares(layers):
    assert similarity.linear_regression(*layers).value == pytest.approx(svd_reference.explained(*layers), abs=1e-12)


def test_rsa_agrees_with_correlations_written_out(make_layers):
    stats = pytest.importorskip("scipy.stats")
    x, y = make_layers(6, 40, 20, 15)
    x[7] = x[3]
    entries = [1 - np.corrcoef(rows)[np.triu_indices(40, 1)] for rows in (x, y)]
    assert similarity.rsa(x, y).value == pytest.approx(stats.spearmanr(*entries)[0], abs=1e-9)
    pearson = similarity.rsa(x, y, comparison="pearson").value
    assert pearson == pytest.approx(np.corrcoef(entries)[0, 1], abs=1e-12)
    distances = [np.linalg.norm(r[:, None] - r[None], axis=2)[np.triu_indices(40, 1)] for r in (x, y)]
    euclidean = similarity.rsa(x, y, dissimilarity="euclidean", comparison="pearson").value
    assert euclidean == pytest.approx(np.corrcoef(distances)[0, 1], abs=1e-9)


@pytest.mark.parametrize(
    ("measure", "option"),
    [("cca", "normalize"), ("svcca", "rule"), ("pwcca", "weights"), ("rsa", "comparison"), ("cca", "compat")],
)
def test_a_misspelt_option_is_an_error_with_the_known_ones(layers, measure, option):
    with pytest.raises(UnknownNameError, match="paprika"):
        getattr(similarity, measure)(*layers, **{option: "paprika"})


@pytest.mark.parametrize("threshold", [0, 1.5, np.nan])
def test_svcca_refuses_a_threshold_that_is_no_share(layers, threshold):
    with pytest.raises(SimilarityError, match="threshold"):
        similarity.svcca(*layers, threshold=threshold)
