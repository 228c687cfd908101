"""Addresses are told from paths, options and names."""

import pytest

from radtransfer.errors import ConfigError
from radtransfer.images.refs import check_local_path, remote_source
from radtransfer.training.names import check_value


@pytest.mark.parametrize(
    "place", ["gs:/bucket/set", "C:\\data", "C:/data", "tfds:name/config:1.0.0", "hf:a/b", "a b://c"]
)
def test_paths_and_names_are_no_addresses(place):
    assert remote_source(place) is None
    check_local_path(place)


def test_an_address_has_its_parts():
    assert remote_source("tfds:gs://b/set/?split=a+b") == ("tfds", "gs://b/set", "gs", "?split=a+b")
    assert remote_source("s3://b/set") == (None, "s3://b/set", "s3", "")


@pytest.mark.parametrize("name", ["out", "data.image_root", "model.weights"])
def test_settings_that_name_files_of_this_machine_refuse_addresses(name):
    check_value(name, "a/b")
    with pytest.raises(ConfigError, match="a local file or folder, received gs://b/x"):
        check_value(name, "gs://b/x")
