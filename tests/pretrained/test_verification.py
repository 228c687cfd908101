"""Is a file whole, and the published one?"""

import dataclasses

import keras
import numpy as np
import pytest
from torch_files import write_torch_file

from radtransfer.errors import WeightsError
from radtransfer.pretrained import convert as verification
from radtransfer.pretrained.convert import verify_file
from radtransfer.pretrained.read import sha256_of
from radtransfer.pretrained.source import known_weights


@pytest.fixture
def file(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "x.weights.h5")
    return (tmp_path / "x.weights.h5").rename(tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5")


def known(monkeypatch, path):
    card = dataclasses.replace(known_weights()["imagenet-resnet50"], hashes=(sha256_of(path),))
    monkeypatch.setattr(verification, "known_weights", lambda: {"imagenet-resnet50": card})


def test_the_published_file_is_known_by_its_hash_whatever_its_name(file, monkeypatch):
    renamed = file.rename(file.with_name("weights-3.h5"))
    known(monkeypatch, renamed)
    found = verify_file(renamed)
    assert (found["verdict"], found["card"], found["by"]) == ("published", "imagenet-resnet50", "hash")
    assert found["parameters"] == 8


def test_a_file_with_a_published_name_but_another_hash_is_an_error(file):
    with pytest.raises(WeightsError, match="has the name of imagenet-resnet50, but another hash than the published"):
        verify_file(file)


def test_where_no_hash_is_published_the_name_is_all_there_is(file):
    found = verify_file(file.rename(file.with_name("RadImageNet-ResNet50_notop.h5")))
    assert (found["verdict"], found["card"], found["by"]) == ("unknown", "radimagenet-resnet50", "name")


def test_pytorch_files_are_read_to_their_end(tmp_path):
    path = write_torch_file(tmp_path / "x.pt", {"a": np.ones(3, np.float32), "n": np.array(3)})
    found = verify_file(path)
    assert (found["arrays"], found["parameters"], found["card"]) == (1, 3, None)


def test_numbers_that_are_not_finite_are_an_error(tmp_path):
    path = write_torch_file(tmp_path / "x.pt", {"a": np.array([1, np.inf], np.float32)})
    with pytest.raises(WeightsError, match="NaN or infinite values in 1 arrays"):
        verify_file(path)


def test_every_hash_in_the_manifest_has_its_file():
    for card in known_weights().values():
        assert len(card.hashes) in (0, len(card.files))
        assert all(len(digest) in (32, 64) and int(digest, 16) for digest in card.hashes)
