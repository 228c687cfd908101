"""Input on which other implementations stop or are silently wrong."""

import numpy as np
import pytest
import svd_reference

from radtransfer import similarity
from radtransfer.errors import SimilarityError
from radtransfer.similarity import SIMILARITIES, StreamedSums

ROWS, CHANNELS = 3000, 24


def with_condition(rows, condition):
    left, _, right = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    return (left * np.logspace(0, -np.log10(condition), rows.shape[1])) @ right


def hard_case(name, x):
    x = x.copy()
    if "dead" in name:
        x[:, ::5] = 0
    if "constant" in name:
        x[:, ::5] = 0.1 + 0.2
    if "duplicate" in name:
        x[:, 1:4] = x[:, 11:14]
    if "dependent" in name:
        x[:, 6:9] = x[:, 11:20] @ np.random.default_rng(9).normal(size=(9, 3))
    if "scales" in name:
        x *= np.logspace(-4, 4, x.shape[1])
    if "offset" in name:
        x += 1e5
    return x


CASES = {
    "full rank": (24, 0),
    "dead": (19, 5),
    "constant": (19, 5),
    "duplicate": (21, 0),
    "dependent": (21, 0),
    "dead and duplicate": (16, 5),
    "scales over 8 decades": (24, 0),
    "offset": (24, 0),
    "constant, duplicate and scales": (16, 5),
}


@pytest.fixture(params=CASES)
def case(request, make_layers):
    x, y = make_layers(1, ROWS, CHANNELS, CHANNELS)
    return hard_case(request.param, x), y, *CASES[request.param]


def streamed(x, y, batch, **options):
    sums = StreamedSums(pairs="same", **options)
    for start in range(0, len(x), batch):
        sums.add({"x": x[start : start + batch]}, {"y": y[start : start + batch]})
    return sums.pair("x", "y")


def test_cca_is_right_to_nine_digits_and_reports_rank_and_dead_channels(case):
    x, y, rank, dead = case
    result = similarity.cca(x, y)
    assert (result.rank_x, result.rank_y, len(result.constant_x), result.constant_y) == (rank, CHANNELS, dead, ())
    np.testing.assert_allclose(result.coefficients, svd_reference.coefficients(x, y), atol=1e-9)


def test_the_second_layer_is_treated_like_the_first(case):
    x, y, rank, dead = case
    result = similarity.cca(y, x)
    assert (result.rank_y, len(result.constant_y), result.constant_x) == (rank, dead, ())
    np.testing.assert_allclose(result.coefficients, svd_reference.coefficients(x, y), atol=1e-9)


def test_float32_input_is_as_exact_as_its_values_in_float64(case):
    x, y = (rows.astype(np.float32) for rows in case[:2])
    expected = similarity.cca(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(similarity.cca(x, y).coefficients, expected.coefficients, atol=1e-12)


def test_small_batches_give_what_one_batch_gives(case):
    x, y, rank, _ = case
    whole = SIMILARITIES["cca"].of_sums(streamed(x, y, ROWS))
    for batch in (1, 7, 640):
        result = SIMILARITIES["cca"].of_sums(streamed(x, y, batch))
        assert result.rank_x == rank
        np.testing.assert_allclose(result.coefficients, whole.coefficients, atol=1e-12)


@pytest.mark.parametrize("name", ["svcca", "pwcca", "linear_regression", "cka", "procrustes", "rbf_cka"])
def test_every_other_measure_is_finite_and_between_0_and_1(case, name):
    x, y, _, dead = case
    result = getattr(similarity, name)(x[:1000], y[:1000])
    assert 0 < result.value < 1
    assert len(result.constant_x) == dead


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_a_condition_of_a_million_keeps_every_direction_and_nine_digits(make_layers, both):
    x, y = make_layers(2, ROWS, CHANNELS, CHANNELS)
    x = with_condition(x, 1e6)
    y = with_condition(y, 1e6) if both else y
    expected = svd_reference.coefficients(x, y)
    result = similarity.cca(x, y)
    assert (result.rank_x, result.rank_y) == (CHANNELS, CHANNELS)
    assert result.condition_x > 1e5
    np.testing.assert_allclose(result.coefficients, expected, atol=1e-9)
    by_sums = SIMILARITIES["cca"].of_sums(streamed(x, y, 500)).coefficients
    np.testing.assert_allclose(by_sums, expected, atol=1e-6)
    assert similarity.pwcca(x, y).value == pytest.approx(svd_reference.projection_weighted(x, y), abs=1e-9)
    assert similarity.linear_regression(x, y).value == pytest.approx(svd_reference.explained(x, y), abs=1e-9)


def test_float32_products_are_right_to_six_digits_and_find_the_same_rank(case):
    x, y, rank, dead = case
    result = SIMILARITIES["cca"].of_sums(streamed(x, y, 500, precision="float32"))
    assert (result.rank_x, len(result.constant_x)) == (rank, dead)
    np.testing.assert_allclose(result.coefficients, svd_reference.coefficients(x, y), atol=5e-6)


def test_dead_channels_are_named_by_index(make_layers):
    x, y = make_layers(0, 500, 8, 8)
    x[:, [2, 5]] = 4.0
    assert similarity.cca(x, y).constant_x == (2, 5)


@pytest.mark.filterwarnings("ignore:20 rows of 70 channels")
@pytest.mark.parametrize("name", ["cka", "procrustes", "rbf_cka", "rsa"])
def test_dead_channels_are_named_where_there_are_more_channels_than_rows(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 70)), rng.normal(size=(20, 50))
    x[:, [3, 40]] = 0.1
    result = SIMILARITIES[name].of_rows(x, y)
    assert (result.constant_x, result.constant_y, result.rank_x) == ((3, 40), (), 19)


