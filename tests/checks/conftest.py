"""Evidence without images, for tests of single checks."""

import numpy as np
import pytest

from radtransfer.data.checks import Evidence, ImageRecord
from radtransfer.data.splits import Fold
from radtransfer.data.table import ImageTable
from radtransfer.images.formats import ImageFacts


def record(number=0, *, height=64, width=64, orientation=1, decoder="png8", deep=False, **values):
    """The record of an image like no other; `values` replace what stands in it."""
    facts = ImageFacts(decoder, height, width, orientation, deep=deep)
    usual = {"mode": "RGB", "low": 0.0, "high": 255.0, "spread": 50.0}
    own = {"contents": b"c%d" % number, "pixels": b"p%d" % number}
    return ImageRecord(facts=facts, **{**usual, **own, **values})


@pytest.fixture
def make_evidence():
    """Evidence of images with these labels, a letter each; a fold is a string of t(rain), v(al), e (test) and -."""

    def make(labels, records=None, *, patients=None, folds=(), given=None, paths=None, task="multiclass", **values):
        classes = tuple(sorted(set("".join(labels)) - {"-", "?"}))
        targets = [[np.nan if "?" in label else float(name in label) for name in classes] for label in labels]
        words = {"t": "train", "v": "val", "e": "test", "-": ""}
        splits = [np.array([words[letter] for letter in fold], dtype="U5") for fold in folds]
        table = ImageTable(
            paths=paths or tuple(f"{i}.png" for i in range(len(labels))),
            files=(None,) * len(labels),
            targets=np.array(targets, dtype="float32"),
            classes=classes,
            task=task,
            patients=None if patients is None else tuple(patients),
            splits=np.array(splits) if given and splits else None,
        )
        return Evidence(
            table,
            records or [record(i) for i in range(len(labels))],
            [Fold(number, 1, 0, split) for number, split in enumerate(splits, start=1)],
            **{"image_size": 32, **values},
        )

    return make


@pytest.fixture
def make_record():
    return record
