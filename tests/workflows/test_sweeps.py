import json

import pytest

from radtransfer.runs.folder import read_rows


@pytest.fixture(scope="module")
def sweep_options(table_options, finished_run):
    source = finished_run.path / "fold_1"
    return (*table_options, "--weights", source, "--folds", 2, "--epochs", 2, "--augmentation", "none")


def test_a_freeze_sweep_tells_the_auc_of_every_variant_and_stage(radtransfer, sweep_options, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "sweep"
    command = ("freeze-sweep", *sweep_options, "--stages", "stem,stage3", "--out", out, "--json")
    outcome = radtransfer(*command)
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    labels = [(row["variant"], row["through"]) for row in rows]
    variants = ("fixed_features", "fixed_features_reinit", "random_features")
    assert labels == [(variant, stage) for variant in variants for stage in ("stem", "stage3")]
    assert all(0 <= row["auc_mean"] <= 1 and row["folds"] == 2 for row in rows)
    assert rows[1]["run"] == rows[3]["run"]  # frozen through the end nothing is left to be random
    assert [row["auc_mean"] for row in rows] == [float(row["auc_mean"]) for row in read_rows(out / "sweep.csv")]
    assert json.loads((out / "sweep.json").read_text()) == rows
    assert (out / "auc_by_stage.png").stat().st_size > 5000
    again = radtransfer(*command)
    assert json.loads(again.out) == rows
    assert again.err.count("is already finished") == 5


def test_a_transfusion_sweep_counts_the_steps_to_a_threshold(radtransfer, sweep_options, tmp_path):
    out = tmp_path / "sweep"
    options = ("--stages", "stem,stage3", "--eval-every", 2, "--threshold", 0.0, "--out", out)
    outcome = radtransfer("transfusion-sweep", *sweep_options, *options)
    assert outcome.code == 0, outcome.err
    assert "steps (folds)" in outcome.out
    rows = json.loads((out / "sweep.json").read_text())
    assert [row["through"] for row in rows] == ["none", "stem", "stage3"]
    assert [(row["steps_mean"], row["steps_reached"]) for row in rows] == [(2.0, 2)] * 3
    assert (out / "convergence.svg").exists()
    assert (out / "steps_to_threshold.png").exists()


def test_steps_that_were_never_watched_are_not_called_never(radtransfer, sweep_options, tmp_path):
    options = ("--stages", "stage3", "--eval-every", 1000, "--out", tmp_path / "sweep")
    outcome = radtransfer("transfusion-sweep", *sweep_options, *options)
    assert outcome.code == 0, outcome.err
    assert "no fold takes as many steps as --eval-every 1000" in outcome.err
    assert outcome.out.count("n/a (0/0)") == 2


def test_an_arm_that_fails_is_kept_and_told(radtransfer, sweep_options, tmp_path, monkeypatch):
    from radtransfer.errors import TrainingError
    from radtransfer.training import run as job

    def failing(config, **options):
        if config.transfer.scheme == "scratch":
            raise TrainingError("The loss became nan")
        return original(config, **options)

    original = job.finetune
    monkeypatch.setattr(job, "finetune", failing)
    out = tmp_path / "sweep"
    outcome = radtransfer("transfusion-sweep", *sweep_options, "--stages", "stage3", "--out", out)
    assert outcome.code == 6, outcome.err
    assert "1 of 2 arms failed" in outcome.err
    rows = read_rows(out / "sweep.csv")
    assert rows[0]["error"] == "The loss became nan"
    assert float(rows[1]["auc_mean"]) >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "A sweep needs --out"),
        (("--out", "sweep", "--weights", "random"), "Give --weights"),
        (("--out", "sweep", "--stages", "stage8"), "Unknown stage of cbr_tiny"),
        (("--out", "sweep", "--set", "transfer.stages={stem: {trains: false}}"), "Received: transfer.stages"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(radtransfer, sweep_options, options, message):
    outcome = radtransfer("freeze-sweep", *sweep_options, *options)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
