"""What commands about a run say to type next: commands that work, with the run's own path."""

import shlex
import shutil

import pytest


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run.path, tmp_path / "a run")


def next_words(outcome):
    assert outcome.code == 0, outcome.err
    lines = outcome.err.partition("next      ")[2].splitlines()
    return [shlex.split(line)[1:] for line in lines]


def test_finetune_names_its_run(radtransfer, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("finetune", run / "config.yaml", "--out", run, "--resume")
    evaluate, report = next_words(radtransfer(*command))
    assert evaluate == ["evaluate", str(run), "--data", "OTHER_IMAGES"]
    assert radtransfer(*report, "--no-cca").code == 0 and (tmp_path / "report" / "report.html").is_file()
    assert next_words(radtransfer(*command, "--json")) == []
    assert radtransfer(*command, "--quiet").err == ""


def test_each_step_leads_to_one_that_works(radtransfer, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (explain,) = next_words(radtransfer("evaluate", run, "--fold", 2, "--draws", 100))
    assert explain == ["explain", str(run), "--fold", "2"]
    (export,) = next_words(radtransfer(*explain, "--limit", 1, "--occlusion", 0))
    assert export == ["export", str(run), "--fold", "2", "--format", "keras", "--out", "model.keras"]
    (predict,) = next_words(radtransfer(*export))
    assert predict == ["predict", "model.keras", "IMAGES"]


def test_a_dry_run_leads_to_the_run(radtransfer, table_options, tmp_path):
    options = (*map(str, table_options), "--folds", "2", "--out", str(tmp_path / "a run"))
    (words,) = next_words(radtransfer("finetune", *options, "--set", "training.momentum=0.8", "--dry-run"))
    assert words[0] == "finetune" and "--dry-run" not in words
    assert sorted(words[1:]) == sorted([*options, "--set", "training.momentum=0.8"])
