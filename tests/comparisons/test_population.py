"""What runs are grouped by, and how similarity before and after training is related in a layer."""

import json
from itertools import combinations

import numpy as np
import pytest
from run_files import write_run

from radtransfer.errors import RunError
from radtransfer.similarity.population import PairSimilarity, starts_of_runs, training_relation


def run(folder, *, plan=None, weights=None, **options):
    """A made-up run, with changes of its plan and of what is recorded of its weights."""
    path = write_run(folder, folds=1, patients=6, curve=False, **options)
    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    record["plan"] |= plan or {}
    record["weights"] |= weights or {}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return str(path)


def stages(*starts, **more):
    return [
        {"stage": f"stage{n}" if n else "stem", "starts_from": start, "trains": True, "width": 1.0} | more
        for n, start in enumerate(starts)
    ]


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, "pretrained"),
        ({"starts_from": "random"}, "random"),  # weights were given, and the scheme is scratch
        ({"starts_from": "mean_var"}, "mean and variance of imagenet"),
        ({"starts_from": "shuffled"}, "shuffled weights of imagenet"),
        ({"starts_from": "sampled"}, "sampled weights of imagenet"),
        ({"plan": {"stages": stages("pretrained", "random", "random")}}, "imagenet through stem, then random"),
        ({"plan": {"stages": stages("pretrained", "pretrained", "random")}}, "imagenet through stage1, then random"),
        ({"plan": {"stages": stages("gabor", "random")}}, "Gabor filters through stem, then random"),
        ({"starts_from": "random", "plan": {"batch_norm": "mean_var"}}, "random, batch norm mean_var"),
    ],
)
def test_runs_are_grouped_by_what_their_plan_starts_each_stage_from(tmp_path, options, start):
    runs = [run(tmp_path / "pretrained"), run(tmp_path / "random", starts_from="random", weights={"source": "random"})]
    found = starts_of_runs([*runs, run(tmp_path / "other", **options)])
    assert list(found.values()) == ["pretrained", "random", start]


def test_a_cut_within_a_stage_is_told_by_its_layer(tmp_path):
    plan = stages("random", "pretrained", "random", "random")
    plan[1] |= {"stage": "stage1", "layers": ["conv2a"]}
    plan[2] |= {"stage": "stage1", "layers": ["conv2b"]}
    path = run(tmp_path / "cut", plan={"stages": plan})
    assert starts_of_runs([path]) == {path: "random through stem, then imagenet through conv2a, then random"}


def test_weights_are_the_same_if_their_file_is_and_told_apart_if_it_is_not(tmp_path):
    def starts(*weights):
        paths = [run(tmp_path / f"{len(list(tmp_path.iterdir()))}", weights=each) for each in weights]
        return list(starts_of_runs(paths).values())

    a, copied = {"source": "a/w.h5", "sha256": "1"}, {"source": "copy.h5", "sha256": "1"}
    assert starts(a, copied) == ["pretrained"] * 2
    assert starts(a, {"source": "x.h5", "sha256": "2"}) == ["w", "x"]
    assert starts(a, {"source": "b/w.h5", "sha256": "2"}) == ["a/w.h5", "b/w.h5"]


