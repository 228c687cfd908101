"""Reading PyTorch files without PyTorch, and without running what is in them."""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import number, state_dict, tensor, text, write_torch_file

from radtransfer.errors import WeightsError
from radtransfer.pretrained.torch_file import read_pytorch

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.bias": np.array([1.5, -2.0], np.float16),
    "bn.num_batches_tracked": np.array(7, np.int64),
}


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_pytorch(path)
    return str(caught.value)


def safetensors(path: Path, header: dict, content: bytes) -> Path:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)
    return path


@pytest.mark.parametrize("around", [b"", b"state_dict", b"model"])
def test_a_state_dict_is_read_in_order_alone_or_within_a_checkpoint(around, tmp_path):
    read = read_pytorch(write_torch_file(tmp_path / "x.pt", TENSORS, around=around))
    assert list(read) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(read[name], array)
    assert read["conv.bias"].dtype == np.float32


def test_two_tensors_may_share_a_block(tmp_path):
    array = np.arange(6, dtype=np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array) + text("b") + tensor(0, array, shape=(3,)) + b"u."
    read = read_pytorch(write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content))
    np.testing.assert_array_equal(read["b"], array[:3])


def test_code_in_the_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    write_torch_file(tmp_path / "x.pt", TENSORS, pickled=pickle.dumps(Trap(), protocol=2))
    assert "Opening it would run its code" in refused(tmp_path / "x.pt")
    assert not (tmp_path / "executed").exists()


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    made = b"\x80\x02ctorchvision.models.resnet\nResNet\n)\x81}(" + text("_parameters") + state_dict(TENSORS) + b"ub."
    message = refused(write_torch_file(tmp_path / "x.pt", TENSORS, pickled=made))
    assert "whole pickled model (torchvision.models.resnet.ResNet)" in message
    assert "model.state_dict()" in message


def test_a_checkpoint_without_state_dict_says_what_it_holds(tmp_path):
    content = b"\x80\x02}(" + text("epoch") + number(3) + b"u."
    assert "no state dict (it holds epoch)" in refused(write_torch_file(tmp_path / "x.pt", {}, pickled=content))


def test_a_file_from_before_the_zip_format_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"rest")
    assert "never opened" in refused(tmp_path / "x.pth")


def test_a_tensor_larger_than_its_block_is_refused(tmp_path):
    array = np.zeros(4, np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array, shape=(4000,)) + b"u."
    assert "beyond its 4 numbers" in refused(write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content))


def test_a_block_that_is_not_as_long_as_declared_is_refused(tmp_path):
    array = np.zeros(4, np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array, length=10**12) + b"u."
    message = refused(write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content))
    assert "declares 1000000000000 numbers in a block of 16 bytes" in message


def test_a_file_that_expands_without_measure_is_refused(tmp_path):
    array = np.zeros(50_000_000, np.float32)
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + state_dict({"a": array}) + b".")
        archive.writestr("archive/data/0", array.tobytes())
    assert "declares 200 MB, which is impossible" in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"\x80\x02}(", b"\x80\x02u.", b"\x80\x02h\x05.", b"garbage", b"\x80\x02}(" * 20])
def test_a_damaged_pickle_is_one_clear_error(content, tmp_path):
    assert "Download it again" in refused(write_torch_file(tmp_path / "x.pt", TENSORS, pickled=content))


def test_any_damage_is_a_weights_error(tmp_path):
    """Bytes are overwritten at random: no other error escapes."""
    whole = write_torch_file(tmp_path / "x.pt", TENSORS).read_bytes()
    rng, refusals = np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            broken[place] = rng.integers(256)
        (tmp_path / "x.pt").write_bytes(broken)
        try:
            read_pytorch(tmp_path / "x.pt")
        except WeightsError:
            refusals += 1
    assert refusals > 100


def test_safetensors_are_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}
    read = read_pytorch(safetensors(tmp_path / "x.safetensors", header, array.tobytes()))
    np.testing.assert_array_equal(read["a"], array)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 300], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6], "data_offsets": [8, 32]},
        {"dtype": "F8", "shape": [6], "data_offsets": [0, 6]},
    ],
)
def test_safetensors_that_cannot_be_are_refused(entry, tmp_path):
    assert "a" in refused(safetensors(tmp_path / "x.safetensors", {"a": entry}, bytes(24)))


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ("[1e400]", "[0, 24]"),
        ("[-1e400]", "[0, 24]"),
        ("[NaN]", "[0, 24]"),
        ("[-2, -3]", "[0, 24]"),
        ("[true, 6]", "[0, 24]"),
        ("[6.0]", "[0, 24]"),
        ('["6"]', "[0, 24]"),
        ('"6"', "[0, 24]"),
        ("[[6]]", "[0, 24]"),
        ("{}", "[0, 4]"),
        ("null", "[0, 24]"),
        ("[6" + 40 * ", 1" + "]", "[0, 24]"),
        (f"[{10**300}, 0]", "[0, 0]"),
        ("[6]", "[0, 1e400]"),
        ("[6]", "[false, 24]"),
        ("[6]", "[0, 24, 48]"),
        ("[6]", '{"0": 24}'),
        ("[6]", "[-24, 0]"),
    ],
)
def test_shapes_and_places_in_safetensors_are_whole_numbers(shape, offsets, tmp_path):
    header = f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    message = refused(tmp_path / "x.safetensors")
    assert "declares 'a' of shape" in message
    assert len(message) < 500


