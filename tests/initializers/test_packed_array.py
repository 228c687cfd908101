"""What initializers keep in a saved model: small, exact, and safe to read."""

import base64
import json
import tracemalloc
import zlib

import keras
import numpy as np
import pytest

from radtransfer.initializers import Copied, Sampled, Shuffled

ARRAY = np.random.default_rng(0).normal(0, 0.02, (3, 3, 128, 128)).astype(np.float32)


def text(data):
    return base64.b64encode(zlib.compress(data)).decode()


def test_a_copied_array_comes_back_exactly():
    array = np.array([[0.0, -0.0, 1e-45], [np.pi, -3e38, 1.0]], np.float32)
    again = Copied.from_config(json.loads(json.dumps(Copied(array).get_config()))).array
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4)])
def test_any_shape_comes_back(shape):
    assert Copied.from_config(Copied(np.ones(shape)).get_config()).array.shape == shape


def test_a_packed_array_is_portable_text():
    packed = Copied([1.0, -2.0]).get_config()["array"]
    planes = zlib.decompress(base64.b64decode(packed["float32"]))
    assert packed["shape"] == [2]
    assert planes == bytes([0, 0, 0, 0, 0x80, 0, 0x3F, 0xC0])  # 1 is 3F800000, -2 is C0000000


@pytest.mark.parametrize("kind", [Sampled, Shuffled])
def test_a_saved_kernel_grows_by_two_thirds_at_most(kind, tmp_path):
    sizes = []
    for initializer in ("zeros", kind(ARRAY, 1)):
        layer = keras.layers.Conv2D(128, 3, use_bias=False, kernel_initializer=initializer)
        keras.Sequential([keras.Input((4, 4, 128)), layer]).save(tmp_path / "model.keras")
        sizes.append((tmp_path / "model.keras").stat().st_size)
    assert sizes[1] - sizes[0] < 2 / 3 * ARRAY.nbytes


DAMAGED = {
    "not a dictionary": [1.0, 2.0],
    "no text": {"shape": [2]},
    "no shape": {"float32": text(bytes(8))},
    "not base64": {"shape": [2], "float32": "é!"},
    "not a string": {"shape": [2], "float32": 5},
    "not zlib": {"shape": [2], "float32": base64.b64encode(b"12345678").decode()},
    "cut off": {"shape": [2], "float32": base64.b64encode(zlib.compress(bytes(range(8)))[:-3]).decode()},
    "too short": {"shape": [3], "float32": text(bytes(8))},
    "too long": {"shape": [1], "float32": text(bytes(8))},
    "trailing bytes": {"shape": [2], "float32": base64.b64encode(zlib.compress(bytes(8)) + b"x").decode()},
    "a fractional shape": {"shape": [2.0], "float32": text(bytes(8))},
    "a negative shape": {"shape": [-1, -2], "float32": text(bytes(8))},
    "too many dimensions": {"shape": [1] * 100 + [2], "float32": text(bytes(8))},
    "empty": {"shape": [0], "float32": text(b"")},
    "huge": {"shape": [2**20, 2**20, 2**20], "float32": text(bytes(8))},
}


@pytest.mark.parametrize("kind", [Sampled, Shuffled, Copied])
@pytest.mark.parametrize("packed", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_config_is_refused_with_what_was_expected(kind, packed):
    with pytest.raises(ValueError, match="Expected a packed array, .* Received a damaged one .* Save the model again"):
        kind.from_config({"array": packed} | ({} if kind is Copied else {"seed": 1}))


@pytest.mark.parametrize("kind", [Sampled, Copied])
def test_a_config_without_its_array_is_refused(kind):
    with pytest.raises(ValueError, match="Expected a packed array"):
        kind.from_config({"seed": 1})


def test_one_changed_letter_is_noticed():
    packed = Sampled(ARRAY, 1).get_config()["array"]
    middle = len(packed["float32"]) // 2
    letter = "A" if packed["float32"][middle] != "A" else "B"
    packed["float32"] = packed["float32"][:middle] + letter + packed["float32"][middle + 1 :]
    with pytest.raises(ValueError, match="Received a damaged one"):
        Sampled.from_config({"array": packed, "seed": 1})


def test_values_that_are_not_finite_are_noticed_in_a_config():
    nan = np.array([[np.nan]], np.float32).view(np.uint8).tobytes()
    with pytest.raises(ValueError, match="Received: 1 of 1 that are NaN or infinite"):
        Sampled.from_config({"array": {"shape": [1], "float32": text(nan)}, "seed": 1})


def test_a_text_that_inflates_without_end_takes_no_memory():
    bomb = {"shape": [4], "float32": text(bytes(100_000_000))}
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="Received a damaged one"):
            Sampled.from_config({"array": bomb, "seed": 1})
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_damaged_model_file_says_so_when_it_is_loaded():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, kernel_initializer=Sampled(ARRAY, 1))])
    config = model.get_config()
    config["layers"][1]["config"]["kernel_initializer"]["config"]["array"]["shape"] = [7]
    with pytest.raises((ValueError, TypeError), match="Received a damaged one"):  # Keras wraps it for some layers
        keras.Sequential.from_config(config)