def test_dead_channels_can_count_as_unlike(make_layers):
    x, y = make_layers(0, 500, 8, 8)
    x[:, [2, 5]] = 0
    plain = similarity.cca(x, y)
    assert similarity.cca(x, y, normalize="channels").value == pytest.approx(plain.value * 6 / 8)


@pytest.mark.parametrize("name", list(SIMILARITIES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_layer_and_channel(make_layers, name, bad):
    x, y = make_layers(0, 2000, 6, 6)
    y[1500, 3] = bad
    with pytest.raises(SimilarityError, match=r"^y: expected finite.*1 of 6 channels \(3\)"):
        SIMILARITIES[name].of_rows(x, y)


def test_infinities_of_both_signs_are_still_found(make_layers):
    x, y = make_layers(0, 500, 6, 6)
    x[:2, 0] = np.inf, -np.inf
    with pytest.raises(SimilarityError, match=r"^x: expected finite"):
        similarity.cca(x, y)


@pytest.mark.parametrize("name", list(SIMILARITIES))
def test_a_layer_of_constants_is_an_error_that_says_so(make_layers, name):
    x, y = make_layers(0, 500, 6, 6)
    with pytest.raises(SimilarityError, match="constant"):
        SIMILARITIES[name].of_rows(np.full_like(x, 0.3), y)


@pytest.mark.parametrize(
    ("name", "channels", "needed"), [("cca", 30, 120), ("pwcca", 70, 280), ("linear_regression", 130, 520)]
)
def test_too_few_rows_are_an_error_that_says_how_many_would_do(name, channels, needed):
    x, y = np.random.default_rng(0).normal(size=(2, needed - 1, channels))
    with pytest.raises(SimilarityError, match=f"at least {needed} rows.*received {needed - 1}"):
        getattr(similarity, name)(x, y)
    assert getattr(similarity, name)(x, y, allow_few_rows=True).rows == needed - 1
    x, y = np.random.default_rng(0).normal(size=(2, needed, channels))
    assert getattr(similarity, name)(x, y).rows == needed


def test_with_fewer_rows_than_channels_the_message_counts_channels():
    x, y = np.random.default_rng(0).normal(size=(2, 20, 64))
    with pytest.raises(SimilarityError, match="at least 256 rows"):
        similarity.cca(x, y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((9, 3, 3, 2)), np.ones((9, 2)), "reshape"),
        (np.ones((9, 2)), np.ones((8, 2)), "same rows as x"),
        (np.ones((9, 2), complex), np.ones((9, 2)), "real numbers"),
        (np.ones((0, 2)), np.ones((0, 2)), "shape"),
        (np.array([["a"] * 2] * 9), np.ones((9, 2)), "real numbers"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_explained(x, y, message):
    with pytest.raises(SimilarityError, match=message):
        similarity.cca(x, y)


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, bool])
def test_other_real_numbers_are_read_as_float64(dtype):
    x, y = (np.random.default_rng(0).normal(size=(2, 500, 5)) * 3).clip(0).astype(dtype)
    assert similarity.cca(x, y).value == similarity.cca(x.astype(np.float64), y.astype(np.float64)).value


def test_rsa_explains_rows_without_variance(make_layers):
    x, y = make_layers(0, 50, 6, 6)
    x[4] = 0
    with pytest.raises(SimilarityError, match=r"first: row 4.*euclidean"):
        similarity.rsa(x, y)
    assert similarity.rsa(x, y, dissimilarity="euclidean").value > 0


@pytest.mark.parametrize("name", ["rbf_cka", "rsa"])
@pytest.mark.parametrize("rows", [3, 10_001])
def test_measures_of_rows_by_rows_refuse_what_they_cannot_hold(name, rows):
    x = np.random.default_rng(0).normal(size=(rows, 2))
    with pytest.raises(SimilarityError, match=f"4 to 10000 rows.*received {rows}"):
        getattr(similarity, name)(x, x)


def test_rbf_cka_explains_rows_that_are_all_alike():
    x = np.zeros((20, 2))
    x[0] = 1
    with pytest.raises(SimilarityError, match="identical"):
        similarity.rbf_cka(x, np.random.default_rng(0).normal(size=(20, 2)))
