"""A report on a study that the engine really computed: its words, its pairs, its reference, and what failed."""

import json
from types import SimpleNamespace

import pytest
from browser import WIDTHS, check_in_browser, needs_browser
from page_checks import check_page

STUDY = """
study:
  name: tiny
  title: Does <it> transfer?
  follows: a paper
  published: |
    AUC   random  other
    here  0.50    0.60
  reference: scratch
  threshold: 0.4
base:
  data: {{source: {data}/images.csv, image_root: {data}/images}}
  splits: {{folds: 2, fold: [1]}}
  model: {{backbone: cbr_tiny, image_size: 24}}
  training: {{batch_size: 8, learning_rate: 1.0e-3, epochs: 1, augmentation: none, eval_every: 3}}
sources:
  other:
    data: {{source: {data}/images.csv, image_root: {data}/images}}
    model: {{image_size: 24}}
    training: {{batch_size: 8, learning_rate: 1.0e-3, epochs: 1, augmentation: none}}
    seed: 7
arms:
  scratch: {{}}
  transfer:
    model.weights: source:other
    grid: {{training.epochs: [1, 2]}}
  again: {{model.weights: source:other}}
  broken: {{training.epochs: 3}}
grid:
  seed: [0, 1]
compare:
  cca: [[transfer@initial, transfer], [transfer@initial, scratch@initial]]
  predictions: [[transfer, scratch]]
"""

ARMS = ["scratch", "transfer (epochs 1)", "transfer (epochs 2)"]


@pytest.fixture(scope="module")
def reported(radtransfer, tiny_images, tmp_path_factory):
    """The study, one arm of which fails, and the report on it."""
    from radtransfer.errors import TrainingError
    from radtransfer.training import run as job

    folder, original = tmp_path_factory.mktemp("study"), job.finetune

    def finetune(config, **options):
        if config.training.epochs == 3:
            raise TrainingError("The loss became nan")
        return original(config, **options)

    (folder / "tiny.yaml").write_text(STUDY.format(data=tiny_images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "finetune", finetune)
        options = ("--out", folder / "study", "--runs", folder / "store", "--jobs", 0)
        assert radtransfer("study", folder / "tiny.yaml", *options).code == 6
    outcome = radtransfer("report", folder / "study", "--out", folder / "report")
    assert outcome.code == 0, outcome.err
    values = json.loads((folder / "report/report.json").read_text(encoding="utf-8"))
    page = check_page((folder / "report/report.html").read_text(encoding="utf-8"))
    return SimpleNamespace(folder=folder, values=values, page=page, out=folder / "report")


def test_the_page_speaks_the_words_of_the_study(reported):
    assert reported.page.text.startswith("Does <it> transfer? Does <it> transfer? Study tiny")
    for words in ("Follows: a paper", "here 0.50 0.60", "the test AUC reaches 0.4"):
        assert words in reported.page.text
    assert reported.values["kind"] == "study"
    assert {row["threshold"] for row in reported.values["steps"]} == {0.4}


def test_arms_are_called_as_in_the_study_and_the_same_runs_are_shown_once(reported):
    assert [row["name"] for row in reported.values["auc"]] == ARMS
    assert [row["trainings"] for row in reported.values["auc"]] == [2, 2, 2]
    assert [row["start"] for row in reported.values["auc"]][1] == "source run “other”"
    assert "again: the same runs as transfer (epochs 1), shown once" in reported.values["notes"]


def test_only_the_named_pairs_are_compared(reported):
    values = reported.values
    assert {row["arm"] for row in values["cca"]} == set(ARMS[1:])
    assert {(row["a"], row["b"]) for row in values["cca_pairs"]} == {
        (f"{name}@initial", "scratch@initial") for name in ARMS[1:]
    }
    assert all(len(row["by_training"]) == 2 for row in values["cca"])
    rows = (reported.out / "tables/predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(row.split(",n")[0].count("scratch") for row in rows) == [1, 1]


def test_gains_are_against_the_reference(reported):
    assert "AUC of each arm minus that of scratch" in reported.page.text
    by_name = {row["name"]: row for row in reported.values["auc"]}
    table = json.loads((reported.folder / "study/table.json").read_text(encoding="utf-8"))
    aucs = {row["run"]: row["auc"] for row in table["runs"]}
    expected = [aucs[row["run"]] for row in table["runs"] if row["arm"] == "scratch"]
    assert by_name["scratch"]["mean"] == pytest.approx(sum(expected) / 2)


def test_runs_that_failed_are_shown_with_the_reason(reported):
    failed = reported.values["unfinished"]
    assert [(row["arm"], row["status"], row["folds"]) for row in failed] == [("broken", "failed", 0)] * 2
    assert failed[0]["error"] == "The loss became nan"
    assert "runs failed 2" in reported.page.text


def test_seeds_are_compared_with_each_other(reported):
    rows = [row for row in reported.values["seed_pairs"] if row["layer"] == "top two"]
    # Those of two epochs differ from the reference in more than their start.
    assert {row["arm"] for row in rows} == {"transfer (epochs 1)"}
    pairs = {row["starts"]: row["pairs"] for row in rows}
    assert pairs == {"pretrained × pretrained": 1, "pretrained × random": 4, "random × random": 1}
    assert next(row for row in rows if row["starts"] == "pretrained × pretrained")["before"] == pytest.approx(1)
    mixed = {row["layer"]: row for row in reported.values["seed_pairs"] if row["starts"] == "pretrained × random"}
    assert all((mixed[layer]["r_squared"] is None) == (layer == "top two") for layer in mixed)
    low, high = mixed["stem"]["r_squared_ci95"]
    assert 0 <= low <= mixed["stem"]["r_squared"] <= high <= 1
    assert mixed["stem"]["n_points"] == 4 * 5
    assert "a jackknife that leaves out one network at a time" in reported.page.text
    for name in ("seed_pairs_1", "seed_training_1"):
        assert (reported.out / f"figures/{name}.png").is_file() and (reported.out / f"figures/{name}.svg").is_file()


def test_the_source_stands_beside_what_starts_from_it(reported):
    rows = reported.values["sources"]
    table = json.loads((reported.folder / "study/table.json").read_text(encoding="utf-8"))
    source = next(row for row in table["runs"] if row["kind"] == "source")
    assert [(row["source"], row["arm"]) for row in rows] == [("other", name) for name in ARMS[1:]]
    assert all((row["source_auc"], row["source_accuracy"]) == (source["auc"], source["accuracy"]) for row in rows)


def test_a_study_without_a_table_says_what_to_do(reported, radtransfer, tmp_path):
    (tmp_path / "study.yaml").write_text("arms: {}")
    outcome = radtransfer("report", tmp_path, "--no-cca", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "the study has no table.json yet" in outcome.err


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_in_a_browser(reported, tmp_path, width):
    check_in_browser(reported.out / "report.html", tmp_path, width=width, images=len(reported.page.images))
