"""Endoscopy in eight folders."""

import pytest

from radtransfer.data.public_parsers import KVASIR_CLASSES as CLASSES
from radtransfer.errors import DataError

IMAGES = tuple(f"{name}/0a7b-{number}.jpg" for name in CLASSES for number in (1, 2))


@pytest.mark.parametrize("folder", ["", "kvasir-dataset/", "kvasir-dataset-v2/"])
def test_the_eight_folders_are_the_classes(tree, read, folder):
    root = tree(*(folder + name for name in IMAGES), text={f"{folder}polyps/Thumbs.db": ""})
    table = read(f"kvasir:{root}")
    assert table.paths == IMAGES and table.classes == CLASSES
    assert table.patients is None and table.splits is None
    assert "files that are not images, ignored: 1" in table.notes


def test_another_folder_is_an_error(tree, read):
    with pytest.raises(DataError, match="has unexpected folders: barretts"):
        read(f"kvasir:{tree(*IMAGES, 'barretts/1.jpg')}")
