"""Reading weight files, and saying what a file is that holds none."""

import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from radtransfer.errors import WeightsError
from radtransfer.pretrained.read import read_weight_file, sha256_of


def small_model() -> keras.Model:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(image)
    x = keras.layers.BatchNormalization(name="second")(x)
    x = keras.layers.Dropout(0.5, name="third")(x)
    return keras.Model(image, x, name="small")


def nested_model() -> keras.Model:
    head = [keras.layers.Flatten(), keras.layers.Dense(2, name="head")]
    return keras.Sequential([keras.Input((8, 8, 3)), small_model(), *head])


def legacy_file(path: Path, layers: dict[str, dict[str, np.ndarray]]) -> Path:
    """A legacy file of top-level groups, each with its weights by path."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = list(layers)
        for name, weights in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = list(weights)
            for weight, array in weights.items():
                group[weight] = array
    return path


def zip_holding(name: str, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    return path


def message(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weight_file(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "expected"), [("weights.h5", "weights_h5"), ("keras", "keras_archive"), ("h5", "legacy_h5")]
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_format_is_told_by_content_and_not_by_suffix(suffix, expected, tmp_path):
    model, path = small_model(), tmp_path / f"model.{suffix}"
    (model.save_weights if suffix == "weights.h5" else model.save)(path)
    file = read_weight_file(path.rename(tmp_path / "anything.txt"))
    assert file.format == expected
    arrays = {layer.name: layer.arrays for layer in file.layers}
    assert set(arrays) == {"first", "second"}
    np.testing.assert_array_equal(next(iter(arrays["first"].values())), model.get_layer("first").kernel)


def test_layers_of_a_sub_model_stand_in_its_part(tmp_path):
    nested_model().save(tmp_path / "model.keras")
    file = read_weight_file(tmp_path / "model.keras")
    assert {(layer.part, layer.name) for layer in file.layers} == {
        ("functional", "first"),
        ("functional", "second"),
        ("", "head"),
    }
    assert file.parameters == nested_model().count_params()


def test_states_of_random_generators_are_not_weights(tmp_path):
    small_model().save_weights(tmp_path / "model.weights.h5")
    assert {layer.name for layer in read_weight_file(tmp_path / "model.weights.h5").layers} == {"first", "second"}


def test_names_split_over_several_attributes_are_joined(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {name: {f"{name}/kernel:0": np.ones(3)} for name in "abc"})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = ["a", "b"], ["c"]
    assert [layer.name for layer in read_weight_file(path).layers] == ["a", "b", "c"]


def test_a_layer_whose_weights_tensorflow_numbered_anew_keeps_its_own_name(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {"conv2d_1": {"conv2d_1_2/kernel:0": np.ones(3)}})
    assert [layer.name for layer in read_weight_file(path).layers] == ["conv2d_1"]


def test_half_precision_becomes_float32(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {"a": {"a/kernel:0": np.ones(3, "float16")}})
    assert read_weight_file(path).layers[0].arrays["kernel"].dtype == np.float32


def test_bfloat16_becomes_float32(tmp_path):
    layer = keras.layers.Dense(2, dtype="bfloat16", name="head")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save_weights(tmp_path / "x.weights.h5")
    kernel = read_weight_file(tmp_path / "x.weights.h5").layers[0].arrays["0"]
    np.testing.assert_array_equal(kernel, np.asarray(layer.kernel.value).astype("float32"))


def test_the_hash_is_the_files(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_an_empty_file_is_named_as_such(tmp_path):
    (tmp_path / "x.h5").touch()
    assert "is empty (0 bytes)" in message(tmp_path / "x.h5")


@pytest.mark.parametrize("beginning", ["<!DOCTYPE html><html>", "\n <html lang='en'>", "<!-- page --><HTML>"])
def test_an_html_page_is_blamed_on_google_drive(beginning, tmp_path):
    (tmp_path / "x.h5").write_text(beginning + "virus scan" * 300)
    assert "is an HTML page, not HDF5" in message(tmp_path / "x.h5")
    assert "(3 kB). Google Drive" in message(tmp_path / "x.h5")


def test_a_git_lfs_pointer_says_how_to_pull(tmp_path):
    (tmp_path / "x.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 94765736\n")
    assert 'Run "git lfs pull"' in message(tmp_path / "x.h5")


def test_a_truncated_hdf5_file_tells_both_sizes(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {"a": {"a/kernel:0": np.ones(700_000, "float32")}})
    path.write_bytes(path.read_bytes()[:1_400_000])
    assert "truncated (1.4 of 2.8 MB)" in message(path)


def test_a_truncated_archive_is_named_as_such(tmp_path):
    small_model().save(tmp_path / "x.keras")
    (tmp_path / "x.keras").write_bytes((tmp_path / "x.keras").read_bytes()[:-100])
    assert "truncated" in message(tmp_path / "x.keras")


def test_a_corrupted_archive_is_damaged(tmp_path):
    path = tmp_path / "x.keras"
    small_model().save(path)
    content = bytearray(path.read_bytes())
    middle = content.index(b"\x89HDF") + 600
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    assert "damaged" in message(path)


def test_a_zip_of_weight_files_says_what_to_unpack(tmp_path):
    path = zip_holding("RadImageNet_models/RadImageNet-IRV2_notop.h5", tmp_path / "x.zip")
    assert "holds RadImageNet_models/RadImageNet-IRV2_notop.h5. Unpack it" in message(path)


def test_another_zip_is_not_a_keras_file(tmp_path):
    path = zip_holding("readme.txt", tmp_path / "x.keras")
    assert "zip but not a .keras file (it holds readme.txt)" in message(path)


def test_a_pytorch_file_is_to_be_converted(tmp_path):
    path = zip_holding("archive/data.pkl", tmp_path / "x.pt")
    assert "radtransfer weights convert" in message(path)


def test_a_tar_of_early_pytorch_is_never_opened(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar" + bytes(300))
    assert "is a tar as written by PyTorch before 0.2, which is never opened" in message(tmp_path / "x.pth")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "x.pth").write_bytes(pickle.dumps(Trap()))
    assert "never opened" in message(tmp_path / "x.pth")
    assert not (tmp_path / "executed").exists()


def test_a_compressed_file_is_to_be_unpacked(tmp_path):
    (tmp_path / "x.h5.gz").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    assert "Unpack it first" in message(tmp_path / "x.h5.gz")


def test_any_other_file_is_shown_by_its_beginning(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"GIF89a...")
    assert "is not a weights file: it begins with 'GIF89a" in message(tmp_path / "x.h5")


def test_hdf5_without_weights_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert "holds no Keras weights (it holds images)" in message(tmp_path / "x.h5")


def test_a_model_saved_without_weights_says_so(tmp_path):
    assert "without any weights" in message(legacy_file(tmp_path / "x.h5", {"input_1": {}}))


def test_a_missing_array_is_damage(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {"a": {"a/kernel:0": np.ones(3)}})
    with h5py.File(path, "a") as file:
        del file["a/a/kernel:0"]
    assert "damaged" in message(path)


def test_a_size_that_cannot_be_true_is_refused_before_it_is_allocated(tmp_path):
    path = legacy_file(tmp_path / "x.h5", {"a": {}})
    with h5py.File(path, "a") as file:
        file["a"].create_dataset("kernel", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="float32")
        file["a"].attrs["weight_names"] = ["kernel"]
    assert "declares 4,000,000 MB of weights" in message(path)


def test_an_archive_that_expands_without_measure_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(200_000_000))
    assert "declares 200 MB" in message(tmp_path / "x.keras")


def test_weights_stored_in_another_file_are_refused(tmp_path):
    np.ones(3, "float32").tofile(tmp_path / "secret")
    path = legacy_file(tmp_path / "x.h5", {"a": {}})
    with h5py.File(path, "a") as file:
        file["a"].create_dataset("kernel", (3,), "float32", external=[(str(tmp_path / "secret"), 0, 12)])
        file["a"].attrs["weight_names"] = ["kernel"]
    assert "refers to another file" in message(path)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "a/a/kernel:0"), h5py.SoftLink("/layers/b")])
def test_links_are_refused(link, tmp_path):
    legacy_file(tmp_path / "other.h5", {"a": {"a/kernel:0": np.ones(3)}})
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file.create_group("layers")["a"] = link
    assert "holds a link" in message(tmp_path / "x.weights.h5")


def test_an_external_link_in_a_legacy_file_is_refused(tmp_path):
    legacy_file(tmp_path / "other.h5", {"a": {"a/kernel:0": np.ones(3)}})
    path = legacy_file(tmp_path / "x.h5", {"a": {}})
    with h5py.File(path, "a") as file:
        file["a"]["kernel"] = h5py.ExternalLink("other.h5", "a/a/kernel:0")
        file["a"].attrs["weight_names"] = ["kernel"]
    assert "refers to another file" in message(path)


def nested(file, count):
    group = file.create_group("layers")
    for _ in range(count):
        group = group.create_group("layers")


def doubled(file, count):
    """Of which each group holds the next one twice: 2 ** count places."""
    group = file.create_group("layers")
    for _ in range(count):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


@pytest.mark.parametrize("make", [nested, doubled])
@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_groups_that_would_be_walked_over_for_ever_are_refused_before_they_are(tmp_path, make, suffix):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        make(file, 3000 if make is nested else 40)
    path = tmp_path / f"x.{suffix}"
    if suffix == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.write(tmp_path / "x.weights.h5", "model.weights.h5")
    assert "nests its groups without end, or has one in two places" in message(path)


def test_a_dataset_with_two_names_is_read_under_both(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/a/vars/0"] = np.ones(3, "float32")
        file.create_group("layers/b/vars")["0"] = file["layers/a/vars/0"]
    assert [layer.name for layer in read_weight_file(path).layers] == ["a", "b"]


def test_groups_without_end_are_refused(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        group = file.create_group("layers/a")
        group["again"] = file["layers"]
    assert "without end" in message(tmp_path / "x.weights.h5")


def test_any_damage_is_a_weights_error(tmp_path):
    """Bytes of a valid file are overwritten at random; whatever h5py makes of it, no other error escapes."""
    messages = []
    path = tmp_path / "x.weights.h5"
    small_model().save_weights(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for position in rng.integers(0, len(whole), 40):
            broken[position] = rng.integers(256)
        path.write_bytes(broken)
        try:
            read_weight_file(path)
        except WeightsError as error:
            messages.append(str(error))
    assert messages, "nothing was damaged"
