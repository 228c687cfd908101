"""Batches: formats against Pillow, fixed shape with zero-weight filling, and repeatability."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radtransfer.errors import DataError, UnknownNameError
from radtransfer.images.formats import inspect_image
from radtransfer.images.pipeline import Batches, make_batches


@dataclass(frozen=True)
class Folder:
    """Writes small images and knows how each is decoded."""

    path: Path

    def save(self, image: Image.Image, name: str, **options) -> Path:
        image.save(self.path / name, **options)
        return self.path / name


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A smooth picture with detail, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def batches_of(files: list[Path], **changed) -> Batches:
    facts = [inspect_image(file) for file in files]
    settings = {"image_size": 48, "batch_size": 4, "workers": 2} | changed
    targets = np.eye(len(files), dtype=np.float32)
    return make_batches([file.name for file in files], files, facts, targets, **settings)


def loaded(file: Path, **changed) -> np.ndarray:
    [(images, _, _)] = batches_of([file], batch_size=1, **changed).in_order()
    return images.numpy()[0]


def stretched(image: Image.Image, size: int = 48) -> np.ndarray:
    """The reference: Pillow's bilinear resize, which averages when it makes an image smaller."""
    bands = [band.convert("F") for band in image.convert("RGB").split()]
    return np.stack([band.resize((size, size), Image.Resampling.BILINEAR) for band in bands], axis=-1)


FORMATS = {
    "rgb.png": ("png8", "RGB", {}),
    "grey.png": ("png8", "L", {}),
    "alpha.png": ("png8", "RGBA", {}),
    "grey_alpha.png": ("png8", "LA", {}),
    "palette.png": ("png8", "P", {}),
    "bilevel.png": ("png8", "1", {}),
    "rgb.jpg": ("jpeg", "RGB", {"quality": 90}),
    "grey.jpg": ("jpeg", "L", {"quality": 90}),
    "progressive.jpg": ("jpeg", "RGB", {"progressive": True}),
    "cmyk.jpg": ("pillow", "CMYK", {"quality": 90}),
    "rgb.bmp": ("pillow", "RGB", {}),
    "palette.gif": ("pillow", "P", {}),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [48, 100])
def test_every_format_equals_pillow_after_the_resize(folder, name, size):
    decoder, mode, options = FORMATS[name]
    file = folder.save(Image.fromarray(picture()).convert(mode), name, **options)
    with Image.open(file) as image:
        expected = stretched(image, size)
    assert inspect_image(file).decoder == decoder
    assert np.abs(loaded(file, image_size=size) - expected).mean() < 0.5


def test_a_large_image_made_small_is_averaged_not_sampled(folder):
    stripes = np.zeros((480, 480, 3), np.uint8)
    stripes[:, ::2] = 255
    image = loaded(folder.save(Image.fromarray(stripes), "stripes.png"))
    np.testing.assert_allclose(image[:, 2:-2], 127.5, atol=8)


