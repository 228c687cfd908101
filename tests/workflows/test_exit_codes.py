import json
import shutil

import pytest


def check(outcome, code, *words):
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for word in words:
        assert word in outcome.err


def test_an_unknown_option_is_usage(radtransfer):
    check(radtransfer("finetune", "--epoch", "3"), 2, "--epochs")


def test_no_data_is_usage(radtransfer):
    check(radtransfer("finetune"), 2, "No images given", "quickstart")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "training.learning_rat=1"), ("learning_rat", "training.learning_rate")),
        (("--epochs", "0"), ("training.epochs", "from 1")),
        (("--backbone", "resnet5"), ("resnet50",)),
        (("--preprocessing", "cafe"), ("caffe",)),
        (("--set", "training.augmentation=lihgt"), ("light",)),
        (("--image-size", "20", "--backbone", "inception_v3"), ("too small", "75")),
        (("--fold", "9"), ("9",)),
        (("--resume", "--overwrite"), ("exclude each other",)),
        (("--class-weights", "{sick: 2}"), ("a factor for each of sick, well",)),
        (("--set", "training.loss=categorical_crossentropy", "--head", "sigmoid"), ("needs model.head softmax",)),
    ],
)
def test_settings_that_cannot_be_used_exit_with_2(radtransfer, table_options, tmp_path, arguments, words):
    outcome = radtransfer("finetune", *table_options, "--out", tmp_path / "run", "--dry-run", *arguments)
    check(outcome, 2, *words)


