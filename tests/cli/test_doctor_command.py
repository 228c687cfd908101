import json
import os
import subprocess
import sys

from click.testing import CliRunner

from radtransfer.cli.main import application


def test_the_doctor_looks_at_everything_and_finds_no_problem_here():
    outcome = CliRunner().invoke(application, ["doctor", "--json"])
    assert outcome.exit_code == 0, outcome.stdout
    report = json.loads(outcome.stdout)
    assert report["problems"] == []
    findings = {item["subject"]: item for item in report["findings"]}
    assert set(findings) == {"versions", "machine", "cache", "weights", "extras", "gpu", "arithmetic"}
    assert findings["arithmetic"]["facts"]["precision"] in ("float32", "mixed_bfloat16", "mixed_float16")
    assert isinstance(findings["gpu"]["facts"]["driver"], bool)


def test_a_problem_is_exit_code_2_and_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "file"))
    outcome = CliRunner().invoke(application, ["doctor"])
    assert outcome.exit_code == 2
    assert "problem  cache" in outcome.stdout and "→ set RADTRANSFER_CACHE" in outcome.stdout
    assert "1 to solve first: cache" in outcome.stdout


def test_the_doctor_says_whether_onednn_computes_and_who_decided():
    code = "from radtransfer.cli.main import main; main()"
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", code, "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    (finding,) = [item for item in json.loads(done.stdout)["findings"] if item["subject"] == "arithmetic"]
    assert finding["facts"]["onednn"] is False
    assert finding["facts"]["onednn_decided_by"] == "user"
    assert "oneDNN off, set by TF_ENABLE_ONEDNN_OPTS=0" in finding["text"]
