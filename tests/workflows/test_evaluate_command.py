import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from radtransfer.runs.folder import read_rows

UNSEEN = {"images": 0, "patients": 0, "in_weights": 0, "compared": True}
FIGURES = {"roc.png", "pr.png", "calibration.png", "confusion.png"}


def draw_images(folder, classes, *, patients=10, seed=5):
    """Images like those of the tiny data set, some hard to tell, and a table of paths, labels and patients."""
    rng, lines = np.random.default_rng(seed), []
    for number in range(2 * patients):
        label = classes[number // 2 % len(classes)]
        pixels = rng.integers(0, 120, (24, 24), np.uint8)
        if (number // 2 % 2) != (rng.random() < 0.25):
            pixels[4:14, 6:16] += 100
        path = folder / f"{number:02d}.png"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        lines.append([path.name, label, f"q{number // 2}"])
    with (folder / "images.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient"], *lines])
    return folder / "images.csv"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """40 images of 20 patients of another hospital."""
    return draw_images(tmp_path_factory.mktemp("elsewhere") / "images", ("well", "sick"), patients=20)


@pytest.fixture(scope="module")
def evaluated(radtransfer, finished_run, elsewhere, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    options = ("--data", elsewhere, "--operating-point", "youden", "--draws", 300, "--out", out, "--json")
    outcome = radtransfer("evaluate", finished_run.path, *options)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), out, outcome


def test_the_figures_are_scikit_learns_on_the_mean_of_the_folds(evaluated, radtransfer, finished_run, elsewhere):
    result, out, _ = evaluated
    lines = read_rows(out / "predictions.csv")
    assert list(lines[0]) == ["path", "patient", "label", "predicted", "positive", "p_sick", "p_well"]
    truth = np.array([line["label"] == "well" for line in lines])
    scores = np.array([float(line["p_well"]) for line in lines])
    predicted = csv.DictReader(radtransfer("predict", finished_run.path, elsewhere).out.splitlines())
    assert scores == pytest.approx([float(row["p_well"]) for row in predicted], abs=1e-6)
    assert 0.5 < result["auc"] < 1
    assert result["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert result["ci95"][0] < result["auc"] < result["ci95"][1]
    assert result["brier"] == pytest.approx(brier_score_loss(truth, scores))
    assert result["accuracy"] == pytest.approx(np.mean((scores > 0.5) == truth))
    assert (result["n_images"], result["n_patients"], result["judged"]) == (40, 20, "ensemble")
    assert result["per_class"]["well"]["auc"] == pytest.approx(result["auc"])
    assert result["per_class"]["well"]["n_positive"] == 20
    assert result["seen"] == UNSEEN | {"of": 40, "of_patients": 20}
    assert "warning" not in evaluated[2].err


def test_each_fold_is_judged_as_well(evaluated):
    result, out, _ = evaluated
    assert list(result["members"]) == ["fold_1", "fold_2"]
    lines = read_rows(out / "predictions_members.csv")
    for name, found in result["members"].items():
        mine = [line for line in lines if line["network"] == name]
        assert len(mine) == found["n_images"] == 40
        truth, scores = zip(*((line["label"] == "well", float(line["p_well"])) for line in mine), strict=True)
        assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))


