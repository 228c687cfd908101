import json

import pytest

from radtransfer.errors import RunError
from radtransfer.reports.figures import new_figure
from radtransfer.reports.page import Picture, Report, Table, write_report


def report(*names):
    parts = [Picture(name, "an empty figure", "caption", new_figure()[0]) for name in names]
    parts.append(Table("numbers", "caption", [("a", "a")], [{"a": 1 / 3, "b": None, "c": [0.1, 0.2]}]))
    return Report("title", "subtitle", [], [("one", "One", parts)])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_report_is_page_values_figures_and_tables(tmp_path):
    written = write_report(report("first"), {"kind": "test"}, tmp_path / "out")
    assert [path.name for path in written[:2]] == ["report.html", "report.json"]
    names = [
        "figures/first.png",
        "figures/first.svg",
        "report.html",
        "report.json",
        "tables/numbers.csv",
        "tables/numbers.md",
    ]
    assert files(tmp_path / "out") == names
    values = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert values == {"kind": "test", "files": names[:2] + names[4:]}
    assert (tmp_path / "out/tables/numbers.csv").read_text(encoding="utf-8") == (
        'a,b,c\n0.3333333333333333,,"[0.1, 0.2]"\n'
    )


def test_the_same_report_is_the_same_bytes(tmp_path):
    for name in "ab":
        write_report(report("first"), {}, tmp_path / name)
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_new_report_replaces_the_files_of_the_old_one_and_no_others(tmp_path):
    write_report(report("first"), {}, tmp_path)
    (tmp_path / "figures" / "mine.png").write_text("mine", encoding="utf-8")
    write_report(report("second"), {}, tmp_path)
    assert "figures/first.png" not in files(tmp_path)
    assert {"figures/mine.png", "figures/second.png"} <= set(files(tmp_path))


def test_a_manifest_of_other_files_deletes_nothing(tmp_path):
    (tmp_path / "keep.txt").write_text("mine", encoding="utf-8")
    names = ["keep.txt", "figures/../keep.txt", "../keep.txt", 7]
    (tmp_path / "report.json").write_text(json.dumps({"files": names}), encoding="utf-8")
    write_report(report(), {}, tmp_path)
    assert (tmp_path / "keep.txt").exists()


def test_a_failure_leaves_the_old_report_and_nothing_else(tmp_path):
    write_report(report("first"), {}, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(ValueError, match="JSON"):
        write_report(report("second"), {"bad": float("nan")}, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert not list(tmp_path.glob(".part*"))


def test_a_folder_that_cannot_be_made_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot create a folder"):
        write_report(report(), {}, tmp_path / "file" / "out")
