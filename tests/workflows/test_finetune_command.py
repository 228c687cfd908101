import json

import numpy as np
import pytest
from PIL import Image

ONE_EPOCH = ("--backbone", "cbr_tiny", "--image-size", 24, "--epochs", 1, "--folds", 1)


def metrics_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_folder_of_class_folders_needs_no_table(radtransfer, tiny_images, tmp_path):
    arguments = ("--data", tiny_images / "images", *ONE_EPOCH, "--out", tmp_path / "run", "--json")
    outcome = radtransfer("finetune", *arguments)
    assert metrics_of(outcome)["n_patients"] is None
    assert "no patient column" in outcome.err


def test_one_fold_of_several_can_run_alone(radtransfer, table_options, tmp_path):
    arguments = ("--folds", 3, "--fold", 2, "--epochs", 1, "--out", tmp_path / "run", "--json")
    outcome = radtransfer("finetune", *table_options, *arguments)
    assert metrics_of(outcome)["folds"] == [2]
    assert "split     fold 2 of 3, " in outcome.err
    assert "fold 2/3  epoch 1/1" in outcome.err
    assert "fold 2/3  test AUC" in outcome.err
    assert (tmp_path / "run" / "fold_2" / "model.keras").exists()


def test_repeats_run_over_seeds(radtransfer, table_options, tmp_path):
    arguments = ("--folds", 1, "--repeats", 2, "--epochs", 1, "--out", tmp_path / "run", "--json")
    metrics = metrics_of(radtransfer("finetune", *table_options, *arguments))
    assert metrics["folds"] == [1, 2]
    assert len(metrics["auc"]["per_fold"]) == 2
    assert metrics["auc"]["sd"] is not None
    seeds = [json.loads((tmp_path / "run" / f"fold_{k}" / "metrics.json").read_text())["seed"] for k in (1, 2)]
    assert seeds == [0, 1]


