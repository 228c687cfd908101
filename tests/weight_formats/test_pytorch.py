"""Reading PyTorch files without PyTorch, and without running what is in them."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import number, state_dict, tensor, text, write_torch_file

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.pytorch import read_pytorch

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
    read = read_pytorch(write_torch_file(tmp_path / "x.pt", TENSORS, around=around)).tensors
    assert list(read) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(read[name], array)
    assert read["conv.bias"].dtype == np.float32


def test_two_tensors_may_share_a_block(tmp_path):
    array = np.arange(6, dtype=np.float32)
    content = b"\x80\x02}(" + text("a") + tensor(0, array) + text("b") + tensor(0, array, shape=(3,)) + b"u."
    read = read_pytorch(write_torch_file(tmp_path / "x.pt", {"a": array}, pickled=content)).tensors
    np.testing.assert_array_equal(read["b"], array[:3])


def test_code_in_the_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    write_torch_file(tmp_path / "x.pt", TENSORS, pickled=pickle.dumps(Trap(), protocol=2))
    assert "making it would run its code" in refused(tmp_path / "x.pt")
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
    assert "declares 200 MB, which cannot be" in refused(tmp_path / "x.pt")


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
    read = read_pytorch(safetensors(tmp_path / "x.safetensors", header, array.tobytes())).tensors
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
