"""Whole models that would have Keras import, open or run more than its own layers are refused before it is asked."""

import configparser
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from packaging.requirements import Requirement

from radtransfer.errors import WeightsError
from radtransfer.exports.formats import add_to_zip
from radtransfer.initializers import MeanVar
from radtransfer.pretrained.read import read_weight_file
from radtransfer.pretrained.safety import check_is_plain_keras
from radtransfer.pretrained.saved_model import open_model, open_weights

PROGRAMS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
"""Public layers that are whatever a file has them be."""


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")], name="inner")
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.relu(inner(image)) * 2)
    return keras.Model(
        image, keras.layers.Dense(2, "softmax", name="head", kernel_initializer=MeanVar(0, 1, seed=1))(x)
    )


def archive(path, members):
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members:
            new.writestr(name, content)
    return path


def members_of(model, folder):
    model.save(folder / "whole.keras")
    with zipfile.ZipFile(folder / "whole.keras") as whole:
        return {name: whole.read(name) for name in whole.namelist()}


def keras_file(path, model, change):
    members = members_of(model, path.parent)
    document = json.loads(members["config.json"])
    change(document)
    return archive(path, (members | {"config.json": json.dumps(document)}).items())


def h5_file(path, layer):
    """What Keras 2 wrote, which names no modules."""
    with h5py.File(path, "w") as file:
        config = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = ["d"]
        file["model_weights"].create_group("d").attrs["weight_names"] = ["d/kernel:0"]
        file["model_weights/d/d/kernel:0"] = np.ones((3, 2), "float32")
    return path


def refused(path) -> str:
    with pytest.raises(WeightsError) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def layer(name, module="keras.layers", **config):
    return {"module": module, "class_name": name, "config": {"name": "evil", **config}, "registered_name": None}


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def head(document):
    return next(item for item in document["config"]["layers"] if item["config"].get("name") == "head")


HOSTILE = {
    "keras.layers.TFSMLayer": layer("TFSMLayer", filepath="evil"),
    "keras.src.export.tfsm_layer.TFSMLayer": layer("TFSMLayer", "keras.src.export.tfsm_layer", filepath="evil"),
    "keras.layers.JaxLayer": layer("JaxLayer", call_fn="x"),
    "keras.utils.get_file": layer("get_file", "keras.utils", origin="x"),
    "keras.models.load_model": layer("load_model", "keras.models"),
    "keras.config.enable_unsafe_deserialization": layer("enable_unsafe_deserialization", "keras.config"),
    "keras_cv.layers.Grayscale": layer("Grayscale", "keras_cv.layers"),
    "os.system": layer("system", "os", command="true"),
    "keras.saving.deserialize_keras_object": function("keras.saving", "deserialize_keras_object"),
    "keras.layers.deserialize": function("keras.layers", "deserialize"),
    "subprocess.getoutput": function("subprocess", "getoutput"),
    "builtins.eval": function("builtins", "eval"),
    "registered as other>Dense": layer("Dense", units=2) | {"registered_name": "other>Dense"},
    "registered as keras_cv>Thing": layer("MeanVar") | {"registered_name": "keras_cv>Thing"},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["layer", "wrapped", "argument", "build_config", "compile_config of a part"])
def test_a_class_or_function_that_is_on_no_list_is_refused_by_name_wherever_it_stands(tmp_path, model, name, place):
    part = HOSTILE[name]

    def change(document):
        if place == "layer":
            document["config"]["layers"].append(part)
        elif place == "wrapped":
            document["config"]["layers"].append(
                layer("TimeDistributed", layer=layer("Sequential", "keras", layers=[part]))
            )
        elif place == "argument":
            head(document)["config"]["activation"] = part
        elif place == "build_config":
            head(document)["build_config"] = {"deep": [[{"x": part}]]}
        else:
            inner = next(item for item in document["config"]["layers"] if item["config"].get("name") == "inner")
            inner["compile_config"] = {"optimizer": "adam", "loss": part}

    assert name in refused(keras_file(tmp_path / "m.keras", model, change))