def test_several_labels_end_in_sigmoids_and_ignore_what_is_unknown(radtransfer, tiny_images, tmp_path):
    lines = ["path,patient,edema,fracture"]
    for i, path in enumerate(sorted((tiny_images / "images").rglob("*.png"))):
        edema, fracture = int(path.parent.name == "sick"), (1, 0, -1, "")[i // 2 % 4]
        lines.append(f"{path.parent.name}/{path.name},{path.stem[:3]},{edema},{fracture}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = ("--data", tmp_path / "labels.csv", "--image-root", tiny_images / "images")
    arguments = (*data, "--label-column", "edema,fracture", *ONE_EPOCH, "--out", tmp_path / "run", "--json")
    metrics = metrics_of(radtransfer("finetune", *arguments))
    assert set(metrics["auc"]["per_class"]) == {"edema", "fracture"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["head"] == "sigmoid"


def test_ordered_grades_report_the_referable_auc(radtransfer, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        (tmp_path / "images" / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8)).save(tmp_path / "images" / str(i % 3) / f"{i}.png")
    data = ("--data", tmp_path / "images", "--positive-from", 2, "--recipe", "raghu-retina")
    metrics = metrics_of(radtransfer("finetune", *data, *ONE_EPOCH, "--out", tmp_path / "run", "--json"))
    assert set(metrics["auc"]["per_class"]) == {"0", "1", "2"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["head"] == "sigmoid"


def test_pretraining_on_a_source_set_reports_the_top_1_and_top_5_accuracy(radtransfer, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        folder = tmp_path / "images" / f"class_{i % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24), np.uint8)).save(folder / f"{i}.png")
    source = ("pretrain-source", "--data", tmp_path / "images", *ONE_EPOCH, "--learning-rate", "1e-3")
    outcome = radtransfer("finetune", *source, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"accuracy {metrics['accuracy']:.3f}   top-5 accuracy {metrics['top5_accuracy']:.3f}   " in outcome.out


def test_a_finished_run_is_a_source_and_hands_on_its_preprocessing(radtransfer, finished_run, table_options, tmp_path):
    source = finished_run.path / "fold_2"
    arguments = ("--weights", source, "--folds", 1, "--epochs", 1, "--out", tmp_path / "run", "--json")
    metrics_of(radtransfer("finetune", *table_options, *arguments))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["weights"]["sha256"]
    assert record["preprocessing"] == "torch"
    assert record["weights"]["preprocessing_from"] == "run"


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_saves_a_float32_model(radtransfer, table_options, tmp_path, precision):
    import keras

    arguments = ("--precision", precision, "--folds", 1, "--epochs", 1, "--out", tmp_path / "run", "--json")
    metrics_of(radtransfer("finetune", *table_options, *arguments))
    model = keras.models.load_model(tmp_path / "run" / "fold_1" / "model.keras")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_xla_trains_to_nearly_the_same_weights(radtransfer, table_options, tmp_path):
    from radtransfer.runs.folder import read_rows

    losses = []
    for flag in ("--jit", "--no-jit"):
        arguments = (flag, "--folds", 1, "--epochs", 1, "--dropout", 0, "--out", tmp_path / flag)
        assert radtransfer("finetune", *table_options, *arguments).code == 0
        losses.append(float(read_rows(tmp_path / flag / "fold_1" / "history.csv")[0]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_same_command_gives_the_same_numbers(radtransfer, finished_run, table_options, tmp_path):
    outcome = radtransfer("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", tmp_path / "again")
    assert outcome.code == 0
    for name in ("predictions.csv", "fold_1/history.csv", "metrics.json", "folds.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (finished_run.path / name).read_bytes()


def test_a_dry_run_estimates_and_leaves_nothing(radtransfer, table_options, tmp_path):
    outcome = radtransfer("finetune", *table_options, "--dry-run", "--out", tmp_path / "run", "--json")
    assert metrics_of(outcome)["steps_per_epoch"] > 0
    assert metrics_of(outcome)["total_hours"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("hours", "text"), [(0.0025, "9 s"), (0.5, "30 min"), (31.24, "31.2 h")])
def test_an_estimate_is_printed_in_fitting_units(hours, text):
    from radtransfer.cli.train import estimate_text
    from radtransfer.training.plan import Estimate

    printed = estimate_text(vars(Estimate(60, 2, 4, 3.2, 0.41, 1.6, hours, 821.0)))
    assert f"whole run      about {text}, less" in printed
    assert "memory so far  821 MB" in printed


def test_a_finished_run_resumes_to_its_result(radtransfer, finished_run, table_options):
    arguments = ("--folds", 2, "--epochs", 2, "--out", finished_run.path, "--resume", "--json")
    assert metrics_of(radtransfer("finetune", *table_options, *arguments)) == finished_run.metrics


def test_early_stopping_waits_as_long_as_it_says(radtransfer, table_options, tmp_path):
    arguments = ("--learning-rate", 0, "--patience", 2, "--epochs", 9, "--folds", 1, "--out", tmp_path / "run")
    assert radtransfer("finetune", *table_options, *arguments).code == 0
    metrics = json.loads((tmp_path / "run" / "fold_1" / "metrics.json").read_text())
    assert (metrics["best_epoch"], metrics["epochs"]) == (1, 3)


def test_none_is_a_value_of_class_weights(radtransfer, table_options, tmp_path):
    arguments = ("--class-weights", "none", "--patience", "none", "--dry-run", "--out", tmp_path / "run")
    assert radtransfer("finetune", *table_options, *arguments).code == 0


def test_accuracy_can_be_monitored(radtransfer, table_options, tmp_path):
    arguments = ("--monitor", "accuracy", "--folds", 1, "--epochs", 1, "--out", tmp_path / "run")
    assert radtransfer("finetune", *table_options, *arguments).code == 0
    assert "val_accuracy" in (tmp_path / "run" / "fold_1" / "history.csv").read_text()


def test_weights_that_have_seen_the_test_images_are_pointed_out(radtransfer, table_options, finished_run, tmp_path):
    source = finished_run.path / "fold_2"  # trained on most of what fold 1 tests
    arguments = ("--folds", 2, "--epochs", 1, "--weights", source, "--out", tmp_path / "run", "--dry-run")
    outcome = radtransfer("finetune", *table_options, *arguments)
    assert outcome.code == 0, outcome.err
    assert "leak: in fold 1, 24 of 24 test images were used to train or select" in outcome.err
    assert "in fold 2" not in outcome.err


def test_the_time_of_the_head_phase_is_part_of_the_estimate(radtransfer, table_options, finished_run, monkeypatch):
    from radtransfer.training import plan as dry_run

    phases = iter([(100.0, 10.0, 0.0, 0.0), (0.0, 20.0, 0.0, 0.0)])
    monkeypatch.setattr(dry_run, "time_learner", lambda *_, **__: next(phases))
    options = ("--weights", finished_run.path / "fold_1", "--scheme", "freeze_then_unfreeze", "--dry-run", "--json")
    estimate = json.loads(radtransfer("finetune", *table_options, *options).out)
    assert estimate["first_step_seconds"] == 20
    assert estimate["total_hours"] == pytest.approx(130 / 3600, abs=1e-5)
