"""The hub's files: from its cache, or downloaded when told to; a module of this file stands for huggingface_hub."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from radtransfer.cli.weights import weights
from radtransfer.errors import WeightsError, WeightsNotFoundError
from radtransfer.pretrained.source import find_weights, hub_file

NAME = "hf:someone/models/sub/net.weights.h5"


class Hub:
    """What huggingface_hub does, without network: `cache` holds what was downloaded."""

    def __init__(self, folder: Path):
        self.cache: dict[tuple, str] = {}
        self.folder, self.asked = folder, []

    def try_to_load_from_cache(self, repo, name, *, revision=None):
        return self.cache.get((repo, name, revision))

    def hf_hub_url(self, repo, name, *, revision=None):
        return f"{repo}/{name}"

    def get_hf_file_metadata(self, url):
        self.asked.append(url)
        if "missing" in url:
            raise OSError("404 Client Error")
        return SimpleNamespace(size=102_500_000)

    def hf_hub_download(self, repo, name, *, revision=None):
        path = self.folder / Path(name).name
        path.write_bytes(b"weights")
        self.cache[repo, name, revision] = str(path)
        return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    fake = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_a_name_has_owner_repository_file_and_perhaps_a_revision():
    found = hub_file(NAME + "@v2")
    assert (found.repo, found.name, found.revision) == ("someone/models", "sub/net.weights.h5", "v2")


@pytest.mark.parametrize("name", ["hf:net.h5", "hf:someone/models", "hf:a/b/../../etc", "hf:a/b/c d"])
def test_other_forms_are_refused(name):
    with pytest.raises(WeightsError, match="expected hf:OWNER/REPO/FILE"):
        hub_file(name)


def test_nothing_is_downloaded_unasked(hub):
    with pytest.raises(WeightsNotFoundError, match="weights fetch hf:someone/models/sub/net.weights.h5 --download"):
        find_weights(NAME)
    assert hub.asked == []


def test_a_file_in_the_cache_is_used(hub, tmp_path):
    (tmp_path / "net").touch()
    hub.cache["someone/models", "sub/net.weights.h5", None] = str(tmp_path / "net")
    assert find_weights(NAME).file == tmp_path / "net"


def test_fetch_says_what_it_would_download_and_does_so_only_when_told(hub, tmp_path):
    said = CliRunner().invoke(weights, ["fetch", NAME]).stdout
    assert "sub/net.weights.h5 of someone/models, 102.5 MB" in said
    assert not hub.cache
    said = CliRunner().invoke(weights, ["fetch", NAME, "--download"]).stdout
    assert f"here      {tmp_path / 'net.weights.h5'}" in said
    assert find_weights(NAME).file.read_bytes() == b"weights"


def test_what_the_hub_says_of_a_missing_file_is_one_line(hub):
    error = CliRunner().invoke(weights, ["fetch", "hf:someone/models/missing.h5"]).exception
    assert isinstance(error, WeightsError)
    assert "404 Client Error" in str(error)


def test_without_the_extra_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'radtransfer\[hub\]'"):
        find_weights(NAME)
