"""Runs that answer different questions are not put into one report; those of different images are not compared."""

import json
import shlex

import pytest
from click.testing import CliRunner
from page_checks import check_page
from run_files import write_run

from radtransfer.cli.main import application
from radtransfer.evaluation.scoring import Scoring
from radtransfer.reports.advice import has_weights
from radtransfer.reports.subject import question


def report(*arguments):
    return CliRunner().invoke(application, ["report", *map(str, arguments)], prog_name="radtransfer")


def change_record(run, **values):
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(record | values), encoding="utf-8")
    return run


def results(out):
    page = check_page((out / "report.html").read_text(encoding="utf-8"))
    return json.loads((out / "report.json").read_text(encoding="utf-8")), page.text


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"classes": ["well", "sick", "worse"]}, "well, sick or worse?"),
        ({"task": "multilabel"}, "well and sick: each present or not?"),
        ({"classes": ["0", "1", "2"], "positive_from": 1}, "grade ≥ 1, of grades 0, 1 and 2?"),
    ],
)
def test_runs_of_two_questions_are_refused_with_a_command_for_each(tmp_path, values, asked):
    runs = tmp_path / "my runs"
    a, b = write_run(runs / "a"), write_run(runs / "b", starts_from="random")
    other = change_record(write_run(runs / "other"), **values)
    outcome = report(runs, "--no-cca", "--threshold", 0.7, "--out", tmp_path / "out")
    assert outcome.exit_code == 2
    assert f"  well or sick?  {a} and {b}\n  {asked}  {other}\n" in outcome.stderr
    commands = [shlex.split(line) for line in outcome.stderr.splitlines() if line.startswith("  radtransfer report")]
    assert [words[2:-5] for words in commands] == [[str(a), str(b)], [str(other)]]
    assert not (tmp_path / "out").exists()
    assert report(*commands[0][2:]).exit_code == 0
    values, _ = results(tmp_path / "out-1")
    assert [len(values["auc"]), len(values["differences"])] == [2, 1]
    assert {row["threshold"] for row in values["steps"]} == {0.7}


def test_two_grades_of_the_same_classes_are_two_questions(tmp_path):
    for grade in (1, 2):
        change_record(write_run(tmp_path / f"from{grade}"), classes=["0", "1", "2"], positive_from=grade)
    assert report(tmp_path, "--no-cca", "--out", tmp_path / "out").exit_code == 2


