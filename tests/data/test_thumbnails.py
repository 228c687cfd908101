"""Small pictures of sound and of damaged images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from radtransfer.data.pictures import SIDE, thumbnail
from radtransfer.images.formats import inspect_image

RAMP = np.repeat(np.linspace(50, 250, 300).astype(np.uint8)[:, None], 200, axis=1)


def picture(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))


def test_a_thumbnail_keeps_the_shape_and_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=exif)
    found = picture(thumbnail(tmp_path / "a.jpg", inspect_image(tmp_path / "a.jpg")))
    assert found.shape == (SIDE * 2 // 3, SIDE)
    assert found[:, 0].mean() > found[:, -1].mean() + 100


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "a.png")
    found = picture(thumbnail(tmp_path / "a.png", inspect_image(tmp_path / "a.png")))
    assert found[0].mean() == pytest.approx(50, abs=4) and found[-1].mean() == pytest.approx(250, abs=4)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_of_a_truncated_image_the_beginning_is_shown(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 40, RAMP.shape, np.uint8)
    Image.fromarray(RAMP - noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    found = picture(thumbnail(tmp_path / name, None))
    assert found[5].mean() == pytest.approx(35, abs=15)
    assert found[-5:].mean() < 5 or found[-5:].std() < 5


def test_nothing_is_shown_of_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert thumbnail(tmp_path / "a.png", None) is None
    assert thumbnail(tmp_path / "none.png", None) is None
    assert thumbnail(None, None) is None
