"""`--positive-class` decides whose sensitivity is reported, and everything that shows a figure of it names it."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from radtransfer.evaluation import results as evaluation_files
from radtransfer.runs.folder import read_rows

CLASSES = ("sick", "well")
FIGURES = ("roc.png", "pr.png", "calibration.png", "confusion.png")


def sensitivity_at_90(truth, scores):
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return true[1 - false >= 0.9 - 1e-9].max()


def texts(figure):
    axes = [text for place in figure.axes for text in (place.get_title(), place.get_xlabel(), place.get_ylabel())]
    return [*axes, *(text.get_text() for legend in figure.legends for text in legend.get_texts())]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, radtransfer, table_options, finished_run):
    """The same training with either class as the positive one; by default it is the last, "well"."""
    out = tmp_path_factory.mktemp("runs") / "sick"
    outcome = radtransfer(
        "finetune", *table_options, "--folds", 2, "--epochs", 2, "--positive-class", "sick", "--out", out
    )
    assert outcome.code == 0, outcome.err
    metrics = json.loads((out / "metrics.json").read_text())
    return {
        "well": finished_run,
        "sick": SimpleNamespace(path=out, metrics=metrics, outcome=outcome),
    }


@pytest.fixture(scope="module")
def old_run(runs, tmp_path_factory):
    """A run as earlier versions stored it: nothing in it says which class is positive."""
    run = tmp_path_factory.mktemp("old") / "run"
    shutil.copytree(runs["well"].path, run)
    for file in run.rglob("*.json"):
        record = json.loads(file.read_text())
        record.pop("positive_class", None)
        file.write_text(json.dumps(record))
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["data"]["positive_class"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.fixture(scope="module")
def elsewhere(tiny_images, tmp_path_factory):
    """Other labels for the tiny images, the classes in the reverse order of the run's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    lines = [f"{line['path']},{line['label']},q{line['patient']}" for line in read_rows(tiny_images / "images.csv")]
    (folder / "t.csv").write_text("\n".join(["path,label,patient", *reversed(lines)]) + "\n")
    return ("--data", folder / "t.csv", "--image-root", tiny_images / "images", "--draws", 100)


def test_the_plan_and_the_result_name_the_positive_class(runs, radtransfer, table_options):
    assert "2 classes; positive class sick" in runs["sick"].outcome.err
    (line,) = [line for line in runs["sick"].outcome.out.splitlines() if "sensitivity" in line]
    found = runs["sick"].metrics["sensitivity_at_90_specificity"]
    assert f"sensitivity at 90 % specificity {found:.3f} (positive class sick)" in line
    assert "; positive class well\n" in runs["well"].outcome.err
    again = radtransfer("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", runs["well"].path, "--resume")
    assert "(positive class well)" in again.out


@pytest.mark.parametrize("name", CLASSES)
def test_the_figures_of_a_run_are_scikit_learns_for_its_positive_class(runs, name):
    run, sensitivities, briers = runs[name], [], []
    for fold in (1, 2):
        rows = [row for row in read_rows(run.path / f"fold_{fold}/predictions.csv") if row["split"] == "test"]
        truth, scores = [row["label"] == name for row in rows], [float(row[f"p_{name}"]) for row in rows]
        sensitivities.append(sensitivity_at_90(truth, scores))
        briers.append(brier_score_loss(truth, scores))
        metrics = json.loads((run.path / f"fold_{fold}/metrics.json").read_text())
        assert metrics["positive_class"] == name
        assert metrics["auc"] == pytest.approx(roc_auc_score(truth, scores))
        assert metrics["sensitivity_at_90_specificity"] == pytest.approx(sensitivities[-1])
    assert run.metrics["positive_class"] == json.loads((run.path / "run.json").read_text())["positive_class"] == name
    assert run.metrics["sensitivity_at_90_specificity"] == pytest.approx(np.mean(sensitivities))
    assert run.metrics["brier"] == pytest.approx(np.mean(briers))


