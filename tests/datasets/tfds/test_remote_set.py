"""A prepared set at an address is copied once, shard by shard, and read as if it had always been here."""

import pytest
import tensorflow as tf

from radtransfer.config.load import load_config
from radtransfer.config.schema import DataSettings
from radtransfer.data import prepared as shards
from radtransfer.data import tfds as remote_set
from radtransfer.data.prepared import prepare_set
from radtransfer.data.readers import absolute_source, read_table
from radtransfer.errors import DataError, DiskError
from radtransfer.images.refs import read_contents
from radtransfer.process import Progress
from radtransfer.training.address import files_fingerprint, table_fingerprint

SHARDS = 3


class Heard(Progress):
    """Keeps what it hears."""

    def __init__(self):
        self.notes, self.counts = [], []

    def note(self, text):
        self.notes.append(text)

    def count(self, what, done, total):
        self.counts.append((what, done, total))


@pytest.fixture
def prepared(tmp_path, cache, monkeypatch):
    """A prepared set of three shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * 32 * 32 * 3)
    data = {"data.source": "synthetic_fundus:images=12,size=32", "data.positive_from": 2, "model.image_size": 32}
    return prepare_set(load_config(options=data), out=tmp_path / "set").path


@pytest.fixture
def address(tmp_path, prepared):
    """The same set in memory, as another machine has it; with a folder in it that is none of its own."""
    place = f"ram://{tmp_path.name}/bucket/set"
    upload(prepared, place)
    tf.io.gfile.makedirs(f"{place}/notes")
    return place


def upload(folder, address):
    if tf.io.gfile.exists(address):
        tf.io.gfile.rmtree(address)
    tf.io.gfile.makedirs(address)
    for file in folder.iterdir():
        tf.io.gfile.copy(str(file), f"{address}/{file.name}")


def table(source, heard=None):
    return read_table(DataSettings(source=str(source)), progress=heard)


def shard_copies(cache):
    return sorted(cache.glob("remote/*/*.tfrecord-*"))


@pytest.mark.parametrize("source", ["{}", "{}/", "tfds:{}", "tfds:{}?split=train"])
def test_a_set_at_an_address_is_the_set_in_a_folder(source, prepared, address):
    here, there = table(prepared), table(source.format(address))
    assert table_fingerprint(there) == table_fingerprint(here)
    assert list(map(read_contents, there.files)) == list(map(read_contents, here.files))


def test_a_copy_is_made_once_and_told(prepared, address, cache):
    first, second = Heard(), Heard()
    before = files_fingerprint(table(address, first))
    inodes = [file.stat().st_ino for file in shard_copies(cache)]
    assert len(inodes) == SHARDS
    for file in shard_copies(cache):
        assert file.stat().st_mtime_ns == tf.io.gfile.stat(f"{address}/{file.name}").mtime_nsec
    assert files_fingerprint(table(address, second)) == before
    assert [file.stat().st_ino for file in shard_copies(cache)] == inodes
    assert "copying" in first.notes[0] and first.counts[-1][1:] == (len(first.counts),) * 2
    assert "its copy" in second.notes[0] and not second.counts


def test_a_copy_that_was_stopped_goes_on(address, cache, monkeypatch):
    copy_file, copied = remote_set._copy_file, []

    def stopped(place, file, facts):
        if len(shard_copies(cache)) == 2:
            raise KeyboardInterrupt
        copy_file(place, file, facts)

    def counted(place, file, facts):
        copied.append(place)
        copy_file(place, file, facts)

    monkeypatch.setattr(remote_set, "_copy_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        table(address)
    monkeypatch.setattr(remote_set, "_copy_file", counted)
    assert len(table(address)) == 12
    assert copied == [f"{address}/radtransfer-train.tfrecord-00002-of-00003"]


def test_a_set_that_has_changed_is_copied_anew(tmp_path, prepared, address):
    before = table(address)
    data = {"data.source": "synthetic_fundus:images=10,size=32", "data.positive_from": 2, "model.image_size": 32}
    upload(prepare_set(load_config(options=data), out=tmp_path / "other").path, address)
    assert len(before) == 12 and len(table(address)) == 10


def test_an_address_stays_what_it_is_in_another_folder(address):
    for source in (address, f"tfds:{address}?split=train"):
        assert absolute_source(source) == source


def test_a_file_that_ends_early_is_not_kept(address, cache, monkeypatch):
    files = remote_set._files
    monkeypatch.setattr(
        remote_set, "_files", lambda source: {name: (s + 1, t) for name, (s, t) in files(source).items()}
    )
    with pytest.raises(DataError, match="ended after .* bytes"):
        table(address)
    assert not list(cache.glob("remote/*/*"))


def test_a_full_cache_folder_says_so_before_anything_is_copied(address, cache, monkeypatch):
    monkeypatch.setattr(remote_set.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(DiskError, match="bytes are free. .*RADTRANSFER_CACHE"):
        table(address)
    assert not list(cache.glob("remote/*/*"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://bucket/set", "this TensorFlow supports .*gs://.*Mount it"),
        ("https://example.org/set", "this TensorFlow supports"),
        ("ram://nothing/here", "No prepared data set at ram://nothing/here.*data prepare"),
        ("busi:gs://bucket/busi", "busi reads local folders only.*data prepare"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(source, message, cache):
    with pytest.raises(DataError, match=message):
        table(source)
    assert not cache.exists()


def test_an_address_that_cannot_be_reached_asks_for_network_name_and_account(cache, monkeypatch):
    said = "Error executing an HTTP request: libcurl code 6, error details: Could not resolve host: storage.example."

    def unreachable(name):
        raise tf.errors.UnavailableError(None, None, said)

    monkeypatch.setattr(tf.io.gfile, "stat", unreachable)
    with pytest.raises(DataError) as refused:
        table("gs://bucket/set")
    assert str(refused.value) == (
        "gs://bucket/set cannot be read (Could not resolve host: storage.example). Check the network connection, "
        "the address and your permissions (`gcloud auth application-default login`)."
    )
