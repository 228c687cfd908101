"""The examples in the docstrings of the public functions give what they say."""

import doctest
import inspect
import shutil

import numpy as np
import pytest

import radtransfer as rt

EXAMPLES = {
    test.name: test
    for name in rt.__all__
    if inspect.isfunction(function := getattr(rt, name))
    for test in doctest.DocTestFinder(recurse=False).find(function, name, globs={})
} | {"auc_interval": doctest.DocTestFinder().find(rt.metrics.auc_interval, "auc_interval", globs={})[0]}

STUDY = """
study: {name: tiny}
base:
  splits: {folds: 2}
  model: {backbone: cbr_tiny, image_size: 24}
  training: {batch_size: 8, epochs: 1, augmentation: none}
arms:
  one: {}
  two: {transfer.scheme: scratch, seed: 1}
"""


@pytest.fixture(scope="module")
def folder(tiny_images, finished_run, tmp_path_factory):
    """What the examples name: images.csv, images/, runs/first and study.yaml."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(tiny_images, folder, dirs_exist_ok=True)
    shutil.copytree(finished_run.path, folder / "runs" / "first")
    (folder / "study.yaml").write_text(STUDY)
    return folder


def network(name):
    import keras

    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv1")(image)
    x = keras.layers.Conv2D(12, 3, activation="relu", name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(2, name="head")(x), name=name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_what_it_says(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    example = EXAMPLES[name]
    assert example.examples
    names = {"rt": rt, "np": np, "auc_interval": rt.metrics.auc_interval}
    if "model" in example.docstring:
        names |= {"model": network("mine"), "source": network("source")}
    example.globs = names
    said = []
    failed, tried = doctest.DocTestRunner().run(example, out=said.append)
    assert tried and not failed, "".join(said)