@pytest.mark.parametrize("name", ["TFSMLayer", "get_file", "Custom>Layer", "JaxLayer", "keras.utils.get_file"])
def test_an_old_file_is_judged_by_its_bare_names(tmp_path, name):
    part = {"class_name": name, "config": {"name": "evil"}}
    wrapped = {"class_name": "Bidirectional", "config": {"name": "w", "layer": part}}
    for item in (part, wrapped):
        assert f"needs {name}" in refused(h5_file(tmp_path / "m.h5", item))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocabulary", "words.txt"),
        ("vocabulary", {"class_name": "__bytes__", "config": {"value": "/etc/passwd"}}),
        ("filepath", "here.txt"),
        ("weights_file", "w"),
        ("anything", "/etc/passwd"),
        ("anything", "../up"),
        ("anything", "~/home"),
        ("anything", "gs://bucket/object"),
        ("anything", "http://127.0.0.1/x"),
        ("anything", "C:\\secret"),
    ],
)
def test_an_argument_that_is_a_file_or_an_address_is_refused(tmp_path, model, key, value):
    def change(document):
        document["config"]["layers"].append(layer("StringLookup", **{key: value}))

    assert f"names a file, {key}" in refused(keras_file(tmp_path / "m.keras", model, change))


def test_every_public_layer_passes_but_those_that_are_programs(tmp_path, model):
    layers = {
        name for name, kind in vars(keras.layers).items() if isinstance(kind, type) and issubclass(kind, keras.Layer)
    }
    refusals = set()
    members = members_of(model, tmp_path)
    for name in layers:
        members["config.json"] = json.dumps(layer(name))
        try:
            check_is_plain_keras(archive(tmp_path / "m.keras", members.items()))
        except WeightsError:
            refusals.add(name)
    assert refusals == PROGRAMS & layers


def own_loss(truth, values):
    return keras.ops.mean(values - truth)


def test_models_with_parts_of_every_kind_go_on_opening(tmp_path, model):
    inner = model.get_layer("inner")
    inner.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)), keras.losses.BinaryCrossentropy()
    )
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(
        3,
        3,
        activation=keras.ops.tanh,
        kernel_initializer=keras.initializers.HeNormal(1),
        kernel_regularizer=keras.regularizers.L1L2(1e-4, 1e-4),
        bias_constraint=keras.constraints.MaxNorm(2),
        dtype="mixed_bfloat16",
    )(model.get_layer("inner")(image)[:, 1:, ..., :3])
    x = keras.layers.Dense(2, activation=keras.layers.LeakyReLU(0.2))(keras.layers.Flatten()(x))
    whole = keras.Model(image, x)
    whole.compile("adam", own_loss)  # how it was trained is not read
    whole.save(tmp_path / "whole.keras")
    add_to_zip(tmp_path / "whole.keras", {"classes": ["a", "b"]})
    for one, other in zip(open_model(tmp_path / "whole.keras").get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    open_model(tmp_path / "whole.keras")
    model.save(tmp_path / "own.keras")
    assert type(open_model(tmp_path / "own.keras").get_layer("head").kernel_initializer) is MeanVar


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_hdf5_model_opens(tmp_path):
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "m.h5")
    assert len(open_model(tmp_path / "m.h5").weights) == 4


def test_the_judgement_imports_no_tensorflow(tmp_path, model):
    path = keras_file(tmp_path / "m.keras", model, lambda document: None)
    code = (
        "import sys, pathlib; from radtransfer.pretrained.safety import check_is_plain_keras as check;"
        "check(pathlib.Path(sys.argv[1])); assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_a_file_that_is_hdf5_and_a_zip_is_refused_by_every_reader(tmp_path, model):
    model.save(tmp_path / "zip.keras")
    model.save_weights(tmp_path / "only.weights.h5")
    zipped, hdf5 = (tmp_path / "zip.keras").read_bytes(), (tmp_path / "only.weights.h5").read_bytes()
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=2**20) as file:
        file["x"] = np.zeros(3)
    with (tmp_path / "block.h5").open("r+b") as file:
        file.write(zipped)
    appended = io.BytesIO(hdf5 + zipped)
    for name, content in {
        "appended": appended.getvalue(),
        "user block": (tmp_path / "block.h5").read_bytes() + zipped,
    }.items():
        for suffix in (".keras", ".h5", ".weights.h5"):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            for read in (open_model, read_weight_file):
                with pytest.raises(WeightsError, match="both an HDF5 file and a zip"):
                    read(path)