def test_the_positive_class_changes_no_weight_no_output_and_no_order_of_outputs(runs):
    one, other = (runs[name].path for name in CLASSES)
    assert json.loads((one / "run.json").read_text())["classes"] == list(CLASSES)
    for file in ("predictions.csv", "fold_1/predictions.csv", "folds.csv"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


@pytest.mark.parametrize("name", CLASSES)
def test_an_external_set_of_the_reverse_order_is_judged_by_the_runs_positive_class(
    runs, radtransfer, elsewhere, tmp_path, name, monkeypatch
):
    drawn = {}
    monkeypatch.setattr(evaluation_files, "save_figure", lambda figure, path: drawn.update({path.name: figure}))
    options = (*elsewhere, "--operating-point", "sensitivity=0.8", "--out", tmp_path / "out")
    outcome = radtransfer("evaluate", runs[name].path, *options)
    assert outcome.code == 0, outcome.err
    assert f"positive class {name}: sensitivity, specificity" in outcome.out
    assert f"  positive class {name}: threshold" in outcome.out
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    rows = read_rows(tmp_path / "out/predictions.csv")
    truth = np.array([row["label"] == name for row in rows])
    scores = np.array([float(row[f"p_{name}"]) for row in rows])
    assert found["positive_class"] == name
    assert found["sensitivity_at_90_specificity"] == pytest.approx(sensitivity_at_90(truth, scores))
    point = found["operating_point"]["questions"][name]
    says = scores >= point["threshold"]
    assert point["sensitivity"] == pytest.approx(says[truth].mean())
    assert point["specificity"] == pytest.approx((~says[~truth]).mean())
    assert [row["positive"] == "1" for row in rows] == says.tolist() == [row["predicted"] == name for row in rows]
    other = next(item for item in CLASSES if item != name)
    assert found["confusion"]["classes"] == [other, name]
    assert found["confusion"]["counts"][1] == [int((truth & ~says).sum()), int((truth & says).sum())]
    assert found["curves"]["pr"][0]["area"] == pytest.approx(average_precision_score(truth, scores))
    assert set(found["calibration"]["diagram"]) == {name}
    assert set(drawn) == set(FIGURES)
    assert all(f"positive class {name}" in texts(figure) for figure in drawn.values())
    assert [text.get_text() for text in drawn["confusion.png"].axes[0].get_yticklabels()] == [other, name]


def test_a_stored_run_is_judged_by_the_other_class_on_request(runs, radtransfer, elsewhere):
    for options in ((), elsewhere):
        told = [
            json.loads(radtransfer("evaluate", *arguments, *options, "--json").out)
            for arguments in ((runs["well"].path, "--positive-class", "sick"), (runs["sick"].path,))
        ]
        assert told[0]["positive_class"] == "sick"
        assert told[0] | {"model": ""} == told[1] | {"model": ""}
    refused = radtransfer("evaluate", runs["well"].path, "--positive-class", "Sick")
    assert (refused.code, refused.out) == (2, "")
    assert "Did you mean 'sick'?" in refused.err


def test_a_run_of_an_earlier_version_has_its_last_class_as_the_positive_one(
    old_run, runs, radtransfer, table_options, tmp_path
):
    found = json.loads(radtransfer("evaluate", old_run, "--json").out)
    assert found["positive_class"] == "well"
    assert found["sensitivity_at_90_specificity"] == runs["well"].metrics["sensitivity_at_90_specificity"]
    assert "positive class well" in radtransfer("card", old_run, "--fold", 1).out
    options = (*table_options, "--folds", 2, "--epochs", 2, "--out", old_run, "--resume")
    again = radtransfer("finetune", *options)
    assert (again.code, "(positive class well)" in again.out) == (0, True)
    assert radtransfer("finetune", *options, "--positive-class", "sick").code == 2
    compared = radtransfer("compare-predictions", old_run, runs["well"].path, "--draws", 100)
    assert compared.code == 0, compared.err
    both = radtransfer("report", old_run, runs["well"].path, "--no-cca", "--out", tmp_path / "report")
    assert both.code == 0, both.err
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert (report["positive_class"], len(report["auc"])) == ("well", 1)


def test_runs_of_two_positive_classes_are_not_compared(runs, radtransfer, tmp_path):
    one, other = (runs[name].path for name in CLASSES)
    outcome = radtransfer("compare-predictions", one, other)
    assert outcome.code == 3
    assert "classes sick, well, positive class sick" in outcome.err and "positive class well." in outcome.err
    outcome = radtransfer("report", one, other, "--no-cca", "--out", tmp_path / "report")
    assert outcome.code == 2
    assert f"sick or well? positive class sick  {one}" in outcome.err
    assert f"sick or well? positive class well  {other}" in outcome.err


def test_predictions_exports_and_cards_carry_the_positive_class(runs, radtransfer, tiny_images, tmp_path):
    run, images = runs["sick"].path / "fold_1", tiny_images / "images/well"
    point = ("--operating-point", "youden")
    outcome = radtransfer("export", run, "--format", "keras", "--out", tmp_path / "m.keras", *point)
    assert outcome.code == 0, outcome.err
    assert "positive class sick" in outcome.out.splitlines()
    card = (tmp_path / "m.keras.card.md").read_text()
    assert "sensitivity at 90 % specificity (positive class sick)" in card
    assert "validation images; positive class sick:" in card
    assert "| set | images | patients | well | sick |" in card
    said = {}
    for model, options in ((run, point), (tmp_path / "m.keras", ())):
        outcome = radtransfer("predict", model, images, *options)
        assert outcome.code == 0, outcome.err
        assert "positive class sick: probability of at least" in outcome.err
        said[model] = list(csv.DictReader(outcome.out.splitlines()))
        assert list(said[model][0]) == ["path", "predicted", "positive", "p_sick", "p_well"]
        assert all((row["positive"] == "1") == (row["predicted"] == "sick") for row in said[model])
        lines = radtransfer("predict", model, images, *options, "--format", "jsonl").out.splitlines()
        assert {json.loads(line)["positive_class"] for line in lines} == {"sick"}
    assert [row["positive"] for row in said[run]] == [row["positive"] for row in said[tmp_path / "m.keras"]]
    data = ("--data", tiny_images / "images", "--draws", 100)
    assert "positive class sick" in radtransfer("evaluate", tmp_path / "m.keras", *data).out
    refused = radtransfer("evaluate", tmp_path / "m.keras", *data, "--positive-class", "well")
    assert refused.code == 2
    assert "exported with an operating point for positive class sick" in refused.err


@pytest.mark.parametrize(
    ("header", "cells", "options", "why"),
    [
        ("path,label", ("a", "b", "c"), (), "found 3: a, b, c"),
        ("path,a,b", ("0,1", "1,0", "1,1"), ("--task", "multilabel", "--label-column", "a,b"), "0/1 labels (a, b)"),
        ("path,a", ("0", "1", "1"), ("--task", "multilabel", "--label-column", "a"), "0/1 labels (a)"),
        ("path,label", ("1", "2", "1"), ("--positive-from", 2), "this data has grades, positive from 2"),
        ("path,label", ("a", "b", "a"), (), "the classes are 'a' and 'b'. Give one"),
        ("path,label", ("A", "b", "A"), (), "Did you mean 'A'?"),
    ],
)
@pytest.mark.parametrize("command", [("finetune", "--data"), ("data", "check"), ("data", "split")])
def test_anything_but_two_classes_and_an_unknown_name_are_refused_with_the_reason(
    radtransfer, tiny_images, tmp_path, header, cells, options, why, command
):
    if "--positive-from" in options and command[0] == "data":
        pytest.skip("the command has no such option")
    images = sorted(path.relative_to(tiny_images) for path in (tiny_images / "images").rglob("*.png"))
    lines = [f"{path},{cells[number % 3]}" for number, path in enumerate(images)]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    name = "zzz" if "Give one" in why else "a"
    arguments = (tmp_path / "t.csv", "--image-root", tiny_images, *options, "--positive-class", name)
    outcome = radtransfer(*command, *arguments, "--out", tmp_path / "out.csv")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--positive-class" in outcome.err and why in outcome.err


def test_the_commands_about_data_take_and_name_the_positive_class(radtransfer, tiny_images, tmp_path):
    data = (tiny_images / "images.csv", "--image-root", tiny_images / "images", "--positive-class", "sick")
    checked = radtransfer("data", "check", *data)
    assert "2 classes (sick 24, well 24); positive class sick" in checked.out
    split = radtransfer("data", "split", *data, "--out", tmp_path / "folds.csv")
    assert "positive class sick" in split.out and "--positive-class sick" in split.err
    prepared = radtransfer("data", "prepare", *data, "--image-size", 24, "--out", tmp_path / "prepared")
    assert "--positive-class sick" in prepared.err
    assert radtransfer("data", "preview", *data, "--image-size", 24, "--out", tmp_path / "p.png").code == 0


def test_a_study_and_its_report_name_the_positive_class(radtransfer, tiny_images, tmp_path):
    base = {
        "data": {"source": str(tiny_images / "images.csv"), "image_root": str(tiny_images / "images")},
        "model": {"backbone": "cbr_tiny", "image_size": 24},
        "splits": {"folds": 1},
        "training": {"epochs": 1, "batch_size": 8},
    }
    arms = {"one": {}, "two": {"training.augmentation": "none"}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"base": base, "arms": arms}))
    out = tmp_path / "study"
    options = ("--jobs", 0, "--out", out, "--runs", tmp_path / "runs", "--set", "data.positive_class=sick")
    outcome = radtransfer("study", tmp_path / "s.yaml", *options)
    assert outcome.code == 0, outcome.err
    assert "positive class sick" in outcome.out.splitlines()
    assert {row["positive_class"] for row in read_rows(out / "table.csv")} == {"sick"}
    assert radtransfer("report", out, "--no-cca", "--out", tmp_path / "report").code == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["positive_class"] == "sick"
    assert list(report["data"][0]["classes"]) == ["well", "sick"]
    assert "positive class sick" in (tmp_path / "report/figures/auc.svg").read_text()
    assert "AUC for positive class sick." in (tmp_path / "report/tables/auc.md").read_text()
