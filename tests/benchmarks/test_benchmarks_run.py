"""The benchmarks themselves still run; how fast anything is, is not asked here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def quick(tmp_path, names):
    file = tmp_path / "results.json"
    command = [sys.executable, str(HERE), "--quick", "--only", names, "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(file.read_text())


def test_help_and_mistakes_give_ratios(tmp_path):
    results = quick(tmp_path, "help,mistakes")
    assert results["help"]["radtransfer --help / python -c pass"]["ratio"] > 0
    assert all(row["ratio"] > 0 for row in results["mistakes"].values())
    assert {"python", "tensorflow", "keras"} <= set(results["versions"])
    assert results["machine"]["cores"] >= 1


@pytest.mark.slow
def test_all_others_run(tmp_path):
    results = quick(tmp_path, "step,start,features,evaluation,memory,onednn")
    assert list(results)[-6:] == ["step", "start", "features", "evaluation", "memory", "onednn"]
    assert results["step"]["cbr_tiny"]["radtransfer"]["ratio"] == 1.0
    assert results["step"]["cbr_tiny"]["model.fit"]["seconds"] > 0


def test_an_unknown_name_is_refused():
    done = subprocess.run([sys.executable, str(HERE), "--only", "stepp"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "received stepp" in done.stderr


@pytest.mark.parametrize("more", [[], ["--difference"]])
def test_intervals_give_coverage_and_width_of_each_method(tmp_path, more):
    file = tmp_path / "results.json"
    options = ["--patients", "10", "--areas", "0.8,0.96", "--simulations", "20", "--draws", "50", *more]
    command = [sys.executable, str(HERE / "bench_intervals.py"), *options, "--json", str(file)]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(file.read_text())["rows"]
    ours = [row for row in rows if row["method"] == "radtransfer"]
    assert [row["auc"] for row in ours] == [0.8, 0.96]
    assert all(row["coverage"] > 0.7 and row["width"] > 0.1 for row in ours)
    assert "percentile bootstrap" in table
