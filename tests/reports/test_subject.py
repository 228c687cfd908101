"""A study's table, made up: names of arms, pairs, references, and what has changed since the table was written."""

import json

import pytest
from run_files import write_run

from radtransfer.errors import RunError
from radtransfer.reports.collect import read_study
from radtransfer.reports.subject import TITLE, TITLE_WITHOUT_TRANSFER, find_subject


def row(path, arm, *, key, kind="arm", reference=None, status="finished", **labels):
    given = {"path": str(path), "arm": arm, "kind": kind, "run": key, "labels": labels, "reference": reference}
    return given | {"weights": "imagenet", "status": status, "error": None, "folds": []}


def write_study(folder, rows, *, compare=None, **about):
    folder.mkdir(parents=True, exist_ok=True)
    table = {"study": {"axes": [], **about}, "runs": rows, "compare": compare or {}}
    (folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path):
    for number, (name, start) in enumerate((("h1", "random"), ("h2", "pretrained"), ("h3", "pretrained"))):
        write_run(tmp_path / "store" / name, starts_from=start, noise=number)
    return tmp_path / "store"


def test_arms_are_named_with_the_values_of_their_own_axes(runs, tmp_path):
    rate, seed = "training.learning_rate", "seed"
    rows = [
        row(runs / "h1", "scratch", key="h1", **{rate: 0.1, seed: 0}),
        row(runs / "h2", "transfer", key="h2", **{rate: 0.1, seed: 0}),
        row(runs / "h3", "transfer", key="h3", **{rate: 0.01, seed: 0}),
        row(runs / "gone", "natural", key="h4", kind="source", **{rate: 0.1, seed: 0}),
    ]
    subject = find_subject([write_study(tmp_path / "study", rows, axes=[rate, seed])])
    assert [arm.name for arm in subject.arms] == [
        "scratch",
        "transfer (learning rate 0.1)",
        "transfer (learning rate 0.01)",
    ]
    assert (subject.title, subject.cca, subject.predictions) == (TITLE, None, None)


def test_pairs_and_references_name_arms(runs, tmp_path):
    rows = [
        row(runs / "h1", "scratch", key="h1"),
        row(runs / "h2", "transfer", key="h2", reference="h1"),
        row(runs / "late", "late", key="h9", reference="h1", status="waiting"),
    ]
    compare = {
        "cca": [
            {"a": "transfer@initial", "b": "transfer", "runs": [["h2", "h2"]]},
            {"a": "late", "b": "scratch", "runs": [["h9", "h1"]]},
        ],
        "predictions": [{"a": "transfer", "b": "scratch", "runs": [["h2", "h1"]]}],
    }
    subject = find_subject([write_study(tmp_path / "study", rows, compare=compare, reference="scratch", title="T")])
    assert subject.references == {"transfer": "scratch"}
    assert [(sides, len(pairs)) for sides, pairs in subject.cca.items()] == [(("transfer@initial", "transfer"), 1)]
    assert subject.predictions == {frozenset(("transfer", "scratch"))}
    assert [(item["arm"], item["status"]) for item in subject.unfinished] == [("late", "waiting")]


def test_without_a_reference_gains_are_against_the_same_arm_from_random(runs, tmp_path):
    rows = [row(runs / "h1", "scratch", key="h1"), row(runs / "h2", "transfer", key="h2")]
    assert find_subject([write_study(tmp_path / "study", rows)]).references == {"transfer": "scratch"}


def test_what_was_computed_or_lost_since_the_table_was_written_is_seen(runs, tmp_path):
    write_run(runs / "h5", status="interrupted", folds=2)
    rows = [
        row(runs / "h1", "scratch", key="h1", status="waiting"),
        row(runs / "h5", "half", key="h5", status="waiting"),
        row(runs / "lost", "lost", key="lost"),
    ]
    subject = find_subject([write_study(tmp_path / "study", rows)])
    assert [arm.name for arm in subject.arms] == ["scratch", "half"]
    assert [(item["arm"], item["status"], item["folds"]) for item in subject.unfinished] == [
        ("half", "partly", 2),
        ("lost", "gone", 0),
    ]


def test_runs_are_found_from_the_studys_folder(runs, tmp_path, monkeypatch):
    write_study(tmp_path / "studies/tiny", [row("store/h1", "scratch", key="h1")])
    monkeypatch.chdir("/")
    assert [arm.name for arm in find_subject([tmp_path / "studies/tiny"]).arms] == ["scratch"]


def test_a_study_without_a_result_is_a_run_error(tmp_path):
    rows = [row(tmp_path / "late", "late", key="h1", status="waiting")]
    with pytest.raises(RunError, match="Expected runs with a finished fold"):
        find_subject([write_study(tmp_path / "study", rows)])


def test_a_broken_table_is_a_run_error(tmp_path):
    (tmp_path / "table.json").write_text('{"runs": [{"arm": "a"}]}', encoding="utf-8")
    with pytest.raises(RunError, match="is not a study table"):
        read_study(tmp_path)
    assert read_study(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("starts", "title"),
    [
        (("random", "gabor"), TITLE_WITHOUT_TRANSFER),
        (("random", "pretrained"), TITLE),
        (("random", "mean_var"), TITLE),
    ],
)
def test_the_title_asks_about_transfer_only_where_an_arm_used_weights(tmp_path, starts, title):
    paths = [write_run(tmp_path / start, starts_from=start) for start in starts]
    assert find_subject(paths).title == title
