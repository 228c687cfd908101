"""A metric that is added to the registry stands in whatever tells of a run."""

import csv
import json

import pytest
from run_files import write_run

from radtransfer.evaluation.metrics import METRICS, Metric
from radtransfer.exports.formats import EXPORT_FORMATS


@pytest.fixture(autouse=True)
def added(monkeypatch):
    """Two metrics more, one of which needs what the data do not have."""
    odd = Metric("odd_metric", lambda *_: 0.625, "odd metric", "odd")
    unmet = Metric("unmet", lambda *_: 0.25, "unmet metric", "unmet", needs=("several labels",))
    for metric in (odd, unmet):
        monkeypatch.setitem(METRICS, metric.name, metric)


def test_a_metric_that_is_added_is_in_whatever_tells_of_a_run(tmp_path, radtransfer, tiny_images):
    study = tmp_path / "study.yaml"
    study.write_text(
        f"""
study: {{name: tiny}}
base:
  data: {{source: {tiny_images}/images.csv, image_root: {tiny_images}/images}}
  splits: {{folds: 2}}
  model: {{backbone: cbr_tiny, image_size: 24}}
  training: {{batch_size: 8, epochs: 1, augmentation: none}}
sources:
  other:
    data: {{source: {tiny_images}/images.csv, image_root: {tiny_images}/images}}
    model: {{image_size: 24}}
    training: {{batch_size: 8, epochs: 1, augmentation: none}}
arms:
  transfer: {{model.weights: source:other}}
"""
    )
    out = tmp_path / "study"
    assert radtransfer("study", study, "--out", out, "--runs", tmp_path / "runs", "--jobs", 0).code == 0
    table = json.loads((out / "table.json").read_text())
    assert [row["odd_metric"] for row in table["runs"]] == [0.625, 0.625]
    assert [fold["odd_metric"] for fold in table["runs"][-1]["folds"]] == [0.625, 0.625]
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert {float(line["odd_metric"]) for line in lines} == {0.625}
    run = next(row["path"] for row in table["runs"] if row["kind"] == "arm")

    outcome = radtransfer("evaluate", run)
    assert "odd" in outcome.out and "0.625" in outcome.out and "unmet" not in outcome.out
    figures = json.loads(radtransfer("evaluate", run, "--json").out)
    assert (figures["odd_metric"], figures["unmet"]) == (0.625, None)
    assert figures["members"]["fold_1"]["odd_metric"] == 0.625

    assert "| odd metric | 0.625 |" in radtransfer("card", run, "--fold", 1).out
    exported = radtransfer("export", run, "--fold", 1, "--format", "keras", "--out", tmp_path / "m.keras")
    assert exported.code == 0, exported.err
    assert EXPORT_FORMATS["keras"].read_metadata(tmp_path / "m.keras")["provenance"]["test"]["odd_metric"] == 0.625

    report = radtransfer("report", out, "--no-cca", "--out", tmp_path / "report")
    assert report.code == 0, report.err
    (source,) = json.loads((tmp_path / "report" / "report.json").read_text())["sources"]
    assert source["source_odd_metric"] == 0.625
    assert "source odd metric" in (tmp_path / "report" / "report.html").read_text()


def test_a_metric_that_is_added_is_printed_after_a_run(radtransfer, table_options, tmp_path):
    options = ("--folds", 2, "--epochs", 1, "--out", tmp_path / "run")
    outcome = radtransfer("finetune", *table_options, *options)
    assert outcome.code == 0, outcome.err
    assert "   odd metric 0.625" in outcome.out
    assert "unmet" not in outcome.out
    assert json.loads((tmp_path / "run" / "fold_1" / "metrics.json").read_text())["val"]["odd_metric"] == 0.625


def test_runs_of_before_a_metric_was_added_are_still_told_of(radtransfer, tmp_path):
    run = write_run(tmp_path / "old")
    for path in (run / "metrics.json", run / "fold_1" / "metrics.json"):
        values = json.loads(path.read_text())
        del values["odd_metric"]
        path.write_text(json.dumps(values))
    outcome = radtransfer("report", run, "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