def test_a_recipe_without_a_learning_rate_takes_the_one_on_the_command_line(radtransfer, table_options, tmp_path):
    outcome = radtransfer("finetune", *table_options, "--recipe", "mei", "--out", tmp_path / "run", "--dry-run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("columns", ["diagnosis", "label,diagnosis"])
def test_a_column_the_table_lacks_exits_with_3_and_lists_the_others(radtransfer, table_options, tmp_path, columns):
    outcome = radtransfer("finetune", *table_options, "--label-column", columns, "--out", tmp_path / "run")
    check(outcome, 3, "diagnosis", "path", "label", "patient", "--label-column")
    assert not (tmp_path / "run" / "run.json").exists()


def test_missing_data_exits_with_3(radtransfer, tmp_path):
    check(radtransfer("finetune", "--data", tmp_path / "nowhere", "--out", tmp_path / "run"), 3, "nowhere")


def test_missing_and_corrupt_images_are_all_listed_before_training(radtransfer, tiny_images, table_options, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(tiny_images / "images", root)
    broken = sorted(root.rglob("*.png"))[:2]
    broken[0].write_bytes(broken[0].read_bytes()[:60])
    broken[1].unlink()
    arguments = ("--image-root", root, "--out", tmp_path / "run", "--epochs", 1, "--folds", 1)
    outcome = radtransfer("finetune", *table_options, *arguments)
    check(outcome, 3, "2 of 48", broken[0].name, "bad_images.txt", "--on-bad-image skip")
    listed = (tmp_path / "run" / "bad_images.txt").read_text()
    assert all(path.name in listed for path in broken)
    outcome = radtransfer("finetune", *table_options, *arguments, "--on-bad-image", "skip")
    assert outcome.code == 0, outcome.err
    assert "data      46 images" in outcome.err


def test_a_leak_exits_with_3_and_names_the_patient(radtransfer, tiny_images, table_options, tmp_path):
    lines = (tiny_images / "images.csv").read_text().splitlines()
    splits = [("train", "test", "val")[i % 3] for i in range(len(lines) - 1)]
    leaky = [lines[0] + ",split", *(f"{line},{split}" for line, split in zip(lines[1:], splits, strict=True))]
    (tmp_path / "leaky.csv").write_text("\n".join(leaky))
    arguments = ("--data", tmp_path / "leaky.csv", "--out", tmp_path / "run", "--epochs", 1)
    check(radtransfer("finetune", *table_options, *arguments), 3, "p00", "--allow-leakage")
    outcome = radtransfer("finetune", *table_options, *arguments, "--allow-leakage")
    assert outcome.code == 0, outcome.err
    assert "leak" in outcome.err


def test_unusable_weights_exit_with_4(radtransfer, table_options, tmp_path):
    (tmp_path / "page.h5").write_text("<!DOCTYPE html><html>virus scan</html>")
    arguments = ("finetune", *table_options, "--out", tmp_path / "run", "--weights")
    check(radtransfer(*arguments, tmp_path / "page.h5"), 4, "HTML", "page.h5")
    check(radtransfer(*arguments, tmp_path / "none.h5"), 4, "none.h5")


def test_weights_of_another_network_exit_with_4(radtransfer, finished_run, table_options, tmp_path):
    arguments = ("--weights", finished_run.path / "fold_1" / "model.keras", "--backbone", "cbr_small")
    check(radtransfer("finetune", *table_options, *arguments, "--out", tmp_path / "run"), 4, "cbr_tiny", "cbr_small")


def test_a_run_with_several_folds_must_say_which(radtransfer, finished_run, table_options, tmp_path):
    outcome = radtransfer("finetune", *table_options, "--weights", finished_run.path, "--out", tmp_path / "run")
    check(outcome, 4, "fold_1", "fold_2")


def test_a_loss_that_is_no_number_exits_with_5(radtransfer, table_options, tmp_path):
    diverging = ("--optimizer", "sgd", "--learning-rate", 90, "--set", "training.weight_decay=1")
    arguments = (*diverging, "--schedule", "constant", "--epochs", 8, "--folds", 1, "--out", tmp_path / "run")
    check(radtransfer("finetune", *table_options, *arguments), 5, "The loss became", "--learning-rate")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_an_epoch_ends_soon_after_its_loss_is_no_number(radtransfer, table_options, tmp_path, monkeypatch):
    from radtransfer.process import EpochReporter

    steps = []
    monkeypatch.setattr("radtransfer.training.loop._CHECK_EVERY", 2)
    monkeypatch.setattr(EpochReporter, "step", lambda _, *numbers: steps.append(numbers))
    diverging = ("--optimizer", "sgd", "--learning-rate", 90, "--set", "training.weight_decay=1", "--batch-size", 2)
    arguments = (*diverging, "--schedule", "constant", "--epochs", 3, "--folds", 1, "--out", tmp_path / "run")
    check(radtransfer("finetune", *table_options, *arguments), 5, "The loss became")
    epoch, done, of = steps[-1]
    assert epoch == 1
    assert done < of - 2


def test_a_mistake_leaves_no_run_folder(radtransfer, table_options, tmp_path):
    out = tmp_path / "runs" / "first"
    check(radtransfer("finetune", *table_options, "--label-column", "nowhere", "--out", out), 3, "nowhere")
    assert not out.exists()
    out.mkdir(parents=True)
    check(radtransfer("finetune", *table_options, "--label-column", "nowhere", "--out", out), 3, "nowhere")
    assert out.exists()


def test_a_copy_in_another_split_is_told_before_training(radtransfer, table_options, tiny_images, tmp_path):
    shutil.copytree(tiny_images, tmp_path / "data")
    lines = (tmp_path / "data" / "images.csv").read_text().splitlines()[1:]
    rows = [",".join(line.split(",")[:2]) for line in lines]
    table = ["path,label,split", *(f"{row},{('train', 'val', 'test')[k % 3]}" for k, row in enumerate(rows))]
    (tmp_path / "table.csv").write_text("\n".join(table))
    first, third = (tmp_path / "data" / "images" / table[number].split(",")[0] for number in (1, 3))
    shutil.copy(first, third)
    options = ("--data", tmp_path / "table.csv", "--image-root", tmp_path / "data" / "images", *table_options[4:])
    outcome = radtransfer("finetune", *options, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "leak: 1 image has copies under another name" in outcome.err
    assert "in train and test of fold 1" in outcome.err


def test_an_existing_run_exits_with_2(radtransfer, finished_run, table_options):
    outcome = radtransfer("finetune", *table_options, "--out", finished_run.path)
    check(outcome, 2, "exists (finished", "--resume", "--overwrite")


def test_resuming_with_other_settings_exits_with_2(radtransfer, finished_run, table_options):
    arguments = ("--folds", 2, "--epochs", 3, "--out", finished_run.path, "--resume")
    check(radtransfer("finetune", *table_options, *arguments), 2, "training.epochs 2 → 3")


def test_some_failed_folds_exit_with_6_and_keep_the_others(radtransfer, table_options, tmp_path, monkeypatch):
    from radtransfer.errors import TrainingError
    from radtransfer.training import run as finetune

    train = finetune.train_fold

    def fail_in_fold_2(context, fold, run, progress):
        if fold.number == 2:
            raise TrainingError("made to fail.")
        return train(context, fold, run, progress)

    monkeypatch.setattr(finetune, "train_fold", fail_in_fold_2)
    arguments = ("--folds", 2, "--epochs", 1, "--out", tmp_path / "run", "--json")
    outcome = radtransfer("finetune", *table_options, *arguments)
    assert outcome.code == 6, outcome.err
    assert json.loads(outcome.out)["folds"] == [1]
    assert "Fold 2: made to fail." in outcome.err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["folds"] == [1]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_bug_is_one_line_with_exit_code_1(radtransfer, table_options, monkeypatch, tmp_path):
    from radtransfer.training import run as finetune

    def explode(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr(finetune, "prepare", explode)
    outcome = radtransfer("finetune", *table_options, "--out", tmp_path / "run")
    check(outcome, 1, "Unexpected RuntimeError: boom", "--debug")


def test_a_typo_does_not_cost_the_run_that_was_to_be_overwritten(radtransfer, table_options, tmp_path):
    out = tmp_path / "run"
    assert radtransfer("finetune", *table_options, "--folds", 1, "--epochs", 1, "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    check(radtransfer("finetune", *table_options, "--out", out, "--overwrite", "--weights", "none.h5"), 4, "none.h5")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_memory_that_runs_out_exits_with_5_and_says_what_helps(radtransfer, table_options, tmp_path, monkeypatch):
    import tensorflow as tf

    from radtransfer.training import run as fold_results

    def run_out(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(fold_results, "predict", run_out)
    outcome = radtransfer("finetune", *table_options, "--folds", 1, "--epochs", 1, "--out", tmp_path / "run")
    check(outcome, 5, "Out of memory at batch size 8", "--batch-size 4")


def test_an_image_that_vanishes_during_training_is_named(
    radtransfer, tiny_images, table_options, tmp_path, monkeypatch
):
    root = tmp_path / "images"
    shutil.copytree(tiny_images / "images", root)
    lose_an_image = (root / "well" / "p00_0.png").unlink
    monkeypatch.setattr("radtransfer.cli.terminal.TerminalProgress.plan", lambda *_: lose_an_image())
    arguments = ("--image-root", root, "--out", tmp_path / "run", "--epochs", 1, "--folds", 1)
    check(radtransfer("finetune", *table_options, *arguments), 3, "p00_0.png", "No such file")


def test_resuming_with_another_weights_file_is_refused(radtransfer, finished_run, table_options, tmp_path, monkeypatch):
    from radtransfer.training import run as finetune

    source = tmp_path / "source.keras"
    shutil.copy(finished_run.path / "fold_1" / "model.keras", source)
    arguments = ("--weights", source, "--folds", 1, "--epochs", 1, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "train_fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert radtransfer("finetune", *table_options, *arguments).code == 130
    shutil.copy(finished_run.path / "fold_2" / "model.keras", source)
    check(radtransfer("finetune", *table_options, *arguments, "--resume"), 2, "weights_sha256")
