"""Every backbone in every format, at small size, predicts what it predicted."""

from pathlib import Path

import keras
import numpy as np
import pytest

from radtransfer.exports.formats import EXPORT_FORMATS, Exportable
from radtransfer.exports.write import LARGEST_DIFFERENCE, Samples, predict_elsewhere
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier

METADATA = {"classes": ["a | b", "größer", "c"], "operating_point": {"threshold": 0.25}}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Name to a built network, its file, images and probabilities; each is built once."""
    made = {}

    def build(name):
        if name not in made:
            keras.utils.set_random_seed(0)
            card, folder = BACKBONES[name], tmp_path_factory.mktemp(name)
            model = build_classifier(
                card,
                classes=3,
                image_size=max(card.minimum_size, 48),
                activation="softmax",
                dropout=0.5,
                preprocessing=card.preprocessing,
            ).model
            images = np.random.default_rng(0).uniform(64, 192, (4, *model.input_shape[1:])).astype(np.float32)
            model.save(folder / "model.keras")
            made[name] = model, folder / "model.keras", images, model.predict(images, verbose=0)
        return made[name]

    return build


def check(networks, name, format, folder: Path):
    kind = EXPORT_FORMATS[format]
    for package in kind.needs:
        pytest.importorskip(package)
    model, original, images, expected = networks(name)
    path = folder / f"export{kind.suffix}"
    kind.write(Exportable(model, METADATA), path)
    found, _ = predict_elsewhere(kind, path, original, Samples(images, [], [], 0))
    assert np.abs(found - expected).max() <= LARGEST_DIFFERENCE
    assert np.ptp(expected) > 10 * LARGEST_DIFFERENCE
    assert kind.read_metadata(path) == METADATA


@pytest.mark.parametrize("format", list(EXPORT_FORMATS))
@pytest.mark.parametrize("name", ["cbr_tiny", "composite"])
def test_a_small_network_survives_every_format(networks, name, format, tmp_path):
    check(networks, name, format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", list(EXPORT_FORMATS))
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "cbr_tiny"])
def test_every_backbone_survives_every_format(networks, name, format, tmp_path):
    check(networks, name, format, tmp_path)
