import io
import json
import zipfile
from functools import cache

import h5py
import numpy as np
import pytest
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from radtransfer.errors import WeightsError
from radtransfer.models.architecture import build_architecture
from radtransfer.pretrained.match import match_layers, weighted_layers
from radtransfer.pretrained.read import WeightFile, read_weight_file
from radtransfer.pretrained.saved_model import open_model

BACKBONE = "cbr_tiny"


@cache
def backbone():
    return build_architecture(BACKBONE, image_size=32)


@cache
def files(base):
    """A small model in every form, by name."""
    import keras

    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="head"),
        ]
    )
    contents = {}
    for name in ("a.weights.h5", "a.keras"):
        model.save_weights(base / name) if "weights" in name else model.save(base / name)
        contents[name] = (base / name).read_bytes()
    with h5py.File(base / "legacy.h5", "w") as file:
        file.attrs["layer_names"] = ["conv", "bn"]
        for layer, leaves in {
            "conv": {"kernel": (3, 3, 3, 4), "bias": (4,)},
            "bn": {"gamma": (4,), "beta": (4,)},
        }.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{leaf}:0" for leaf in leaves]
            for leaf, shape in leaves.items():
                group.create_dataset(f"{layer}/{leaf}:0", data=np.ones(shape, "float32"))
    contents["legacy.h5"] = (base / "legacy.h5").read_bytes()
    return contents


def read(path):
    """Its layers, or a refusal that names it."""
    found = answer(read_weight_file, path, names=path.name, codes=(4,))
    if isinstance(found, WeightFile):
        assert found.layers
        for layer in found.layers:
            assert all(array.dtype.kind == "f" for array in layer.arrays.values())
    return found


KINDS = ("a.weights.h5", "a.keras", "legacy.h5")


@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=12),
    st.sampled_from([".h5", ".keras", ".npz", ".pt", ""]),
)
@fuzzed(100)
def test_flipped_bits_are_refused_or_read(tmp_path_factory, name, flips, suffix):
    base = tmp_path_factory.getbasetemp()
    content = bytearray(files(base)[name])
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    path = base / f"flipped bits{suffix}"
    path.write_bytes(content)
    read(path)


@given(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 4000))
@fuzzed(50)
def test_a_part_of_a_file_is_refused(tmp_path_factory, name, share, zeros):
    base = tmp_path_factory.getbasetemp()
    content = files(base)[name]
    length = int(share * (len(content) - 1))
    path = base / "a part.h5"
    path.write_bytes(content[:length] + bytes(min(zeros, len(content) - length - 1)))
    read(path)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY"]))
@fuzzed(50)
def test_any_bytes_are_refused_by_name(tmp_path_factory, content, beginning):
    path = tmp_path_factory.getbasetemp() / "any bytes.h5"
    path.write_bytes(beginning + content)
    assert isinstance(read(path), WeightsError)


shapes = st.lists(st.sampled_from([0, 1, 2, 3, 5, 32, 64, 10**6, 2**33]), max_size=5).map(tuple)
kinds = st.sampled_from(["f2", "f4", "f8", "i4", "u1", "S5", "c8", "b1"])


@given(st.data())
@fuzzed(30)
def test_other_shapes_and_types_are_never_loaded_into_a_network(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "other shapes.weights.h5"
    backbone().save_weights(path)
    with h5py.File(path, "r+") as file:
        places = []
        file.visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
        for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
            shape, kind = data.draw(shapes), data.draw(kinds)
            same = file[place].shape == shape and kind in ("f2", "f4", "f8")
            del file[place]
            if same:
                continue
            if shape:
                file.create_dataset(place, shape, kind, chunks=True if all(shape) else None)
            else:
                file.create_dataset(place, data=np.zeros((), kind))
    found = read(path)
    assert isinstance(found, WeightsError) or match_layers(found, weighted_layers(backbone())).missing


def rewritten(path, source, change):
    """A `.keras` file with another configuration."""
    with zipfile.ZipFile(io.BytesIO(source)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
            new.writestr(name, content)


def with_lambda(document):
    function = {"class_name": "__lambda__", "config": {"code": "4wEAAAAAAAAA", "defaults": None, "closure": None}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None}
    document["config"]["layers"].append(layer | {"config": {"name": "evil", "function": function}})


def with_module(document):
    document["config"]["layers"].append({"module": "os", "class_name": "system", "config": {"command": "true"}})


@pytest.mark.parametrize("open_file", [read_weight_file, open_model])
def test_a_lambda_is_refused_with_the_reason(tmp_path, open_file):
    path = tmp_path / "lambda.keras"
    rewritten(path, files(tmp_path)["a.keras"], with_lambda)
    error = answer(open_file, path, names="lambda.keras", codes=(4,))
    assert "carries code, a Lambda layer ('evil')" in str(error) or "a Python function" in str(error)


def test_a_lambda_in_an_old_hdf5_file_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(files(tmp_path)["legacy.h5"])
    layer = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEAAAAAAAAA", None, None]}}
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})
    for open_file in (read_weight_file, open_model):
        assert "carries code" in str(answer(open_file, path, names="old.h5", codes=(4,)))


def test_classes_from_anywhere_else_are_not_imported(tmp_path):
    path = tmp_path / "module.keras"
    rewritten(path, files(tmp_path)["a.keras"], with_module)
    assert "needs os.system" in str(answer(open_model, path, names="module.keras", codes=(4,)))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=6))
@fuzzed(12)
def test_a_damaged_model_is_opened_or_refused(tmp_path_factory, flips):
    base = tmp_path_factory.getbasetemp()
    content = bytearray(files(base)["a.keras"])
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    path = base / "damaged model.keras"
    path.write_bytes(content)
    answer(open_model, path, names="damaged model.keras", codes=(4,))


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", bytes(300_000_000))
    for open_file in (read_weight_file, open_model):
        assert "declares" in str(answer(open_file, path, names="bomb.keras", codes=(4,)))
