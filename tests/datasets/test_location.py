"""Locations with options."""

import pytest

from radtransfer.data.readers import absolute_source, split_location


@pytest.mark.parametrize(
    ("text", "folder", "options"),
    [
        ("data/isic", "data/isic", ()),
        ("data/isic,split=official", "data/isic", (("split", "official"),)),
        ("a, b/c,task=acl, plane=axial", "a, b/c", (("task", "acl"), ("plane", "axial"))),
        ("a,b=c/d", "a,b=c/d", ()),
        ("", "", ()),
    ],
)
def test_options_follow_the_folder(text, folder, options):
    assert split_location(text) == (folder, options)


def test_a_folder_that_is_there_is_never_cut(tmp_path):
    folder = tmp_path / "scan,task=acl"
    folder.mkdir()
    assert split_location(str(folder)) == (str(folder), ())
    assert split_location(f"{folder},task=acl") == (str(folder), (("task", "acl"),))


def test_a_run_keeps_the_full_path_and_the_options(tmp_path, monkeypatch):
    (tmp_path / "knee").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_source("mrnet:knee,task=acl") == f"mrnet:{tmp_path / 'knee'},task=acl"
    assert absolute_source("mrnet:knee") == f"mrnet:{tmp_path / 'knee'}"
    assert absolute_source("synthetic_fundus:images=20,size=32") == "synthetic_fundus:images=20,size=32"
    assert absolute_source("mrnet:nowhere,task=acl") == "mrnet:nowhere,task=acl"
