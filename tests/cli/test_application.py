"""The command `radtransfer` itself."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from radtransfer.cli.main import application


def test_a_mistyped_command_is_usage_and_names_the_closest():
    outcome = CliRunner().invoke(application, ["finetun", "quickstart"])
    assert outcome.exit_code == 2
    assert "No command 'finetun'. Did you mean 'finetune'?" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["configs", "lst"], "No command 'lst'. Did you mean 'list'?"),
        (["data", "chek"], "No command 'chek'. Did you mean 'check'?"),
        (["weights", "xyz"], "No command 'xyz'. Known: "),
        (["train"], "No command 'train'. Did you mean 'finetune'?"),
        (["fit", "--lr", "1"], "No command 'fit'. Did you mean 'finetune'?"),
        (["test"], "No command 'test'. Did you mean 'evaluate'?"),
        (["infer"], "No command 'infer'. Did you mean 'predict'?"),
        (["Train"], "Did you mean 'finetune'?"),
        (["check", "x"], "No command 'check'. Did you mean 'data check'?"),
        (["data", "validate"], "No command 'validate'. Did you mean 'check'?"),
        (["weights", "download"], "No command 'download'. Did you mean 'fetch'?"),
        (["finetune", "--epoch", "3"], "--epochs"),
        (["finetune", "--model", "resnet50"], "No such option '--model'. Did you mean '--backbone'?"),
        (["finetune", "--lr", "1"], "No such option '--lr'. Did you mean '--learning-rate'?"),
        (["finetune", "--lr=1"], "No such option '--lr'. Did you mean '--learning-rate'?"),
        (["finetune", "-lr", "1"], "No such option '-lr'. Did you mean '--learning-rate'?"),
        (["finetune", "--output", "x"], "No such option '--output'. Did you mean '--out'?"),
        (["predict", "run", "x.png", "--output", "x"], "Did you mean '--out'?"),
        (["finetune", "--bs", "3"], "Did you mean '--batch-size'?"),
        (["finetune", "--dataset", "x"], "Did you mean '--data'?"),
        (["finetune", "--pretrained"], "Did you mean '--weights'?"),
        (["finetune", "--save_dir", "x"], "Did you mean '--out'?"),
        (["finetune", "--gpu", "0"], "CUDA_VISIBLE_DEVICES=0"),
        (["study", "x", "--gpu", "0"], "Did you mean '--gpus-per-run'?"),
        (["finetune", "--momentum", "0.8"], "Did you mean '--set training.momentum=…'?"),
        (["evaluate", "--checkpoint", "x"], "Give RUN without an option: radtransfer evaluate [OPTIONS] RUN"),
        (["data", "check", "--data", "x"], "Give DATA without an option"),
        (["--lr", "1", "finetune"], "Options of a command follow its name: radtransfer COMMAND --lr"),
        (["study", "quick-advice", "--dryrun"], "--dry-run"),
    ],
)
def test_mistyped_commands_and_options_get_a_suggestion(words, suggestion):
    outcome = CliRunner().invoke(application, words, prog_name="radtransfer")
    assert outcome.exit_code == 2 and suggestion in outcome.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["finetune", "--data", "scan"], 3),
        (["finetune", "--data", "busi:scan"], 3),
        (["finetune", "--data", "image_folder:scan"], 3),
        (["finetune", "--data", "scans/images.csv", "--image-root", "scan"], 3),
        (["finetune", "scan/settings.yaml"], 2),
        (["evaluate", "scan"], 4),
        (["predict", "scan", "scans"], 4),
        (["compare-cca", "scan", "scans"], 4),
        (["compare-cca", "scan@final", "scans"], 2),
        (["compare-predictions", "scan", "scans"], 2),
        (["export", "scan", "--format", "keras", "--out", "x"], 2),
        (["report", "scan", "--out", "x"], 2),
    ],
)
def test_a_mistyped_path_gets_a_suggestion(monkeypatch, tmp_path, words, code):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "images.csv").write_text("path,label\na.png,a\n")
    (tmp_path / "scans" / "settings.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(application, words)
    assert outcome.exit_code == code
    assert "Did you mean 'scans" in outcome.stderr or f"Did you mean '{tmp_path}/scans" in outcome.stderr


def test_the_package_runs_as_the_command():
    for words, code in ((["--version"], 0), (["trian"], 2)):
        ran = subprocess.run([sys.executable, "-m", "radtransfer", *words], capture_output=True, text=True)
        assert ran.returncode == code
        assert "radtransfer" in ran.stdout + ran.stderr and "__main__" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("no_color", [None, "1"])
def test_no_color_takes_the_colours_away(monkeypatch, tmp_path, no_color):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("radtransfer.cli.doctor.import_tensorflow", lambda: 1 / 0)
    monkeypatch.setenv("NO_COLOR", no_color or "")
    outcome = CliRunner().invoke(application, ["doctor"], color=True)
    assert ("\x1b[" in outcome.stdout) == (no_color is None)


def test_an_error_that_nobody_reads_keeps_its_exit_code():
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-c", "from radtransfer.cli.main import main; main()", "plan", "resnet5"]
        assert subprocess.run(command, stdout=write, stderr=write).returncode == 2
    finally:
        os.close(write)