def test_the_operating_point_comes_from_validation_and_is_judged_on_the_test_images(evaluated, finished_run):
    result, out, _ = evaluated
    point = result["operating_point"]
    valid = [
        line
        for k in (1, 2)
        for line in read_rows(finished_run.path / f"fold_{k}" / "predictions.csv")
        if line["split"] == "val"
    ]
    assert point["chosen_on_images"] == len(valid)
    found = point["questions"]["well"]
    lines = read_rows(out / "predictions.csv")
    truth = [line["label"] == "well" for line in lines]
    says = [float(line["p_well"]) >= found["threshold"] for line in lines]
    tn, fp, fn, tp = confusion_matrix(truth, says).ravel()
    assert [found[name] for name in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
    assert found["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert result["confusion"] == {
        "classes": ["sick", "well"],
        "counts": [[tn, fp], [fn, tp]],
        "decided": "at the operating point youden",
    }
    assert found["accuracy"] == pytest.approx((tn + tp) / 40)
    there = [float(line["p_well"]) >= found["threshold"] for line in valid]
    well = [line["label"] == "well" for line in valid]
    assert found["validation"]["sensitivity"] == pytest.approx(np.mean(np.array(there)[well]))


def test_the_folder_holds_tables_json_and_figures(evaluated):
    result, out, outcome = evaluated
    names = {path.name for path in out.iterdir()}
    assert names == {"predictions.csv", "predictions_members.csv", "metrics.json", *FIGURES}
    written = json.loads((out / "metrics.json").read_text())
    curves = written.pop("curves")
    assert written == result
    assert [len(curves[kind]) for kind in ("roc", "pr")] == [1, 1]
    assert curves["roc"][0]["area"] == pytest.approx(result["auc"])
    assert all(f"wrote     {out / name}" in outcome.err for name in names)


def test_the_terminal_says_how_many_and_how_sure(radtransfer, finished_run, elsewhere):
    outcome = radtransfer("evaluate", finished_run.path, "--data", elsewhere, "--draws", 100)
    assert outcome.code == 0, outcome.err
    for words in (
        "40 images, 20 patients",
        "fold_1",
        "ensemble",
        "95 % interval",
        "10 bins of equal width",
        "temperature",
    ):
        assert words in outcome.out
    starts = [line.split()[:2] for line in outcome.out.splitlines()]
    assert ["well", "AUC"] in starts and ["sick", "AUC"] not in starts


def test_the_matrix_says_how_it_was_decided_and_the_accuracy_there_is_printed(radtransfer, finished_run):
    outcome = radtransfer("evaluate", finished_run.path, "--draws", 100, "--operating-point", "sensitivity=0.9")
    assert outcome.code == 0, outcome.err
    *_, point, heading, _, sick, well = outcome.out.splitlines()
    assert heading == "confusion matrix at the operating point sensitivity=0.9"
    right = int(sick.split()[1]) + int(well.split()[2])
    assert f"accuracy {right / 48:.3f}, sensitivity" in point
    outcome = radtransfer("evaluate", finished_run.path, "--draws", 100)
    assert "confusion matrix by the largest probability" in outcome.out.splitlines()


def test_a_run_is_evaluated_on_its_own_test_images_without_data(radtransfer, finished_run):
    outcome = radtransfer("evaluate", finished_run.path, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["judged"] == "out_of_fold"
    assert result["auc"] == finished_run.metrics["auc"]["pooled"]
    assert result["ci95"] == finished_run.metrics["auc"]["ci95"]
    for name in ("accuracy", "brier", "sensitivity_at_90_specificity", "n_images", "n_patients"):
        assert result[name] == finished_run.metrics[name]
    assert "warning" not in outcome.err and "seen" not in result


def test_a_fold_gives_its_own_figures_again_from_its_images(radtransfer, finished_run, tiny_images, tmp_path):
    lines = [
        line for line in read_rows(finished_run.path / "folds.csv") if line["fold"] == "1" and line["split"] == "test"
    ]
    table = "path,label,patient\n" + "".join(f"{line['path']},{line['label']},{line['patient']}\n" for line in lines)
    (tmp_path / "test.csv").write_text(table)
    options = ("--data", tmp_path / "test.csv", "--image-root", tiny_images / "images", "--json")
    outcome = radtransfer("evaluate", finished_run.path / "fold_1", *options)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    metrics = json.loads((finished_run.path / "fold_1" / "metrics.json").read_text())
    assert result["auc"] == metrics["auc"]
    assert result["brier"] == pytest.approx(metrics["brier"], abs=1e-6)
    assert result["seen"] == UNSEEN | {"of": len(lines), "of_patients": len({line["patient"] for line in lines})}
    assert "leak" not in outcome.err and "warning" not in outcome.err


def test_images_and_patients_of_the_training_are_warned_of(radtransfer, finished_run, tiny_images, tmp_path):
    copied, out = tmp_path / "copied", tmp_path / "out"
    shutil.copytree(tiny_images / "images", copied)
    data = ("--data", tiny_images / "images.csv", "--image-root", copied)
    outcome = radtransfer("evaluate", finished_run.path, *data, "--draws", 100, "--out", out)
    assert outcome.code == 0, outcome.err
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning   ")]
    assert len(warnings) == 3
    assert "leak: 48 of 48 test images were used to train or validate" in warnings[0]
    assert "this is not a test. Use images that the model has not seen" in warnings[0]
    assert "leak: 24 of 24 patients" in warnings[1]
    counts = "48 of 48 test images and 24 of 24 patients were in the run's training or validation"
    listed = out / "seen.csv"
    assert warnings[-1] == f"warning   {counts}: this is not a test; listed in {listed}"
    rows = read_rows(listed)
    assert [row["path"] for row in rows] == [row["path"] for row in read_rows(out / "predictions.csv")]
    assert {row["how"] for row in rows} <= {"trained", "validated", "trained;validated"}
    assert "all of them in the run's training or validation" in outcome.out
    seen = json.loads((out / "metrics.json").read_text())["seen"]
    assert seen == {"images": 48, "patients": 24, "of": 48, "of_patients": 24, "in_weights": 0, "compared": True}


def test_some_images_of_the_training_are_counted_before_and_under_the_figures(
    radtransfer, finished_run, tiny_images, tmp_path
):
    data = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    outcome = radtransfer("evaluate", finished_run.path / "fold_1", *data, "--draws", 100, "--json", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    folds = [row for row in read_rows(finished_run.path / "folds.csv") if row["fold"] == "1"]
    ways = {"train": "trained", "val": "validated"}
    expected = {row["path"]: ways[row["split"]] for row in folds if row["split"] in ways}
    assert {row["path"]: row["how"] for row in read_rows(tmp_path / "seen.csv")} == expected
    seen = json.loads(outcome.out)["seen"]
    assert 0 < seen["images"] < 48 and 0 < seen["patients"] < 24
    counts = f"{seen['images']} of 48 test images and {seen['patients']} of 24 patients"
    last = outcome.err.splitlines()[-1]
    told = f"{counts} were in the run's training or validation: the results are too high"
    assert last == f"warning   {told}; listed in {tmp_path / 'seen.csv'}"
    assert f"leak: {seen['images']} of 48 test images were used to train or validate" in outcome.err
    assert "the results are too high. Leave these images out" in outcome.err
    assert "not a test" not in outcome.err


def test_images_that_trained_the_runs_weights_are_warned_of(
    radtransfer, finished_run, tiny_images, elsewhere, tmp_path
):
    network = ("--backbone", "cbr_tiny", "--image-size", 24, "--batch-size", 8, "--epochs", 1, "--folds", 1)
    arguments = ("--weights", finished_run.path / "fold_1", *network, "--out", tmp_path / "run")
    assert radtransfer("finetune", "--data", elsewhere, *arguments).code == 0
    data = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    outcome = radtransfer("evaluate", tmp_path / "run", *data, "--draws", 100, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert {row["how"] for row in read_rows(tmp_path / "out" / "seen.csv")} == {"weights"}
    assert "of 48 test images were used to train the initial weights of" in outcome.err
    assert "train or validate" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert "of 48 test images were in the training of its initial weights: the results are too high" in last


def test_classes_that_do_not_match_exit_with_3_and_can_be_mapped(radtransfer, finished_run, tmp_path):
    table = draw_images(tmp_path / "other", ("well", "Sick", "normal"))
    outcome = radtransfer("evaluate", finished_run.path, "--data", table)
    assert (outcome.code, outcome.out) == (3, "")
    for words in (
        "Expected sick, well",
        "lacks sick",
        "Sick (6 images)",
        "--class-map Sick=sick --class-map normal=CLASS",
    ):
        assert words in outcome.err
    assert "leave their images out" not in outcome.err  # one class would be left
    options = ("--class-map", "Sick=sick", "--class-map", "normal=")
    outcome = radtransfer("evaluate", finished_run.path, "--data", table, *options, "--draws", 100, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["n_images"] == 14


def test_exports_are_evaluated_with_what_they_carry(radtransfer, finished_run, elsewhere, tmp_path):
    found = {}
    for kind in ("keras", "savedmodel"):
        out = tmp_path / f"m.{kind}"
        arguments = ("--fold", 1, "--format", kind, "--out", out, "--operating-point", "youden", "--json")
        outcome = radtransfer("export", finished_run.path, *arguments)
        assert outcome.code == 0, outcome.err
        path = json.loads(outcome.out)[0]["path"]
        outcome = radtransfer("evaluate", path, "--data", elsewhere, "--draws", 100, "--json")
        assert outcome.code == 0, outcome.err
        found[kind] = json.loads(outcome.out)
        assert radtransfer("evaluate", path).code == 2
    options = ("--data", elsewhere, "--draws", 100, "--operating-point", "youden", "--json")
    run = json.loads(radtransfer("evaluate", finished_run.path / "fold_1", *options).out)
    for result in found.values():
        assert result["auc"] == run["auc"]
        assert result["temperatures"] == run["temperatures"]
        assert result["operating_point"] == run["operating_point"]
        assert result["members"] == {}


def test_unreadable_images_stop_it_or_are_left_out(radtransfer, finished_run, elsewhere, tmp_path):
    shutil.copytree(elsewhere.parent, tmp_path / "images")
    (tmp_path / "images" / "03.png").write_bytes(b"")
    arguments = ("evaluate", finished_run.path, "--data", tmp_path / "images" / "images.csv", "--draws", 100)
    outcome = radtransfer(*arguments)
    assert (outcome.code, outcome.out) == (3, "")
    assert "1 of 40 images cannot be read: '03.png'" in outcome.err
    outcome = radtransfer(*arguments, "--on-bad-image", "skip", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["n_images"] == 39


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--data", "nowhere"), 3, "No data at 'nowhere'"),
        (("--label-column", "label"), 2, "--label-column is about the images in --data"),
        (("--class-map", "normal"), 2, "NAME=CLASS"),
        (("--operating-point", "best"), 2, "sensitivity=X"),
        (("--fold", 7), 2, "Finished folds: 1, 2"),
    ],
)
def test_wrong_options_are_one_message(radtransfer, finished_run, arguments, code, words):
    outcome = radtransfer("evaluate", finished_run.path, *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err


def test_results_do_not_go_into_a_run(radtransfer, finished_run):
    outcome = radtransfer("evaluate", finished_run.path, "--out", finished_run.path)
    assert outcome.code == 2
    assert "expected a folder for results" in outcome.err


@pytest.fixture(scope="module")
def several_labels(tiny_images, tmp_path_factory):
    """The tiny images with two labels, one of them unknown for some."""
    folder = tmp_path_factory.mktemp("labels")
    lines = ["path,patient,bright,odd"]
    for number, line in enumerate(read_rows(tiny_images / "images.csv")):
        odd = -1 if number % 12 == 0 else number // 4 % 2
        lines.append(f"{line['path']},{line['patient']},{int(line['label'] == 'sick')},{odd}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def test_several_labels_have_their_own_thresholds_curves_and_matrices(
    radtransfer, tiny_images, several_labels, tmp_path
):
    data = ("--data", several_labels, "--image-root", tiny_images / "images", "--label-column", "bright,odd")
    network = ("--backbone", "cbr_tiny", "--image-size", 24, "--batch-size", 8, "--epochs", 1, "--folds", 2)
    run, out = tmp_path / "run", tmp_path / "out"
    outcome = radtransfer("finetune", *data, *network, "--val-fraction", 0.3, "--out", run)
    assert outcome.code == 0, outcome.err
    options = ("--operating-point", "youden", "--draws", 100, "--out", out)
    outcome = radtransfer("evaluate", run, *data, *options, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert set(result["operating_point"]["questions"]) == {"bright", "odd"}
    assert sum(map(sum, result["confusion"]["labels"]["bright"])) == 48
    assert sum(map(sum, result["confusion"]["labels"]["odd"])) == 44
    assert {path.name for path in out.iterdir()} >= FIGURES
    outcome = radtransfer("evaluate", run, *data, *options[:4])
    assert outcome.code == 0, outcome.err
    starts = [line.split()[:2] for line in outcome.out.splitlines()]
    assert ["bright", "AUC"] in starts and ["odd", "AUC"] in starts
    predicted = radtransfer("predict", run, several_labels, "--image-root", tiny_images / "images", "--format", "jsonl")
    assert predicted.code == 0, predicted.err
    rows = [json.loads(line) for line in predicted.out.splitlines()]
    assert all(
        row["predicted"] == [name for name, value in row["probabilities"].items() if value > 0.5] for row in rows
    )


def test_other_images_of_a_seen_patient_are_listed_as_such(radtransfer, finished_run, elsewhere, tmp_path):
    lines = elsewhere.read_text()
    table = elsewhere.parent / "one_known.csv"
    table.write_text(lines.replace(",q0\n", ",p00\n"))
    outcome = radtransfer("evaluate", finished_run.path, "--data", table, "--draws", 100, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    rows = read_rows(tmp_path / "out" / "seen.csv")
    assert [(row["path"], row["how"]) for row in rows] == [("00.png", "patient"), ("01.png", "patient")]
    assert "the results may be too high; listed in" in outcome.err.splitlines()[-1]


def test_a_patient_of_the_training_who_is_spelt_otherwise_is_warned_of_and_listed(
    radtransfer, finished_run, elsewhere, tmp_path
):
    table = elsewhere.parent / "spelt.csv"
    table.write_text(elsewhere.read_text().replace(",q0\n", ',"P0 "\n'))
    arguments = ("evaluate", finished_run.path, "--data", table, "--draws", 100, "--overwrite", "--out", tmp_path)
    outcome = radtransfer(*arguments)
    assert outcome.code == 0, outcome.err
    assert "patients have names that are also in the training data" in outcome.err
    assert "(e.g. P0, there spelled p00)" in outcome.err
    assert [row["path"] for row in read_rows(tmp_path / "seen.csv")] == ["00.png", "01.png"]
    assert {row["patient"] for row in read_rows(tmp_path / "predictions.csv")} >= {"P0"}
    outcome = radtransfer(*arguments, "--allow-alike-patients")
    assert outcome.code == 0, outcome.err
    assert "leak" not in outcome.err
