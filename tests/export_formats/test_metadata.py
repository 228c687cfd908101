import zipfile

import pytest

from radtransfer.export_formats.metadata import read_metadata, write_metadata

VALUES = {"classes": ["gutartig", "bösartig"], "temperature": 1.5, "operating_point": None}


def test_an_archive_keeps_its_members_and_gains_one(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert read_metadata(path) is None
    write_metadata(path, VALUES)
    assert read_metadata(path) == VALUES
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["config.json", "radtransfer.json"]


def test_a_saved_model_has_them_among_its_extra_assets(tmp_path):
    assert read_metadata(tmp_path) is None
    write_metadata(tmp_path, VALUES)
    assert (tmp_path / "assets.extra" / "radtransfer.json").is_file()
    assert read_metadata(tmp_path) == VALUES


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_what_is_no_export_has_none(tmp_path, content):
    (tmp_path / "m.keras").write_bytes(content)
    assert read_metadata(tmp_path / "m.keras") is None
