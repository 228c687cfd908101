import json

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