def test_two_positive_classes_are_two_questions_and_the_last_is_the_default(tmp_path):
    write_run(tmp_path / "old")
    change_record(write_run(tmp_path / "named", starts_from="random"), positive_class="sick")
    assert report(tmp_path, "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, text = results(tmp_path / "out")
    assert (values["positive_class"], len(values["auc"])) == ("sick", 2)
    assert "positive class sick" in text and "AUC for positive class sick." in text
    change_record(write_run(tmp_path / "other", starts_from="gabor"), positive_class="well")
    refused = report(tmp_path, "--no-cca", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "well or sick? positive class well" in refused.stderr and "positive class sick" in refused.stderr


def test_a_question_of_many_classes_names_the_first():
    classes = tuple(f"c{number}" for number in range(1000))
    assert question(Scoring("multiclass", classes)).endswith("c11, … (1,000 classes)?")


def two_hospitals(folder, *, prints=("1", "2"), sources=("here", "there")):
    """Arms that differ in their start and data; names and labels of the images are the same."""
    starts = ("pretrained", "random")
    for name, start, sha, source in zip("ab", starts, prints, sources, strict=True):
        settings = {"data.source": source}
        run = write_run(folder / name, shift=2, noise=ord(name), starts_from=start, settings=settings)
        change_record(run, images_sha256=sha)


def test_files_of_the_same_names_in_two_data_sets_are_not_compared(tmp_path):
    two_hospitals(tmp_path / "runs")
    assert report(tmp_path / "runs", "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, text = results(tmp_path / "out")
    assert (values["differences"], values["step_differences"], values["gain"]) == ([], [], [])
    assert [row["images"] for row in values["auc"]] == [1, 2]
    assert values["advice"][0]["verdict"] == "different images"
    assert "a; b: tested on different images" in text
    assert "best first among those tested on the same images" in text
    assert "sets of test images 2" in text


@pytest.mark.parametrize(
    "same", [{"prints": ("1", "1")}, {"prints": ("1", None)}, {"sources": ("here", "here")}], ids=str
)
def test_one_data_set_in_two_places_or_cut_for_training_is_compared(tmp_path, same):
    two_hospitals(tmp_path / "runs", **same)
    assert report(tmp_path / "runs", "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, text = results(tmp_path / "out")
    assert len(values["differences"]) == 1
    assert "different images" not in text


def test_arms_of_one_data_set_with_no_test_image_in_common_are_not_ranked(tmp_path):
    write_run(tmp_path / "runs/a")
    b = write_run(tmp_path / "runs/b", starts_from="random")
    for file in b.glob("fold_*/predictions.csv"):
        file.write_text(file.read_text(encoding="utf-8").replace("image_", "other_"), encoding="utf-8")
    assert report(tmp_path / "runs", "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, _ = results(tmp_path / "out")
    assert (values["differences"], values["step_differences"]) == ([], [])
    assert "different images" in {point["verdict"] for point in values["advice"]}
    assert not {"initialization", "inconclusive", "convergence"} & {point["verdict"] for point in values["advice"]}


def test_the_page_tells_classes_images_and_patients(tmp_path):
    for name, start in (("a", "pretrained"), ("b", "random")):
        write_run(tmp_path / "runs" / name, starts_from=start)
    assert report(tmp_path / "runs", "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, text = results(tmp_path / "out")
    assert "question well or sick? classes well 60, sick 60 images 120 patients 60 arms 2" in text
    assert values["data"][1] == {"arm": "b", "images": 120, "patients": 60, "classes": {"well": 60, "sick": 60}}
    assert (tmp_path / "out/tables/data.csv").is_file()


def test_runs_without_their_folds_are_reported_without_counts(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "folds.csv").unlink()
    assert report(run, "--no-cca", "--out", tmp_path / "out").exit_code == 0
    assert results(tmp_path / "out")[0]["data"] == []


@pytest.mark.parametrize(
    ("start", "title", "options"),
    [
        ("pretrained", "trained from imagenet?", "--weights random --scheme scratch"),
        ("random", "trained from random weights?", "--weights WEIGHTS --scheme transfer"),
    ],
)
def test_one_arm_is_not_said_to_be_compared(tmp_path, start, title, options):
    run = write_run(tmp_path / "run", starts_from=start, settings={"transfer.freeze_to": "stage1"})
    assert report(run, "--no-cca", "--out", tmp_path / "out").exit_code == 0
    values, text = results(tmp_path / "out")
    assert text.startswith("How well does resnet50 perform, ") and title in text
    assert "Does transfer learning help?" not in text
    point = values["advice"][0]
    assert point["verdict"] == "one arm"
    assert f"radtransfer finetune {run}/config.yaml {options} --set transfer.freeze_to=null --out" in point["evidence"]
    assert f"&& radtransfer report {run} {run}-" in point["evidence"]


def test_one_arm_of_a_network_without_published_weights_is_told_to_pretrain_it(tmp_path):
    run = write_run(tmp_path / "run", starts_from="random", backbone="cbr_tiny")
    assert report(run, "--no-cca", "--out", tmp_path / "out").exit_code == 0
    point = results(tmp_path / "out")[0]["advice"][0]
    assert "none are published for cbr_tiny" in point["text"] and "weights list" not in point["text"]
    assert point["evidence"].startswith(
        f"radtransfer finetune pretrain-source --data SOURCE --set model.backbone=cbr_tiny --out {run}-source && "
        f"radtransfer finetune {run}/config.yaml --weights {run}-source --scheme transfer --out {run}-pretrained && "
    )


@pytest.mark.parametrize(
    ("backbone", "known"),
    [("cbr_small", False), ("resnet50", True), ("inception_v3_torch", True), ("resnet50_v1_5", True)],
)
def test_networks_with_published_weights_are_known(backbone, known):
    assert has_weights(backbone) is known