@pytest.mark.parametrize("entry", ["7", "null", '[["dtype", "F32"]]', "{}", '{"dtype": ["F32"]}', '{"dtype": {}}'])
def test_entries_in_safetensors_that_are_no_tensors_are_named(entry, tmp_path):
    header = f'{{"a": {entry}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "holds 'a' of type" in refused(tmp_path / "x.safetensors")


def test_two_tensors_in_safetensors_do_not_share_bytes(tmp_path):
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = {"a": entry, "b": entry | {"data_offsets": [8, 24]}}
    assert "'b' in bytes that belong to another" in refused(safetensors(tmp_path / "x.safetensors", header, bytes(24)))
    header = {
        "b": entry | {"data_offsets": [16, 32]},
        "none": entry | {"shape": [0], "data_offsets": [8, 8]},
        "a": entry,
    }
    read = read_pytorch(safetensors(tmp_path / "x.safetensors", header, bytes(32)))
    assert [array.size for array in read.values()] == [4, 0, 4]


@pytest.mark.parametrize(
    "change", [{"shape": (1e400,)}, {"shape": (-2,)}, {"shape": (6.0,)}, {"shape": (1,) * 40, "strides": (1,) * 40}]
)
def test_shapes_in_a_pickle_are_whole_numbers(change, tmp_path):
    array = np.zeros(6, np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array, **change) + b"u."
    assert "declares a tensor whose shape" in refused(
        write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content)
    )


def test_a_negative_shape_does_not_outweigh_one_that_is_too_large(tmp_path):
    array = np.zeros(6, np.float32)
    huge, negative = (tensor(0, array, shape=shape, strides=(0,)) for shape in ((10**12,), (-(10**12),)))
    content = b"\x80\x02}(" + text("a") + huge + text("b") + negative + b"u."
    assert "declares a tensor whose shape" in refused(
        write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content)
    )


def operations(work) -> int:
    """How many instructions of Python `work` runs."""
    count = 0

    def hear(frame, *_):
        nonlocal count
        count += 1
        frame.f_trace_opcodes = True
        return hear

    sys.settrace(hear)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("part", [b"(t", b"((t", b"(l", b"}(u"])
def test_the_work_on_a_pickle_is_in_proportion_to_its_length(part, tmp_path):
    def read(count):
        path = write_torch_file(tmp_path / "x.pt", {}, pickled=b"\x80\x02" + part * count + b"].")
        return operations(lambda: refused(path))

    read(0)
    assert read(1000) <= 2.2 * read(500)


def doubled(empty: bytes, together: bytes) -> bytes:
    """An object that holds the one before it twice, a hundred times over, in 700 bytes."""
    return empty + b"q\0" + b"".join(b"h%ch%c%sq%c" % (k, k, together, k + 1) for k in range(100))


TUPLES = doubled(b")", b"\x86")
WIDE = b"".join(b"(" + b"h%c" % k * 20 + b"tq%c" % (k + 1) for k in range(20))
MODEL = b"cos\nsystem\n)R"
LONG = b"\x8b@T\x89\0" + bytes(8_999_999) + b"\x01q\0"
HOSTILE = {
    "a key": TUPLES + b"}hdK\x01s.",
    "a value": TUPLES + b"}" + text("a") + b"hds.",
    "a kind of block": TUPLES + b"(hdhdhdhdhdtQ.",
    "a storage": TUPLES + b"(" + text("storage") + b"hdhdhdhdtQ.",
    "a block": TUPLES + b"(" + text("storage") + b"ctorch\nFloatStorage\n" + b"hdhdhdtQ.",
    "a name": TUPLES + b"hdhd\x93.",
    "a class": TUPLES + b"hdhd\x81.",
    "a call": TUPLES + b"hdhdR.",
    "a state": TUPLES + MODEL + b"hdb.",
    "a wide state": b")q\0" + WIDE + MODEL + b"h\x14b.",
    "one state of many objects": b"(" + b"K\x01" * 20_000 + b"tq\0" + (MODEL + b"h\0b") * 20_000 + b".",
    "one name of many objects": text("m" * 9_000_000) + b"q\0" + b"h\0h\0\x93q\1" * 60_000 + b".",
    "one long key": (text("m" * 9_000_000) + b"q\0") * 2 + b"}h\0Ns" + b"h\1Ns" * 60_000 + b".",
    "keys of one hash": b"}("
    + b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(200_000))
    + b"u.",
    "a long number": LONG + b"}" + b"h\0Ns" * 60_000 + b".",
}


def test_a_few_bytes_do_not_make_work_without_end(tmp_path):
    for name, pickled in HOSTILE.items():
        write_torch_file(tmp_path / f"{name}.pt", {}, pickled=b"\x80\x04" + pickled)
    code = (
        "import pathlib, sys\nfrom radtransfer.errors import WeightsError\n"
        "from radtransfer.pretrained.torch_file import read_pytorch\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.pt')):\n"
        "    try:\n        read_pytorch(path)\n"
        "    except WeightsError as error:\n        print(path.stem, len(str(error)) < 500)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"{name} True" for name in sorted(HOSTILE)], done.stderr


def test_a_block_of_two_types_gives_each_tensor_its_own(tmp_path):
    array = np.arange(4, dtype=np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array)
    content += text("b") + tensor(0, array.astype(np.float16), length=8, shape=(8,)) + b"u."
    read = read_pytorch(write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content))
    np.testing.assert_array_equal(read["a"], array)
    np.testing.assert_array_equal(read["b"], array.view(np.float16).astype(np.float32))
