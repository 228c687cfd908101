"""`radtransfer report --published`, from the command line to the page."""

import json
import os
import shutil
import time
from types import SimpleNamespace

import pytest
from browser import WIDTHS, check_in_browser, needs_browser
from click.testing import CliRunner
from page_checks import check_page
from published_files import change, write_published
from run_files import write_run

from radtransfer.cli.main import application


def report(*arguments):
    outcome = CliRunner().invoke(application, ["report", *map(str, arguments)], prog_name="radtransfer")
    return SimpleNamespace(code=outcome.exit_code, out=outcome.stdout, err=outcome.stderr)


@pytest.fixture
def folder(tmp_path):
    return write_published(tmp_path / "published", targets=("lung", "<script>x", "$a_b^", "_hidden"), folds=3)


def test_a_folder_becomes_a_report(folder, tmp_path):
    out = tmp_path / "out"
    outcome = report("--published", folder, "--out", out)
    assert outcome.code == 0, outcome.err
    values = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {"gain", "auc", "cca", "predictions", "ignored", "notes"} <= set(values)
    assert {"source", "layer", "slope", "r", "ci95", "n"} <= set(values["gain"][0])
    assert {"target", "source", "freeze", "mean", "sd", "n"} <= set(values["auc"][0])
    assert {row["n"] for row in values["gain"]} == {4 * 3}
    assert all((out / name).is_file() for name in values["files"])
    page = check_page((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) == 5
    for words in (
        "<script>x",
        "Similarity against gain",
        "a² + (1 − a)²",
        "pooled into one binary problem",
        "cover only 75",
    ):
        assert words in page.text


def test_a_report_that_replaces_another_says_so(folder, tmp_path):
    first = report("--published", folder, "--out", tmp_path / "out")
    assert first.code == 0 and "replaced" not in first.err
    os.utime(tmp_path / "out" / "report.html", (0, time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))))
    again = report("--published", folder, "--out", tmp_path / "out")
    assert again.code == 0, again.err
    assert f"note      replaced the report of 2026-01-31 12:00 in {tmp_path / 'out'}" in again.err.splitlines()


def test_every_part_of_the_folder_makes_a_report(folder, tmp_path):
    for pattern, missing in (("CCA_*", "gain"), ("similarity.csv", "predictions"), ("AUC.csv", None)):
        part = tmp_path / "part"
        shutil.copytree(folder, part)
        for path in part.glob(pattern):
            path.unlink()
        assert report("--published", part, "--out", tmp_path / "out").code == 0
        values = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
        if missing:
            assert values[missing] == []
        else:
            assert {row["n"] for row in values["gain"]} == {0}
            assert values["gain"][0]["slope"] is None
        check_page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
        shutil.rmtree(part)


def test_one_fold_of_one_target_gives_null_and_a_note(tmp_path):
    folder = write_published(tmp_path / "published", targets=("lung",), folds=1)
    assert report("--published", folder, "--out", tmp_path / "out").code == 0
    values = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert values["auc"][0]["sd"] is None
    row = values["gain"][0]
    assert (row["slope"], row["r"], row["ci95"], row["n"]) == (None, None, None, 1)
    assert any("too few" in note for note in values["notes"])


def test_a_malformed_value_is_exit_code_3_and_writes_nothing(folder, tmp_path):
    change(folder / "CCA_lung.csv", ",0.99,", ",high,")
    outcome = report("--published", folder, "--out", tmp_path / "out")
    assert outcome.code == 3
    assert "CCA_lung.csv, line 3" in outcome.err
    assert not (tmp_path / "out").exists()


def test_nothing_to_read_is_exit_code_3(tmp_path):
    assert report("--published", tmp_path / "gone", "--out", tmp_path / "out").code == 3
    (tmp_path / "empty").mkdir()
    assert report("--published", tmp_path / "empty", "--out", tmp_path / "out").code == 3


def test_usage_is_exit_code_2(folder, tmp_path):
    assert report("--out", tmp_path / "out").code == 2
    assert report("--published", folder).code == 2
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert report("--published", folder, "--out", tmp_path / "file").code == 2


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["published", "runs"])
def test_the_page_opens_in_a_browser(folder, tmp_path, kind, width):
    out = tmp_path / "out"
    if kind == "published":
        given, images = ["--published", folder], 5
    else:
        given = [write_run(tmp_path / "i", shift=2), write_run(tmp_path / "<s>", starts_from="random"), "--no-cca"]
        images = 3
    assert report(*given, "--out", out).code == 0
    check_in_browser(out / "report.html", tmp_path, width=width, images=images)


def test_runs_become_a_report_with_advice(tmp_path):
    runs = tmp_path / "runs"
    for seed in range(2):
        write_run(runs / f"i{seed}", shift=3, seed=seed)
        write_run(runs / f"h{seed}", shift=2, seed=seed, noise=1, frozen=3)
        write_run(runs / f"s{seed}", shift=0.5, seed=seed, noise=2, starts_from="random")
        write_run(runs / f"c{seed}", shift=2.9, seed=seed, noise=3, backbone="<b>cbr", parameters=1_000_000)
    out = tmp_path / "out"
    outcome = report(runs, "--no-cca", "--out", out, "--threshold", 0.7)
    assert outcome.code == 0, outcome.err
    values = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [row["seeds"] for row in values["auc"]] == [2] * 4
    assert len(values["differences"]) == 6
    assert {row["threshold"] for row in values["steps"]} == {0.7}
    assert {point["verdict"] for point in values["advice"]} >= {"initialization", "depth"}
    page = check_page((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) == 4
    assert "better than random" in page.text
    assert "<b>cbr" in page.text


def test_one_run_is_a_report_that_says_what_it_cannot_say(tmp_path):
    outcome = report(write_run(tmp_path / "run", folds=1, curve=False), "--no-cca", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    page = check_page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "trained only once" in page.text
    assert "Convergence" not in page.text


def test_what_is_no_run_is_exit_code_2(tmp_path):
    outcome = report(tmp_path, "--no-cca", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "there is no run.json in it" in outcome.err
    assert report(tmp_path, "--published", tmp_path, "--out", tmp_path / "out").code == 2
