"""What runs noticed of images in two splits stands on top of their report."""

import json

from run_files import write_run

from radtransfer.reports.report import report_runs


def noticing(folder, *notes):
    run = write_run(folder, folds=2)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"notes": list(notes)}))
    return run


def test_a_leak_is_said_first_with_the_arms_that_have_it(tmp_path):
    leak = "leak: 1 image has copies under another name"
    runs = [noticing(tmp_path / "one", "no patient column", leak), noticing(tmp_path / "two", "no patient column")]
    report_runs(runs, out=tmp_path / "report", cca=False)
    first, *others = json.loads((tmp_path / "report" / "report.json").read_text())["advice"]
    assert first["verdict"] == "leak"
    assert first["text"].endswith(": 1 image has copies under another name.") and first["text"].startswith("\u201c")
    assert not any(point["verdict"] == "leak" for point in others)


def test_runs_without_a_leak_say_nothing_of_it(tmp_path):
    report_runs([noticing(tmp_path / "one", "no patient column")], out=tmp_path / "report", cca=False)
    advice = json.loads((tmp_path / "report" / "report.json").read_text())["advice"]
    assert not any(point["verdict"] == "leak" for point in advice)


def test_of_many_leaks_the_first_are_told(tmp_path):
    run = noticing(tmp_path / "one", *(f"leak: image {number} is in train and test" for number in range(9)))
    report_runs([run], out=tmp_path / "report", cca=False)
    advice = json.loads((tmp_path / "report" / "report.json").read_text())["advice"]
    told = [point["text"] for point in advice if point["verdict"] == "leak"]
    assert len(told) == 4 and told[-1].startswith("6 more leaks")
