import importlib.metadata

import pytest

from radtransfer.cli import doctor as machine
from radtransfer.cli import doctor as software
from radtransfer.cli.doctor import Needed, examine, extras_finding, requirements, versions_finding, weights_finding


def test_a_tensorflow_that_cannot_be_imported_is_a_problem_and_not_a_crash():
    def broken():
        raise ImportError("libsomething.so: cannot open\nmore")

    *_, last = examine(import_tensorflow=broken)
    assert (last.subject, last.status) == ("tensorflow", "problem")
    assert last.text == "cannot be imported: libsomething.so: cannot open"


def test_what_cannot_be_examined_does_not_stop_the_rest(monkeypatch):
    monkeypatch.setattr(software.metadata, "requires", lambda name: 1 / 0)
    findings = {item.subject: item for item in examine(import_tensorflow=lambda: 1 / 0)}
    assert findings["versions"].status == "problem" and "division by zero" in findings["versions"].text
    assert {"machine", "cache", "weights", "tensorflow"} <= set(findings)


def test_requirements_are_those_of_the_package_or_of_one_extra():
    always = {item.name: item for item in requirements("radtransfer")}
    assert always["tensorflow"].fits and always["tensorflow"].installed == importlib.metadata.version("tensorflow")
    assert "pydicom" not in always
    assert "pydicom" in {item.name for item in requirements("radtransfer", extra="dicom")}


def test_wrong_and_missing_versions_are_told_with_the_command_that_mends_them():
    needed = [
        Needed("keras", ">=3.10,<3.16", "2.15.0", fits=False),
        Needed("h5py", ">=3.12", None, fits=False),
        Needed("numpy", ">=2", "2.4.0", fits=True),
    ]
    finding = versions_finding(needed)
    assert finding.status == "problem"
    assert "keras 2.15.0; needed: >=3.10,<3.16" in finding.text and "h5py is not installed" in finding.text
    assert finding.advice == "pip install 'keras>=3.10,<3.16' 'h5py>=3.12'"


def test_an_extra_that_lacks_something_is_a_note():
    here, gone = Needed("a", "", "1", fits=True), Needed("b", "", None, fits=False)
    finding = extras_finding({"dicom": [here], "export": [here, gone]})
    assert (finding.status, finding.facts) == ("note", {"dicom": True, "export": False})
    assert "lacks b" in finding.text and "radtransfer[export]" in finding.advice


def test_a_cache_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "file" / "inner"))
    assert machine.cache_finding().status == "problem"
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "new" / "inner"))
    assert machine.cache_finding().status != "problem"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("free", "status"), [(0.5, "note"), (50.0, "ok"), (None, "ok")])
def test_little_memory_is_a_note(monkeypatch, free, status):
    monkeypatch.setattr(machine, "memory", lambda: (64.0, free))
    assert machine.machine_finding().status == status


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("2000000000\n")
    monkeypatch.setattr(machine, "_LIMITS", (str(limit),))
    monkeypatch.setattr(machine, "_system_memory", lambda: (64.0, 32.0))
    assert machine.memory() == (2.0, 2.0)
    limit.write_text("max\n")
    assert machine.memory() == (64.0, 32.0)


def test_weights_are_found_and_a_wrong_folder_is_a_problem(monkeypatch, tmp_path):
    from radtransfer.pretrained.source import known_weights

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path))
    assert weights_finding().status == "note"
    card = next(iter(known_weights().values()))
    (tmp_path / card.files[0]).write_text("")
    assert weights_finding().facts["found"] == {card.name: str(tmp_path / card.files[0])}
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(tmp_path / "nowhere"))
    assert weights_finding().status == "problem"
