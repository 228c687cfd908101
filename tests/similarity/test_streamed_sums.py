import tracemalloc

import numpy as np
import pytest

from radtransfer import similarity
from radtransfer.errors import SimilarityError, UnknownNameError
from radtransfer.similarity import SIMILARITIES, StreamedSums

STREAMED = [name for name in SIMILARITIES if SIMILARITIES[name].of_sums]


def fill(sums, x, y, batch):
    rows = len(next(iter(x.values())))
    for start in range(0, rows, batch):
        part = slice(start, start + batch)
        sums.add({name: a[part] for name, a in x.items()}, {name: a[part] for name, a in y.items()})
    return sums


@pytest.fixture
def networks():
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(1500, 10))

    def network(widths):
        return {
            f"layer{i}": np.tanh(inputs @ rng.normal(size=(10, width)) + rng.normal(size=(1500, width))) + rng.normal()
            for i, width in enumerate(widths)
        }

    return network((6, 11, 200, 90)), network((9, 5, 120))


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("batch", [1, 13, 500])
def test_the_batch_size_does_not_matter(networks, name, batch):
    x, y = ({"a": network["layer1"] + 40} for network in networks)
    of_sums = SIMILARITIES[name].of_sums
    whole = of_sums(fill(StreamedSums(), x, y, 1500).pair("a", "a"))
    parts = of_sums(fill(StreamedSums(), x, y, batch).pair("a", "a"))
    assert parts.value == pytest.approx(whole.value, abs=1e-12)
    assert (parts.rank_x, parts.rank_y, parts.rows) == (whole.rank_x, whole.rank_y, whole.rows)


@pytest.mark.parametrize("name", STREAMED)
def test_every_pair_of_many_layers_has_the_value_it_has_alone(networks, name):
    x, y = networks
    sums = fill(StreamedSums(), x, y, 400)
    assert len(list(sums.names())) == 12
    measure = SIMILARITIES[name]
    for a, b in sums.names():
        alone = fill(StreamedSums(), {"x": x[a]}, {"y": y[b]}, 1500)
        expected = measure.of_sums(alone.pair("x", "y")).value
        assert measure.of_sums(sums.pair(a, b)).value == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", STREAMED)
def test_sums_give_what_the_function_of_arrays_gives(networks, name):
    x, y = (network["layer1"] for network in networks)
    measure = SIMILARITIES[name]
    pair = fill(StreamedSums(), {"x": x}, {"y": y}, 1500).pair("x", "y")
    assert measure.of_sums(pair).value == pytest.approx(measure.of_rows(x, y).value, abs=1e-12)


def test_wide_networks_are_summed_whole():
    rng = np.random.default_rng(0)
    x, y = ({f"layer{i}": rng.normal(size=(40, 150)) + 5 for i in range(5)} for _ in "xy")
    sums = fill(StreamedSums(), x, y, 15)
    for a, b in sums.names():
        expected = (x[a] - x[a].mean(axis=0)).T @ (y[b] - y[b].mean(axis=0))
        np.testing.assert_allclose(sums.pair(a, b).scatter, expected, atol=1e-11)


def test_a_constant_far_from_the_pivot_is_dead_although_rounding_leaves_a_rest(make_layers):
    x, y = make_layers(0, 900, 40, 5)
    first = StreamedSums()
    first.add({"a": x[:100]}, {"a": y[:100]})
    rest = x[100:].copy()
    rest[:, :30] = np.random.default_rng(0).uniform(0.1, 9, 30)
    sums = fill(StreamedSums(like=first), {"a": rest}, {"a": y[100:]}, 70)
    layer = sums.pair("a", "a").x
    assert (np.diag(layer.scatter)[:30] > 0).any()
    assert layer.constant == tuple(range(30))


def test_only_the_same_layers_are_paired_if_asked(networks):
    x, y = (dict(list(network.items())[:3]) for network in networks)
    same, every = (fill(StreamedSums(pairs=pairs), x, y, 700) for pairs in ("same", "all"))
    assert list(same.names()) == [(f"layer{i}",) * 2 for i in range(3)]
    for names in same.names():
        for name in STREAMED:
            of_sums = SIMILARITIES[name].of_sums
            assert of_sums(same.pair(*names)).value == pytest.approx(of_sums(every.pair(*names)).value, abs=1e-12)
    with pytest.raises(UnknownNameError, match="pair"):
        same.pair("layer0", "layer1")


