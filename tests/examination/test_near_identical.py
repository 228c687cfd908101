"""Nearly the same image in two files: what is found, and that all pairs are."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from radtransfer.data.image_check import CORRELATION, miniature, near_identical


def photograph(seed):
    """A grey image like no other: coarse and fine structures."""
    rng = np.random.default_rng(seed)
    fine = Image.fromarray(rng.integers(0, 256, (160, 200), np.uint8)).filter(ImageFilter.GaussianBlur(2))
    coarse = Image.fromarray(rng.integers(0, 256, (8, 10), np.uint8)).resize((200, 160), Image.Resampling.BICUBIC)
    return Image.blend(coarse, fine, 0.3)


def stored(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file)


def noisy(image):
    return Image.fromarray(np.clip(np.random.default_rng(9).normal(image, 10), 0, 255).astype(np.uint8))


FOUND = {
    "smaller": lambda image: image.resize((100, 80), Image.Resampling.LANCZOS),
    "another shape": lambda image: image.resize((300, 90)),
    "a JPEG of low quality": stored,
    "brighter": lambda image: image.point(lambda value: value * 0.8 + 40),
    "another gamma": lambda image: image.point(lambda value: 255 * (value / 255) ** 0.7),
    "noise": noisy,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}
NOT_FOUND = {
    "cropped by 5 %": lambda image: image.crop((10, 8, 190, 152)),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "a negative": lambda image: image.point(lambda value: 255 - value),
}


def small(image):
    return miniature(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", [*FOUND, *NOT_FOUND])
def test_copies_are_found_as_the_documentation_says(name):
    others = [small(photograph(seed)) for seed in range(1, 20)]
    copy = small((FOUND | NOT_FOUND)[name](photograph(0)))
    assert near_identical([small(photograph(0)), *others, copy]) == ([[0, 20]] if name in FOUND else [])


def test_deep_images_are_found_whatever_the_range_of_their_values():
    grey = np.asarray(photograph(0), "float32")[..., None].repeat(3, axis=2)
    assert near_identical(
        [small(photograph(0)), miniature(grey * 16 + 3), miniature((grey * 9).astype(np.uint16))]
    ) == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_the_sets_are_those_that_comparing_each_with_each_finds(seed):
    rng = np.random.default_rng(seed)
    bases = rng.integers(60, 190, (40, 64, 64))
    images = bases[rng.integers(0, 40, 700)] + rng.normal(0, 1, (700, 64, 64)) * rng.choice([2, 7, 30], (700, 1, 1))
    images[::3] = images[::3, :, ::-1]
    images = np.clip(images, 0, 255).astype(np.uint8)
    flat = images.reshape(700, -1) - images.mean(axis=(1, 2))[:, None]
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    near = np.maximum(flat @ flat.T, flat @ flat.reshape(700, 64, 64)[:, :, ::-1].reshape(700, -1).T) >= CORRELATION
    sets = np.arange(700)
    for one, other in zip(*np.nonzero(near), strict=True):
        sets[sets == sets[other]] = sets[one]
    expected = [np.flatnonzero(sets == number).tolist() for number in set(sets.tolist()) if (sets == number).sum() > 1]
    assert near_identical(list(images)) == sorted(expected)


def test_images_without_content_are_like_none():
    flat = [miniature(np.full((30, 30, 3), value, np.uint8)) for value in (0, 7, 255)]
    assert flat == [None, None, None] == [miniature(np.zeros((9, 9, 3), "float32"))] * 3
    assert near_identical([*flat, small(photograph(0))]) == []


def test_thousands_of_equal_images_are_one_set():
    assert near_identical([small(photograph(0))] * 3000) == [list(range(3000))]
