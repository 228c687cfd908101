"""A report on a run that was really trained: layers before and after, with TensorFlow."""

import json
import shutil

import pytest
from page_checks import check_page


def test_layers_before_and_after_are_part_of_the_report(finished_run, radtransfer, tmp_path):
    out = tmp_path / "report"
    outcome = radtransfer("report", finished_run.path, "--out", out)
    assert outcome.code == 0, outcome.err
    values = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [row["layer"] for row in values["cca"]] == ["stem", "stage1", "stage2", "stage3"]
    assert all(0 < row["similarity"] <= 1 and row["dims"] == 16 for row in values["cca"])
    assert values["auc"][0]["mean"] == finished_run.metrics["auc"]["mean"]
    assert values["auc"][0]["ci95"] == finished_run.metrics["auc"]["ci95"]
    networks = (f"{finished_run.path}@initial", f"{finished_run.path}@final")
    compared = json.loads(radtransfer("compare-cca", *networks, "--dims", 16, "--json").out)["layers"]
    for row, expected in zip(values["cca"], compared, strict=True):
        assert row["similarity"] == pytest.approx(expected["similarity"], abs=1e-9)
        assert row["ci95"] == pytest.approx(expected["ci95"], abs=1e-9)
    page = check_page((out / "report.html").read_text(encoding="utf-8"))
    assert "What did training change?" in page.text
    assert "from 16 channels" in page.text
    assert (out / "figures" / "filters_1.svg").is_file()


def test_a_run_without_its_images_is_reported_without_them(finished_run, radtransfer, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished_run.path, copy)
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    (copy / "config.yaml").write_text(text.replace("images.csv", "gone.csv"), encoding="utf-8")
    outcome = radtransfer("report", copy, "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
    values = json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))
    assert values["cca"] == []
    assert "is not compared before and after training" in values["notes"][0]
    assert (tmp_path / "report/figures/filters_1.png").is_file()