@pytest.mark.parametrize("name", STREAMED)
def test_sums_of_groups_with_common_pivots_can_be_added(networks, name):
    x, y = ({"a": network["layer1"] * 10 + 7} for network in networks)
    whole = fill(StreamedSums(), x, y, 1500).pair("a", "a")
    first = fill(StreamedSums(), {"a": x["a"][:400]}, {"a": y["a"][:400]}, 100)
    rest = fill(StreamedSums(like=first), {"a": x["a"][400:]}, {"a": y["a"][400:]}, 100)
    both = first.pair("a", "a") + rest.pair("a", "a")
    of_sums = SIMILARITIES[name].of_sums
    assert both.rows == 1500
    assert of_sums(both).value == pytest.approx(of_sums(whole).value, abs=1e-12)


def test_a_pair_taken_out_does_not_change_when_more_rows_are_added(networks):
    x, y = networks
    sums = StreamedSums()
    sums.add(x, y)
    pair = sums.pair("layer1", "layer1")
    before = pair.scatter.copy(), pair.x.products.copy(), pair.quartic
    sums.add(x, y)
    later = pair.products - np.outer(pair.x.total, pair.y.shift), pair.x.products, pair.quartic
    for old, new in zip(before, later, strict=True):
        np.testing.assert_array_equal(old, new)


def test_float32_products_agree_to_six_digits(networks):
    x, y = networks
    exact, fast = (fill(StreamedSums(precision=p), x, y, 300) for p in ("float64", "float32"))
    for name in STREAMED:
        of_sums = SIMILARITIES[name].of_sums
        for names in exact.names():
            assert of_sums(fast.pair(*names)).value == pytest.approx(of_sums(exact.pair(*names)).value, abs=2e-6)


def test_memory_does_not_grow_with_the_number_of_rows():
    rng = np.random.default_rng(0)
    batch = {"a": rng.normal(size=(2000, 64))}
    sums = StreamedSums()
    sums.add(batch, batch)
    state = sums.nbytes
    tracemalloc.start()
    for _ in range(3):
        sums.add(batch, batch)
    few = tracemalloc.get_traced_memory()[1]
    for _ in range(30):
        sums.add(batch, batch)
    many = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sums.nbytes == state < 300_000
    assert many < 1.1 * few


def test_all_pairs_of_two_deep_networks_fit_in_150_mib():
    rng = np.random.default_rng(0)
    x, y = ({f"layer{i}": rng.normal(size=(700, 64)).astype(np.float32) for i in range(53)} for _ in "xy")
    tracemalloc.start()
    sums = StreamedSums(precision="float32")
    sums.add(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


def test_names_of_layers_appear_in_errors(networks):
    x, y = networks
    sums = StreamedSums()
    sums.add(x, y)
    x["layer2"] = x["layer2"].copy()
    x["layer2"][3, 17] = np.nan
    with pytest.raises(SimilarityError, match=r"^layer2: expected finite.*\(17\)"):
        sums.add(x, y)


def test_an_unknown_layer_is_an_error_with_the_closest_names(networks):
    sums = StreamedSums()
    sums.add(*networks)
    with pytest.raises(UnknownNameError, match="layer1"):
        sums.pair("leyer1", "layer1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"other": x["layer0"]}, "Expected the layers"),
        (lambda x: x | {"layer1": x["layer1"][:, :4]}, "layer1: expected 11 channels"),
        (lambda x: x | {"layer1": x["layer1"][:9]}, "layer1: expected the same rows"),
        (lambda x: {}, "at least one layer"),
    ],
)
def test_a_batch_unlike_the_first_is_an_error(networks, change, message):
    x, y = networks
    sums = StreamedSums()
    sums.add(x, y)
    with pytest.raises(SimilarityError, match=message):
        sums.add(change(x), y)


def test_pairs_of_the_same_layers_need_as_many_in_both(networks):
    with pytest.raises(SimilarityError, match="4 and 3"):
        StreamedSums(pairs="same").add(*networks)


def test_values_too_large_to_square_are_an_error(networks):
    x = {"a": networks[0]["layer0"] * 1e200}
    sums = StreamedSums()
    sums.add(x, x)
    with pytest.raises(SimilarityError, match="a: expected finite"):
        sums.pair("a", "a")


def test_a_pair_without_rows_is_an_error():
    with pytest.raises(SimilarityError, match="received none"):
        StreamedSums().pair("a", "b")


def test_debiased_cka_needs_sums_with_norms(networks):
    sums = StreamedSums(norms=False)
    sums.add(*networks)
    with pytest.raises(SimilarityError, match="norms=True"):
        SIMILARITIES["cka"].of_sums(sums.pair("layer0", "layer0"))
    assert SIMILARITIES["cca"].of_sums(sums.pair("layer0", "layer0")).value == pytest.approx(
        similarity.cca(networks[0]["layer0"], networks[1]["layer0"]).value
    )
