"""Rules on made-up rows whose right sentence is known."""

from radtransfer.reports import published_report as advice


def difference(target, mean, ci95, *, a="A", b="B", freeze_b="freezeFalse", n=5):
    names = {"target": target, "source_a": a, "freeze_a": "freezeFalse", "source_b": b, "freeze_b": freeze_b}
    return names | {"mean": mean, "sd": 0.01, "ci95": ci95, "n": n, "a_better": n}


def slope(source, layer, value, ci95, *, within=(-1, 1), without=()):
    row = {"source": source, "layer": layer, "slope": value, "ci95": ci95, "n": 20, "targets": ["t", "u"]}
    return row | {"ci95_within_targets": within, "slope_without": dict(enumerate(without))}


def only(points):
    (point,) = points
    return point


def test_a_source_is_better_where_the_interval_leaves_out_zero():
    rows = [
        difference("x", 0.05, [0.03, 0.07]),
        difference("y", -0.06, [-0.1, -0.02]),
        difference("z", 0.05, [-0.1, 0.2]),
    ]
    point = only(advice.sources_compared(rows))
    assert point.text == "A against B: A is better on x; B is better on y; inconclusive on z."
    assert "x +0.050 (+0.030 to +0.070)" in point.evidence
    assert "5 folds" in point.evidence


def test_a_small_difference_is_called_equal_even_if_it_is_certain():
    point = only(advice.sources_compared([difference("x", 0.01, [0.005, 0.015])]))
    assert point.text == "A against B: they differ by less than 0.02 on x."


def test_nothing_decided_is_undecided():
    assert only(advice.sources_compared([difference("x", 0.05, [-0.1, 0.2])])).verdict == "inconclusive"


def test_one_fold_decides_nothing():
    point = only(advice.sources_compared([difference("x", 0.3, None, n=1)]))
    assert point.verdict == "inconclusive"
    assert "(no interval)" in point.evidence


def test_random_initialization_is_told_from_pretraining_whichever_stands_first():
    for row in (
        difference("x", 0.3, [0.2, 0.4], a="A", b="random"),
        difference("x", -0.3, [-0.4, -0.2], a="random", b="A"),
    ):
        point = only(advice.pretraining_against_random([row]))
        assert point.text == "A is better than random initialization on x."
        assert "A minus random" in point.evidence
        assert "+0.300 (+0.200 to +0.400)" in point.evidence
        assert not list(advice.sources_compared([row]))


def test_auc_lost_when_frozen_is_named():
    lost = difference("x", 0.2, [0.1, 0.3], a="A", b="A", freeze_b="freezeTrue")
    kept = difference("y", 0.0, [-0.1, 0.1], a="A", b="A", freeze_b="freezeTrue")
    assert only(advice.lost_when_frozen([lost, kept])).verdict == "AUC lost when frozen"
    assert "on x from A" in only(advice.lost_when_frozen([lost, kept])).text
    assert only(advice.lost_when_frozen([kept])).verdict == "frozen first"
    assert not list(advice.lost_when_frozen([difference("x", 0.2, [0.1, 0.3])]))


def test_a_slope_that_holds_everywhere_is_stated():
    rows = [slope("A", "conv1", -2, [-3, -1], within=(-3, -1), without=(-2, -2.5))]
    point = only(advice.similarity_and_gain(rows))
    assert (point.verdict, point.text) == (
        "similarity and gain",
        "A: similarity to the initialization is related to gain negatively at conv1.",
    )
    assert point.evidence == "conv1 −2.00 (−3.00 to −1.00)"


def test_a_slope_that_stands_between_targets_only_is_not_robust():
    point = only(advice.similarity_and_gain([slope("A", "conv1", -2, [-3, -1], without=(-2, -2.5))]))
    assert point.verdict == "not robust"
    assert "the relation is between targets, of which there are only 2" in point.text


def test_a_slope_that_one_target_makes_is_not_robust():
    point = only(advice.similarity_and_gain([slope("A", "conv1", -2, [-3, -1], within=(-3, -1), without=(-2, 0.5))]))
    assert point.verdict == "not robust"
    assert point.text.endswith("With one target left out, the slope changes its sign at conv1.")


def test_a_slope_about_zero_is_undecided():
    point = only(advice.similarity_and_gain([slope("A", "conv1", -2, [-5, 1])]))
    assert (point.verdict, point.text) == ("inconclusive", "A: no layer has a slope that differs significantly from 0.")


def test_no_line_is_undecided():
    row = slope("A", "conv1", None, None) | {"n": 2}
    assert only(advice.similarity_and_gain([row])).text == "A: too few points to relate similarity to gain."


def test_sources_that_disagree_make_no_rule():
    rows = [slope("A", "conv1", -2, [-3, -1]), slope("B", "conv1", 2, [1, 3]), slope("B", "block1", 2, [1, 3])]
    point = list(advice.similarity_and_gain(rows))[-1]
    assert point.verdict == "no common rule"
    assert point.text.startswith("The sources disagree at conv1:")


def test_predictions_alike_beyond_chance():
    def row(target, excess, ci95):
        names = {"target": target, "model1": "A", "model2": "B", "freeze": "freezeFalse"}
        return names | {"excess": excess, "excess_ci95": ci95, "n": 5}

    point = only(advice.same_errors([row("x", 0.2, [0.1, 0.3]), row("y", 0.1, [-0.1, 0.3])]))
    assert point.text.endswith("more often than independent networks on x; inconclusive on y.")
    assert only(advice.same_errors([row("y", 0.1, [-0.1, 0.3])])).verdict == "inconclusive"
    assert not list(advice.same_errors([row("x", None, None)]))
