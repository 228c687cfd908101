import keras
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def exports(radtransfer, finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for kind, name in (("keras", "m.keras"), ("savedmodel", "saved")):
        assert radtransfer("export", finished_run.path, "--fold", 1, "--format", kind, "--out", folder / name).code == 0
    return folder


def extract(radtransfer, out, *arguments):
    outcome = radtransfer("extract", *arguments, "--out", out)
    assert outcome.code == 0, outcome.err
    with np.load(out) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def expected(finished_run, tiny_images):
    """What the second stage makes of each image, by its path."""
    model = keras.models.load_model(finished_run.path / "fold_1" / "model.keras", compile=False)
    network = keras.Model(model.input, model.get_layer("pool3").output)
    files = sorted((tiny_images / "images").rglob("*.png"))
    images = np.stack([np.repeat(np.asarray(Image.open(file), np.float32)[..., None], 3, -1) for file in files])
    return dict(zip(map(str, files), network.predict(images, verbose=0), strict=True))


@pytest.mark.parametrize("model", ["run", "m.keras", "saved"])
@pytest.mark.parametrize("pool", ["avg", "none"])
def test_a_stage_gives_the_features_of_its_last_layer(
    radtransfer, finished_run, exports, tiny_images, tmp_path, expected, model, pool
):
    path = finished_run.path / "fold_1" if model == "run" else exports / model
    arguments = (path, tiny_images / "images", "--layer", "stage2", "--pool", pool)
    found = extract(radtransfer, tmp_path / "f.npz", *arguments)
    assert found["layer"] == "pool3"
    assert len(found["paths"]) == 48
    maps = np.stack([expected[name] for name in found["paths"].tolist()])
    assert found["features"] == pytest.approx(maps if pool == "none" else maps.mean(axis=(1, 2)), abs=1e-4)
    assert np.ptp(maps, axis=0).max() > 0.01


def test_a_layer_can_be_named_itself(radtransfer, finished_run, tiny_images, tmp_path, expected):
    arguments = (finished_run.path, tiny_images / "images", "--fold", 1, "--layer", "pool3")
    found = extract(radtransfer, tmp_path / "f.npz", *arguments)
    assert found["features"][0] == pytest.approx(expected[found["paths"][0]].mean(axis=(0, 1)), abs=1e-4)


def test_a_parquet_file_has_a_row_per_image(radtransfer, finished_run, tiny_images, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "f.parquet"
    outcome = radtransfer(
        "extract", finished_run.path / "fold_1", tiny_images / "images", "--layer", "stem", "--out", out
    )
    assert outcome.code == 0, outcome.err
    assert f"{out}  48 images  layer pool1  32 features" in outcome.out
    assert pq.read_table(out).num_rows == 48


def test_unreadable_images_are_left_out_and_listed(radtransfer, finished_run, tiny_images, tmp_path):
    good = sorted((tiny_images / "images" / "sick").iterdir())[0]
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    out = tmp_path / "f.npz"
    outcome = radtransfer(
        "extract", finished_run.path / "fold_1", good, tmp_path / "bad.png", "--layer", "stem", "--out", out
    )
    assert outcome.code == 3
    assert f"unreadable: {tmp_path / 'bad.png'}" in outcome.err
    with np.load(out) as found:
        assert found["paths"].tolist() == [str(good)]


@pytest.mark.parametrize(
    ("layer", "out", "words"),
    [
        ("stag2", "f.npz", ("Unknown stage or layer 'stag2'", "stage2")),
        ("stage2", "f.csv", (".npz or .parquet",)),
    ],
)
@pytest.mark.parametrize("model", ["m.keras", "saved"])
def test_wrong_names_are_one_message(radtransfer, exports, tiny_images, tmp_path, model, layer, out, words):
    outcome = radtransfer("extract", exports / model, tiny_images / "images", "--layer", layer, "--out", tmp_path / out)
    assert (outcome.code, outcome.out) == (2, "")
    assert all(word in outcome.err for word in words)
    assert list(tmp_path.iterdir()) == []


def test_several_folds_have_no_common_features(radtransfer, finished_run, tiny_images, tmp_path):
    arguments = (finished_run.path, tiny_images / "images", "--layer", "stage2", "--out", tmp_path / "f.npz")
    outcome = radtransfer("extract", *arguments)
    assert outcome.code == 2
    assert "Choose one with --fold" in outcome.err
