import json

import pytest
from run_files import write_run

from radtransfer.errors import RunError
from radtransfer.reports.collect import find_runs
from radtransfer.reports.subject import differ_in, sort_arms


def arms(*paths):
    return sort_arms(find_runs(paths)[0])


def test_runs_that_differ_in_their_seed_are_one_arm(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"i{seed}", seed=seed)
    write_run(tmp_path / "s0", starts_from="random", weights="random")
    found = arms(tmp_path)
    assert [(arm.name, len(arm.runs), len(arm.folds)) for arm in found] == [("imagenet", 3, 9), ("random", 1, 3)]
    assert len({fold.key for fold in found[0].folds}) == 9


def test_single_runs_are_called_by_their_folders(tmp_path):
    paths = [
        write_run(tmp_path / name / "run", shift=1, settings={"training.epochs": n}) for n, name in enumerate("ab")
    ]
    assert [arm.name for arm in arms(*paths)] == ["a/run", "b/run"]
    assert [arm.recipe for arm in arms(*paths)] == ["epochs 0", "epochs 1"]


@pytest.mark.parametrize(
    ("options", "start", "depth"),
    [
        ({}, "imagenet", "all stages"),
        ({"starts_from": "random"}, "random", "all stages"),
        ({"starts_from": "mean_var"}, "mean and variance of imagenet", "all stages"),
        ({"weights": "/runs/source", "frozen": 1}, "source", "from stage1 up"),
        ({"frozen": 3}, "imagenet", "the head alone"),
        ({"weights": "runs/source/fold_2"}, "source", "all stages"),
        ({"weights": "runs/source/fold_2/model.keras"}, "source", "all stages"),
    ],
)
def test_start_and_depth_are_read_from_the_plan(tmp_path, options, start, depth):
    (arm,) = arms(write_run(tmp_path / "run", **options))
    assert (arm.start, arm.depth) == (start, depth)


def test_a_plan_of_two_starts_says_how_far(tmp_path):
    path = write_run(tmp_path / "run")
    record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    for stage in record["plan"]["stages"][1:]:
        stage |= {"starts_from": "random", "width": 0.5}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (arm,) = arms(path)
    assert (arm.start, arm.backbone) == ("imagenet through stem, then random", "resnet50, slim")


def test_a_run_without_a_fold_is_left_out_with_a_note(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "half", status="failed", seed=1)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "run.json").write_text('{"status": "failed"}', encoding="utf-8")
    runs, notes = find_runs([tmp_path])
    assert [run.path.name for run in runs] == ["good", "half"]
    assert notes == ["bad: no finished fold (failed); left out", "half: failed; only fold 1, 2, 3 counted"]


def test_no_run_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="there is no run.json in it"):
        find_runs([tmp_path])
    (tmp_path / "run.json").write_text('{"status": "running"}', encoding="utf-8")
    with pytest.raises(RunError, match="Expected runs with a finished fold"):
        find_runs([tmp_path])


def test_a_run_given_twice_counts_once(tmp_path):
    path = write_run(tmp_path / "run")
    assert len(find_runs([path, tmp_path, path])[0]) == 1


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"seed": 1, "settings": {"training.learning_rate": 0.1}}, ("learning rate",)),
        ({"starts_from": "random", "weights": "random"}, ("start",)),
        ({"backbone": "cbr_tiny", "frozen": 1, "weights": "w"}, ("network", "start", "what trains")),
        ({"settings": {"model.preprocessing": "tf", "data.source": "d.csv"}}, ("data", "preprocessing")),
        (
            {"weights": "random", "starts_from": "random", "settings": {"model.preprocessing": "tf"}},
            ("start", "preprocessing"),
        ),
    ],
)
def test_what_two_arms_differ_in_is_named(tmp_path, options, names):
    one, other = arms(write_run(tmp_path / "a"), write_run(tmp_path / "b", **options))
    assert differ_in(one, other) == names


def test_an_input_is_what_it_was_resolved_to_however_the_settings_said_it(tmp_path):
    import json

    for name, asked, resolved in (("a", "auto", "caffe"), ("b", "caffe", "caffe"), ("c", "auto", "torch")):
        path = write_run(tmp_path / name, seed="abc".index(name), settings={"model.preprocessing": asked})
        record = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(record | {"preprocessing": resolved}))
    both, other = arms(tmp_path)
    assert ([run.path.name for run in both.runs], both.preprocessing) == (["a", "b"], "caffe input")
    assert (other.preprocessing, differ_in(both, other)) == ("torch input", ("preprocessing",))
    assert "torch input" in other.name