@pytest.mark.parametrize("plan", [None, {}, {"stages": []}])
def test_a_run_without_a_plan_cannot_be_grouped(tmp_path, plan):
    path = run(tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8")) | {"plan": plan}
    if plan is None:
        del record["plan"]
    (tmp_path / "run/run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RunError, match="plan"):
        starts_of_runs([path])


def test_other_networks_and_frozen_stages_are_groups_of_their_own(tmp_path):
    paths = [run(tmp_path / "a"), run(tmp_path / "b", frozen=1), run(tmp_path / "c", backbone="cbr_tiny")]
    assert list(starts_of_runs(paths).values()) == [
        "pretrained, resnet50, all stages",
        "pretrained, resnet50, from stage1 up",
        "pretrained, cbr_tiny, all stages",
    ]


def pairs(points, runs, layer="stem"):
    return [
        PairSimilarity(a, b, "random × random", layer, "cca", None, None, tuple(map(tuple, each)))
        for (a, b), each in zip(combinations(runs, 2), points, strict=True)
    ]


def relation(points, runs, layer="stem"):
    return training_relation(pairs(points, runs, layer), dict.fromkeys(runs, "random"))


def test_layers_of_no_relation_are_not_explained_by_their_levels():
    rng, runs = np.random.default_rng(0), "abcd"
    levels = {"stem": 0.8, "stage1": 0.5, "stage2": 0.2}
    points = {layer: level + rng.normal(0, 0.01, (6, 5, 2)) for layer, level in levels.items()}
    pooled = np.concatenate([each.reshape(-1, 2) for each in points.values()])
    assert np.corrcoef(pooled.T)[0, 1] ** 2 > 0.98
    for layer, each in points.items():
        found = relation(each, runs, layer)
        assert found["n_points"] == 30
        assert found["r_squared"] == pytest.approx(np.corrcoef(each.reshape(-1, 2).T)[0, 1] ** 2)
        assert found["r_squared"] < 0.3 and found["r_squared_ci95"][0] < 0.05


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("r_squared", [0.0, 0.81])
def test_the_interval_holds_though_pairs_share_runs_and_draws_share_pairs(share, r_squared):
    rng, runs, held, naive = np.random.default_rng(0), "abcde", [], []
    mix = np.array([[1, np.sqrt(r_squared)], [0, np.sqrt(1 - r_squared)]])
    for _ in range(150):
        of_run = rng.normal(size=(5, 2)) @ mix * np.sqrt(share / 2)
        own = np.array([of_run[i] + of_run[j] for i, j in combinations(range(5), 2)])
        points = own[:, None] + rng.normal(size=(10, 5, 2)) @ mix * np.sqrt(1 - share)
        found = relation(points, runs)
        low, high = found["r_squared_ci95"]
        assert 0 <= low <= found["r_squared"] <= high <= 1
        held.append(low <= r_squared <= high)
        z, half = np.arctanh(np.sqrt(found["r_squared"])), 1.96 / np.sqrt(47)
        naive.append(np.tanh(max(z - half, 0)) ** 2 <= r_squared <= np.tanh(z + half) ** 2)
    assert np.mean(held) >= 0.93
    assert share < 0.5 or np.mean(naive) < 0.7


def test_the_interval_holds_with_two_networks_of_each_start():
    rng, held = np.random.default_rng(1), []
    starts = {"a": "pretrained", "b": "pretrained", "c": "random", "d": "random"}
    for _ in range(300):
        of_run = dict(zip(starts, rng.normal(size=(4, 2)), strict=True))
        found = [
            PairSimilarity(a, b, "p × r", "stem", "cca", None, None, tuple(map(tuple, of_run[a] + of_run[b] + own)))
            for a, b, own in zip("aabb", "cdcd", rng.normal(0, 0.2, (4, 5, 2)), strict=True)
        ]
        held.append(training_relation(found, starts)["r_squared_ci95"][0] == 0)  # they are not related
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize(
    ("points", "r_squared"),
    [
        (np.full((3, 4, 2), 0.5), False),  # all alike
        (np.stack([np.ones((3, 4)), np.random.default_rng(0).random((3, 4))], axis=-1), False),  # all start alike
        (np.repeat(np.random.default_rng(0).random((3, 4, 1)), 2, axis=-1), False),  # nothing moved
        (np.random.default_rng(0).random((3, 1, 2)), True),  # one draw: leaving a run out leaves one point
        (np.zeros((3, 0, 2)), False),
    ],
)
def test_what_cannot_be_told_has_no_relation_or_an_interval_from_0_to_1(points, r_squared):
    found = relation(points, "abc")
    assert (found.get("r_squared") is not None) == r_squared
    assert found.get("r_squared_ci95") == ((0, 1) if r_squared else None)


def test_of_a_single_pair_draws_are_left_out():
    points = np.random.default_rng(0).normal(size=(1, 8, 2)) @ np.array([[1, 0.95], [0, 0.3]])
    low, high = relation(points, "ab")["r_squared_ci95"]
    assert 0 <= low < high < 1
