"""What unrelated layers score: closed forms against simulation."""

import numpy as np
import pytest

from radtransfer import similarity
from radtransfer.errors import SimilarityError
from radtransfer.similarity import SIMILARITIES
from radtransfer.similarity.measure import moments_of


def simulated(name, rows, channels_x, channels_y, draws):
    rng = np.random.default_rng(rows + channels_x)
    of_rows = SIMILARITIES[name].of_rows
    return np.mean(
        [of_rows(rng.normal(size=(rows, channels_x)), rng.normal(size=(rows, channels_y))).value for _ in range(draws)]
    )


@pytest.mark.parametrize(
    ("rows", "x", "y", "draws"),
    [(10_000, 64, 64, 2), (2000, 100, 100, 4), (1000, 16, 64, 100), (1000, 64, 16, 100), (400, 32, 32, 60)],
)
def test_mean_cca_of_unrelated_layers_is_within_two_thousandths(rows, x, y, draws):
    assert simulated("cca", rows, x, y, draws) == pytest.approx(similarity.chance_cca(rows, x, y), abs=0.002)


@pytest.mark.parametrize(("rows", "x", "y"), [(400, 1, 1), (400, 1, 9), (60, 9, 1)])
def test_one_direction_has_an_exact_form(rows, x, y):
    expected = similarity.chance_cca(rows, x, y)
    assert simulated("cca", rows, x, y, 1500) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(("rows", "d", "published"), [(10_000, 500, 0.1908), (10_000, 64, 0.0680), (2000, 100, 0.1908)])
def test_mean_cca_agrees_with_known_values(rows, d, published):
    assert similarity.chance_cca(rows, d, d) == pytest.approx(published, abs=6e-5)


def test_few_and_many_directions_have_known_limits():
    # The smaller layer lies in a random half of the rows: each squared coefficient is near a half.
    assert similarity.chance_cca(100_001, 2, 50_000) == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert similarity.chance_cca(10**9, 8, 8) < 1e-3


@pytest.mark.parametrize("name", ["cca_squared", "linear_regression", "cka", "pwcca"])
@pytest.mark.parametrize(("x", "y"), [(20, 20), (12, 30), (30, 12)])
def test_the_other_closed_forms_agree_with_simulation(name, x, y):
    expected = SIMILARITIES[name].chance(500, x, y)
    assert simulated(name, 500, x, y, 80) == pytest.approx(expected, abs=0.004)


@pytest.mark.filterwarnings("ignore:.*make any two layers look similar")
@pytest.mark.parametrize("name", ["procrustes", "cka_biased"])
@pytest.mark.parametrize(
    ("rows", "x", "y", "decay"),
    [
        (20, 64, 64, 0),
        (20, 64, 64, 1),
        (64, 64, 64, 0),
        (30, 8, 200, 0),
        (96, 64, 64, 0.5),
        (1000, 64, 32, 1),
        (9, 1, 1, 0),
    ],
)
def test_chance_of_measures_without_fit_follows_from_rows_and_spectra(name, rows, x, y, decay):
    rng, measure = np.random.default_rng(rows + y), SIMILARITIES[name]
    values, chances = [], []
    for _ in range(30):
        layers = [rng.normal(size=(rows, d)) * (np.arange(d) + 1.0) ** -decay for d in (x, y)]
        values.append(measure.of_rows(*layers).value)
        chances.append(measure.chance_of_sums(moments_of(*layers)))
    assert np.mean(chances) == pytest.approx(np.mean(values), abs=4 * np.std(values) / np.sqrt(30))


def test_procrustes_on_fewer_rows_than_channels_gives_its_chance_and_warns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 64)), rng.normal(size=(40, 64))
    with pytest.warns(UserWarning, match=r"40 rows of 64 channels .* unrelated ones score 0\.8\d\d by chance"):
        found = similarity.procrustes(x, y)
    assert found.value == pytest.approx(found.chance, abs=0.03)
    x, y = rng.normal(size=(64, 64)), rng.normal(size=(64, 64))
    assert similarity.procrustes(x, y).chance == pytest.approx(0.75, abs=0.02)  # no warning
    with pytest.warns(UserWarning, match="30 rows of 500 channels"):
        similarity.procrustes(rng.normal(size=(30, 4)), rng.normal(size=(30, 500)))


@pytest.mark.parametrize(("rows", "x", "y"), [(20, 10, 10), (100, 0, 5), (3, 1, 1)])
def test_too_few_rows_or_directions_are_an_error(rows, x, y):
    with pytest.raises(SimilarityError, match="rows"):
        similarity.chance_cca(rows, x, y)