def test_16_bit_values_are_scaled_not_clipped(folder):
    ramp = np.broadcast_to(np.linspace(0, 65535, 48).astype(np.uint16), (48, 48))
    image = loaded(folder.save(Image.fromarray(np.ascontiguousarray(ramp)), "ramp.png"))
    np.testing.assert_allclose(image, np.repeat(ramp[..., None], 3, -1) / 257, atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(folder, orientation):
    upright = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = folder.save(upright, "turned.jpg", quality=95, exif=exif)
    with Image.open(file) as stored:
        from PIL import ImageOps

        expected = stretched(ImageOps.exif_transpose(stored))
    assert np.abs(loaded(file) - expected).mean() < 0.5


@pytest.fixture
def ten_files(folder) -> list[Path]:
    return [folder.save(Image.fromarray(picture(seed=i)), f"{i}.png") for i in range(10)]


def everything(epoch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, targets, weights = zip(*epoch, strict=True)
    return np.stack(images), np.stack(targets), np.stack(weights)


def test_every_batch_has_the_same_shape_and_every_image_counts_once(ten_files):
    images, targets, weights = everything(batches_of(ten_files).shuffled(1))
    assert images.shape == (3, 4, 48, 48, 3) and targets.shape == (3, 4, 10) and weights.shape == (3, 4)
    assert images.dtype == targets.dtype == weights.dtype == np.float32
    counted = (targets * weights[..., None]).sum(axis=(0, 1))
    np.testing.assert_array_equal(counted, np.ones(10))


def test_the_filling_is_real_images_of_weight_zero(ten_files):
    images, targets, weights = everything(batches_of(ten_files).in_order())
    np.testing.assert_array_equal(weights.ravel(), [1] * 10 + [0] * 2)
    np.testing.assert_array_equal(images[2, 2:], images[0, :2])
    np.testing.assert_array_equal(targets[2, 2:], targets[0, :2])


def test_images_and_targets_stay_together_and_in_table_order_when_not_shuffled(ten_files):
    epoch = batches_of(ten_files).in_order()
    images, targets, _ = everything(epoch)
    np.testing.assert_array_equal(targets.reshape(-1, 10)[:10], np.eye(10))
    np.testing.assert_array_equal(epoch.rows.ravel()[:10], np.arange(10))
    alone = loaded(ten_files[7])
    np.testing.assert_array_equal(images.reshape(-1, 48, 48, 3)[7], alone)


def test_chosen_rows_come_in_their_order(ten_files):
    _, targets, weights = everything(batches_of(ten_files).in_order(np.array([8, 2, 5])))
    np.testing.assert_array_equal(targets.argmax(-1)[weights == 1], [8, 2, 5])


def test_an_epoch_is_the_same_whatever_the_workers_and_the_epochs_before(ten_files):
    first = batches_of(ten_files, workers=1, augmentation="juodelyte")
    images, targets, _ = everything(first.shuffled(3, seed=7))
    other = batches_of(ten_files, workers=2, augmentation="juodelyte")
    everything(other.shuffled(1, seed=7))
    again, again_targets, _ = everything(other.shuffled(3, seed=7))
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(again_targets, targets)


def by_image(epoch) -> np.ndarray:
    images, targets, weights = everything(epoch)
    return images[weights == 1][np.argsort(targets.argmax(-1)[weights == 1])]


def test_an_image_is_varied_the_same_in_any_company(ten_files):
    all_ten = by_image(batches_of(ten_files, augmentation="fundus").shuffled(2))
    last_five = by_image(batches_of(ten_files[5:], augmentation="fundus").shuffled(2))
    np.testing.assert_array_equal(last_five, all_ten[5:])


@pytest.mark.parametrize("changed", [{"seed": 1}, {"fold": 1}])
def test_seed_and_fold_change_the_augmentation(ten_files, changed):
    one = by_image(batches_of(ten_files, augmentation="fundus").shuffled(2))
    other = by_image(batches_of(ten_files, augmentation="fundus").shuffled(2, **changed))
    assert all(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_shuffled_epochs_are_augmented(ten_files):
    plain = by_image(batches_of(ten_files).in_order())
    augmenting = batches_of(ten_files, augmentation="juodelyte")
    np.testing.assert_array_equal(by_image(augmenting.in_order()), plain)
    assert not np.array_equal(by_image(augmenting.shuffled(1)), plain)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_file_that_breaks_after_the_check_is_named(folder, suffix):
    files = [folder.save(Image.fromarray(picture(seed=i)), f"{i}.{suffix}") for i in range(9)]
    epoch = batches_of(files).in_order()
    files[6].write_bytes(files[6].read_bytes()[:300])
    seen = 0
    with pytest.raises(DataError, match=rf"Received: \S+6\.{suffix} \([^/]+\).*--on-bad-image skip"):
        for _ in epoch:
            seen += 1
    assert seen == 1


def test_a_vanished_image_is_named(ten_files):
    batches = batches_of(ten_files)
    ten_files[9].unlink()
    with pytest.raises(DataError, match=r"9\.png"):
        everything(batches.in_order())


def test_an_unknown_augmentation_is_refused_at_once(ten_files):
    with pytest.raises(UnknownNameError, match="'fundus'"):
        batches_of(ten_files, augmentation="fundos")


def test_a_new_epoch_traces_nothing(ten_files):
    batches = batches_of(ten_files, augmentation="juodelyte")
    batches.shuffled(1)
    traced = batches._augmented.experimental_get_tracing_count()
    batches.shuffled(2)
    assert batches._augmented.experimental_get_tracing_count() == traced == 1


def test_real_ultrasound_images_equal_pillow(busi):
    files = sorted((busi / "images").rglob("*.png"))[:6]
    epoch = batches_of(files, image_size=96, batch_size=6).in_order()
    [(images, _, _)] = epoch
    for image, file in zip(images.numpy(), files, strict=True):
        with Image.open(file) as stored:
            assert np.abs(image - stretched(stored, 96)).mean() < 0.5


def test_parts_of_batches_make_up_the_batches(folder):
    files = [folder.save(Image.fromarray(picture(seed=i)), f"{i}.png") for i in range(6)]
    whole = batches_of(files, augmentation="light")
    parts = [whole.part(number, 2) for number in range(2)]
    epochs = [list(batches.shuffled(1, seed=3)) for batches in (whole, *parts)]
    for batch, *of_parts in zip(*epochs, strict=True):
        for complete, *pieces in zip(batch, *of_parts, strict=True):
            np.testing.assert_array_equal(complete, np.concatenate(pieces))
