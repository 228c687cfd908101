"""A path that is not there is answered with the one that is meant."""

import pytest

from radtransfer.errors import suggest_path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "images.csv").write_text("path,label\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs/first", ""),
        ("runs/fisrt", " Did you mean 'runs/first'?"),
        ("runs/First_", " Did you mean 'runs/first'?"),
        ("run/first", " Did you mean 'runs/first'?"),
        ("rums/fist", " 'rums' does not exist, but 'runs' does."),
        ("runs/image.csv", " Did you mean 'runs/images.csv'?"),
        ("elsewhere/first", " The folder elsewhere does not exist."),
        ("elsewhere/deep/first", " The folder elsewhere does not exist."),
        ("runs/other", ""),
        ("runs/images.csv/first", ""),
        ("", ""),
    ],
)
def test_it_names_what_is_near(folder, given, said):
    assert suggest_path(given) == said


def test_an_absolute_path_stays_absolute(folder, tmp_path):
    assert suggest_path(tmp_path / "runs" / "firts") == f" Did you mean {str(tmp_path / 'runs' / 'first')!r}?"


def test_hidden_files_are_not_meant(folder, tmp_path):
    (tmp_path / "runs" / ".second").mkdir()
    assert suggest_path("runs/second") == ""