def test_weights_that_lie_where_hdf5_readers_look_are_no_second_container(tmp_path, model):
    members = members_of(model, tmp_path)
    weights = members.pop("model.weights.h5")
    size = len(archive(tmp_path / "m.keras", members.items()).read_bytes())
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
        start = new.fp.tell() + 30 + len("model.weights.h5") + 30 + len("pad")
        assert start < size + 200
        new.writestr("pad", bytes((1 << start.bit_length()) - start))
        new.writestr("model.weights.h5", weights)
    assert h5py.is_hdf5(tmp_path / "m.keras")
    open_model(tmp_path / "m.keras")
    assert read_weight_file(tmp_path / "m.keras").layers


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", ["config.json", "Config.JSON", "model.weights.h5"])
def test_an_archive_that_holds_a_name_twice_is_refused(tmp_path, model, twice):
    members = [*members_of(model, tmp_path).items(), (twice, b"{}")]
    path = archive(tmp_path / "m.keras", members)
    for read in (open_model, read_weight_file):
        with pytest.raises(WeightsError, match="2 times"):
            read(path)


def test_an_archive_with_something_in_front_of_it_is_refused(tmp_path, model):
    members_of(model, tmp_path)
    (tmp_path / "m.keras").write_bytes(b"#!/bin/sh\n" + (tmp_path / "whole.keras").read_bytes())
    assert "in front of it" in refused(tmp_path / "m.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5", ".txt"])
def test_a_model_is_opened_by_the_container_that_its_name_promises(tmp_path, model, suffix):
    model.save(tmp_path / "zip.keras")
    model.save_weights(tmp_path / "only.weights.h5")
    other = "only.weights.h5" if suffix == ".keras" else "zip.keras"
    path = (tmp_path / other).rename(tmp_path / f"m{suffix}")
    assert "is not a model that Keras can load" in refused(path)


def test_a_folder_and_an_archive_without_hdf5_weights_are_no_model(tmp_path, model):
    members = members_of(model, tmp_path)
    (tmp_path / "folder.keras").mkdir()
    for name, content in members.items():
        (tmp_path / "folder.keras" / name).write_bytes(content)
    assert "expected a .keras file" in refused(tmp_path / "folder.keras")
    members["model.weights.npz"] = members.pop("model.weights.h5")
    assert "model.weights.h5" in refused(archive(tmp_path / "m.keras", members.items()))


def elsewhere(file, kind, target):
    if kind == "external link":
        file["elsewhere"] = h5py.ExternalLink(str(target), "x")
    elif kind == "soft link":
        file["elsewhere"] = h5py.SoftLink("/layers")
    elif kind == "external storage":
        file.create_dataset("elsewhere", (3,), "float32", external=[(str(target), 0, 12)])
    else:
        layout = h5py.VirtualLayout((3,), "float32")
        layout[:] = h5py.VirtualSource(str(target), "x", (3,))
        file.create_virtual_dataset("elsewhere", layout)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual dataset"])
def test_weights_that_lead_elsewhere_are_refused_in_every_container(tmp_path, model, kind):
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:
        elsewhere(file.create_group("deep/down"), kind, tmp_path / "secret")
    with pytest.raises(WeightsError, match="only self-contained files"):
        open_weights(model, tmp_path / "m.weights.h5")
    members = members_of(model, tmp_path) | {"model.weights.h5": (tmp_path / "m.weights.h5").read_bytes()}
    path = archive(tmp_path / "m.keras", members.items())
    assert "only self-contained files" in refused(path)
    for file in (path, tmp_path / "m.weights.h5"):
        with pytest.raises(WeightsError, match="only self-contained files"):
            read_weight_file(file)


def test_the_versions_of_keras_that_open_a_saved_model_in_safe_mode_are_not_allowed():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    needed = {
        Requirement(line).name: Requirement(line).specifier
        for line in setup["options"]["install_requires"].split("\n")
        if line
    }
    tried = {"3.10.0": False, "3.12.0": False, "3.12.1": True, "3.13.0": False, "3.13.1": False, "3.13.2": True}
    assert {version: needed["keras"].contains(version) for version in tried} == tried
