"""Kept images: bit by bit those that are decoded anew, and made once."""

import numpy as np
import pytest
from PIL import Image

from radtransfer.errors import ConfigError, DiskError
from radtransfer.images import pipeline as kept_images
from radtransfer.images.formats import inspect_image
from radtransfer.images.pipeline import cache_images, make_batches


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for number in range(7):
        made.append(tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(made[-1])
    return made


def batches_of(files, **changed):
    facts = [inspect_image(file) for file in files]
    settings = {"image_size": 32, "batch_size": 3, "workers": 2} | changed
    names = [file.name for file in files]
    return make_batches(names, files, facts, np.eye(len(files), dtype=np.float32), **settings)


def everything(epoch):
    return [np.stack(part) for part in zip(*epoch, strict=True)]


@pytest.mark.parametrize("where", ["ram", "disk"])
@pytest.mark.parametrize("augmentation", ["none", "fundus"])
def test_they_are_bit_by_bit_those_that_are_decoded_anew(files, where, augmentation):
    batches = batches_of(files, augmentation=augmentation)
    kept = cache_images(batches, where, count=lambda *_: None)
    for mine, its in zip(everything(kept.shuffled(2)), everything(batches.shuffled(2)), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_16_bits_keep_their_fractions(tmp_path, where):
    Image.fromarray(np.tile(np.arange(0, 65536, 64, dtype=np.uint16), (50, 1))).save(tmp_path / "ramp.png")
    batches = batches_of([tmp_path / "ramp.png"] * 2)
    kept = cache_images(batches, where, count=lambda *_: None)
    np.testing.assert_array_equal(everything(kept.in_order())[0], everything(batches.in_order())[0])


def test_images_are_not_decoded_again(files):
    kept = cache_images(batches_of(files), "ram", count=lambda *_: None)
    before = everything(kept.in_order())[0]
    for file in files:
        file.unlink()
    np.testing.assert_array_equal(everything(kept.in_order())[0], before)


def test_another_run_finds_them_on_disk_and_a_changed_image_is_decoded_anew(files, cache):
    heard = []
    cache_images(batches_of(files), "disk", count=lambda *done: heard.append(done))
    assert heard[-1] == (7, 7)
    cache_images(batches_of(files), "disk", count=lambda *_: pytest.fail("decoded again"))
    Image.new("RGB", (9, 9)).save(files[0])
    cache_images(batches_of(files), "disk", count=lambda *_: None)
    cache_images(batches_of(files, image_size=16), "disk", count=lambda *_: None)
    assert len(list((cache / "images").iterdir())) == 3


def test_a_cache_that_others_wrote_and_nobody_may_touch_is_read(files, monkeypatch):
    cache_images(batches_of(files), "disk", count=lambda *_: None)

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    cache_images(batches_of(files), "disk", count=lambda *_: pytest.fail("decoded again"))


def test_too_little_memory_is_said_before_anything_is_decoded(files, monkeypatch):
    monkeypatch.setattr(kept_images, "_free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"need 0\.0 GB.*--cache disk"):
        cache_images(batches_of(files), "ram", count=lambda *_: pytest.fail("decoded"))


def test_a_cache_that_cannot_be_written_is_named(files, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(files[0]))
    with pytest.raises(DiskError, match=r"decoded images cannot be cached in .*--cache none"):
        cache_images(batches_of(files), "disk", count=lambda *_: None)
