"""Whatever judges a run says when its images or labels are not what they were."""

import shutil

import pytest
from run_files import write_run

from radtransfer.config.yaml_text import read_yaml, write_yaml


@pytest.fixture(scope="module")
def relabelled(finished_run, tiny_images, tmp_path_factory):
    """The finished run, the first image of whose table has got the other label since."""
    folder = tmp_path_factory.mktemp("relabelled")
    run = shutil.copytree(finished_run.path, folder / "run")
    header, first, *rows = (tiny_images / "images.csv").read_text().splitlines()
    path, label, patient = first.split(",")
    (folder / "images.csv").write_text(
        "\n".join([header, f"{path},{'well' if label == 'sick' else 'sick'},{patient}", *rows])
    )
    settings, _ = read_yaml(run / "config.yaml")
    settings["data"]["source"] = str(folder / "images.csv")
    (run / "config.yaml").write_text(write_yaml(settings))
    return run


@pytest.mark.parametrize("command", ["evaluate", "evaluate --data", "compare-weights", "compare-predictions"])
def test_a_changed_label_is_told(radtransfer, relabelled, finished_run, tiny_images, command):
    name, *data = command.split()
    other = ("--data", tiny_images / "images", "--draws", 100) if data else ()
    other = (finished_run.path,) if name.startswith("compare") else other
    outcome = radtransfer(name, relabelled, *other)
    assert outcome.code == 0, outcome.err
    assert f"the data of {relabelled} has changed: the label of 1 images" in outcome.err
    assert f"the data of {finished_run.path} has changed" not in outcome.err


READERS = {
    "folds.csv": ("evaluate", "evaluate --data", "compare-predictions", "compare-cca", "report", "card", "explain"),
    "fold_2/predictions.csv": ("evaluate", "compare-predictions", "report", "card", "explain"),
    "fold_2/metrics.json": ("evaluate", "compare-predictions", "report", "card"),
    "metrics.json": ("evaluate", "compare-weights", "report", "finetune"),
    "run.json": ("evaluate", "compare-weights", "report", "export", "finetune"),
}


@pytest.mark.parametrize(
    ("file", "command"), [(file, command) for file, readers in READERS.items() for command in readers]
)
def test_a_file_of_a_run_that_was_cut_is_named(radtransfer, finished_run, tiny_images, tmp_path, file, command):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    name, *data = command.split()
    arguments = {
        "evaluate": (run, *(("--data", tiny_images / "images", "--out", tmp_path / "out") if data else ())),
        "report": (run, finished_run.path, "--no-cca", "--out", tmp_path / "out"),
        "card": (run, "--fold", 2),
        "explain": (run, "--fold", 2, "--limit", 2, "--out", tmp_path / "out"),
        "export": (run, "--fold", 2, "--format", "keras", "--out", tmp_path / "out"),
        "finetune": (run / "config.yaml", "--out", run, "--resume"),
    }.get(name, (run, finished_run.path))
    text = (run / file).read_text()
    lines = text.splitlines(keepends=True)
    cuts = {"empty": "", "its header": lines[0], "in its last line": text[:-3]}
    cuts |= {"fewer lines": "".join(lines[:-1])} if file.endswith(".csv") else {}
    for cut, left in cuts.items():
        (run / file).write_text(left)
        outcome = radtransfer(name, *arguments)
        assert outcome.code == 2, (cut, outcome.err)
        assert file in outcome.err, cut
        assert "estore" in outcome.err, (cut, outcome.err)
        assert not (tmp_path / "out").exists(), cut


@pytest.mark.parametrize("left", ["", "data:\n", "data: {source: [", "[1, 2]\n"])
@pytest.mark.parametrize("command", ["evaluate", "report", "card"])
def test_settings_of_a_run_that_were_cut_are_named(radtransfer, finished_run, tmp_path, command, left):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    (run / "config.yaml").write_text(left)
    options = {"report": ("--no-cca", "--out", tmp_path / "out"), "card": ("--fold", 1)}.get(command, ())
    outcome = radtransfer(command, run, *options)
    assert outcome.code == 2, outcome.err
    assert "config.yaml" in outcome.err
    assert "estore" in outcome.err


def test_a_study_table_that_was_cut_is_named_by_the_report_and_written_anew(radtransfer, tmp_path, table_options):
    study, folder = tmp_path / "s.yaml", tmp_path / "study"
    study.write_text("base: {model.backbone: cbr_tiny, model.image_size: 24, splits.folds: 1, training.epochs: 1}\n")
    study.write_text(study.read_text() + "arms: {scratch: {}}\n")
    arguments = ("study", study, *table_options[:4], "--out", folder, "--runs", tmp_path / "runs", "--jobs", 0)
    assert radtransfer(*arguments).code == 0
    whole = (folder / "table.json").read_text()
    for left in ("", whole[:-9], "[]", "{}", '{"data": [1]}', "[" * 100_000):
        (folder / "table.json").write_text(left)
        outcome = radtransfer("report", folder, "--no-cca", "--out", tmp_path / "out")
        assert outcome.code == 2, outcome.err
        assert "table.json is not a study table" in outcome.err
    assert radtransfer(*arguments).code == 0
    assert (folder / "table.json").read_text() == whole


def test_a_fold_that_a_run_counts_is_not_left_out(radtransfer, finished_run, tmp_path):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    (run / "fold_2" / "metrics.json").unlink()
    for command in (("evaluate", run), ("report", run, "--no-cca", "--out", tmp_path / "out")):
        outcome = radtransfer(*command)
        assert outcome.code == 2, outcome.err
        assert "lacks fold_2/metrics.json" in outcome.err


def test_a_run_that_goes_on_writes_its_folds_again(radtransfer, finished_run, tmp_path):
    run = shutil.copytree(finished_run.path, tmp_path / "run")
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"interrupted"'))
    (run / "folds.csv").write_text("path,label,patient,fold,split\n")
    outcome = radtransfer("finetune", run / "config.yaml", "--out", run, "--resume")
    assert outcome.code == 0, outcome.err
    assert (run / "folds.csv").read_bytes() == (finished_run.path / "folds.csv").read_bytes()


def test_folds_of_a_run_that_did_not_count_them_are_checked_by_what_was_tested(radtransfer, tmp_path):
    run = write_run(tmp_path / "run", folds=2, patients=8)
    rows = (run / "folds.csv").read_text().splitlines(keepends=True)
    (run / "folds.csv").write_text("".join(rows[:-6]))
    outcome = radtransfer("report", run, "--no-cca", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "test images of fold 2, but 8 were tested" in outcome.err
