"""Small trees of the shapes in which public sets are downloaded."""

import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table


@pytest.fixture
def tree(tmp_path):
    """Makes files below a folder, which it gives: names are images, keywords of `text` are tables."""

    def make(*images, text=None, folder="set"):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        for name in images:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(file)
        for name, content in (text or {}).items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        return root

    return make


@pytest.fixture
def read():
    """Reads `NAME:FOLDER` as `--data` does."""

    def read_source(source, **settings):
        return read_table(DataSettings(source=source, **settings))

    return read_source


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder, empty."""
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
