"""Images as tensors: against a full decoding with an antialiased resize, in every way of framing and storing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data.image_check import examine_images
from radtransfer.data.synthetic import fundus_image, patient_appearance
from radtransfer.errors import BadImageError
from radtransfer.images.decode import ImageSource
from radtransfer.images.formats import inspect_image
from radtransfer.images.refs import FilePart


def source(*places, size=128, **reading) -> ImageSource:
    settings = ImageSettings(**reading)
    return ImageSource(places, examine_images(places, settings), image_size=size, reading=settings)


def averaged(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The reference: everything decoded, then Pillow's bilinear resize, which averages where it makes smaller."""
    bands = [band.convert("F") for band in image.convert("RGB").split()]
    return np.stack([band.resize(size, Image.Resampling.BILINEAR) for band in bands], axis=-1)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A sharp drawn fundus photograph of 1500×1400 pixels with lesions of a few pixels."""
    rng = np.random.default_rng(0)
    drawn = Image.fromarray(fundus_image(rng, patient_appearance(rng), grade=4, size=750))
    pixels = np.asarray(drawn.resize((1500, 1400), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


@pytest.fixture
def jpeg(photograph, tmp_path) -> Path:
    photograph.save(tmp_path / "photograph.jpg", quality=92)
    return tmp_path / "photograph.jpg"


@pytest.mark.parametrize("size", [96, 175, 224, 587, 700, 1600])
def test_scaled_decoding_is_close_to_a_full_one(jpeg, size):
    with Image.open(jpeg) as image:
        expected = averaged(image, (size, size))
    assert np.abs(source(jpeg, size=size).image(0).numpy() - expected).mean() < 1.5


@pytest.mark.parametrize(("width", "height"), [(1001, 1001), (1003, 1005), (517, 301), (1497, 1401)])
@pytest.mark.parametrize("size", [40, 96, 175])
def test_sides_that_are_no_multiple_of_the_scale_lose_nothing(photograph, tmp_path, width, height, size):
    photograph.resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / "odd.jpg", quality=92)
    with Image.open(tmp_path / "odd.jpg") as image:
        expected = averaged(image, (size, size))
    assert np.abs(source(tmp_path / "odd.jpg", size=size).image(0).numpy() - expected).mean() < 0.8


def test_a_part_that_begins_within_a_pixel_of_the_decoding_is_the_right_one(jpeg):
    box = (30, 21, 1330, 1321)
    with Image.open(jpeg) as image:
        expected = averaged(image.crop(box), (100, 100))
    facts = replace(inspect_image(jpeg), disc=(21, 30, 1300, 1300))
    found = ImageSource([jpeg], [facts], image_size=100, reading=ImageSettings()).image(0).numpy()
    assert np.abs(found - expected).mean() < 0.8


def test_a_lesion_of_a_few_pixels_is_averaged_not_skipped(tmp_path):
    pixels = np.full((1600, 1600, 3), 100, np.uint8)
    for row, column in np.ndindex(3, 3):
        pixels[row + 5 :: 16, column + 5 :: 16] = 255
    Image.fromarray(pixels).save(tmp_path / "dots.jpg", quality=98, subsampling=0)
    image = source(tmp_path / "dots.jpg", size=100).image(0).numpy()
    np.testing.assert_allclose(image.mean(), pixels.mean(), atol=0.6)
    assert image.std() < 1.5


def test_a_crop_is_the_central_square(jpeg):
    with Image.open(jpeg) as image:
        expected = averaged(image.crop((50, 0, 1450, 1400)), (128, 128))
    assert np.abs(source(jpeg, aspect="crop").image(0).numpy() - expected).mean() < 1.5


def test_padding_leaves_black_bars_of_equal_height(jpeg):
    image = source(jpeg, aspect="pad").image(0).numpy()
    rows = round(128 * 1400 / 1500)
    top = (128 - rows) // 2
    with Image.open(jpeg) as stored:
        expected = averaged(stored, (128, rows))
    assert np.abs(image[top : top + rows] - expected).mean() < 1.5
    assert not image[:top].any() and not image[top + rows :].any()


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turning_after_the_resize_is_turning_before_it(photograph, tmp_path, aspect, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = photograph.resize((300, 200))
    small.save(tmp_path / "turned.png", exif=exif)
    turn = {
        1: lambda image: image,
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_270),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    turn(small).save(tmp_path / "upright.png")
    turned, upright = source(tmp_path / "turned.png", tmp_path / "upright.png", size=64, aspect=aspect), None
    upright = turned.image(1).numpy()
    np.testing.assert_allclose(turned.image(0).numpy(), upright, atol=1.0)


def test_a_fundus_crop_fills_the_square_with_the_disc(tmp_path):
    rows, columns = np.mgrid[:1200, :1800]
    disc = (rows - 600) ** 2 + (columns - 1000) ** 2 <= 500**2
    Image.fromarray(np.where(disc, 160, 4).astype(np.uint8)).convert("RGB").save(tmp_path / "eye.jpg", quality=95)
    image = source(tmp_path / "eye.jpg", size=100, fundus_crop=True).image(0).numpy()[..., 0]
    middle = image[50] > 80
    assert middle[:4].any() and middle[-4:].any()
    assert abs((image > 80).mean() - np.pi / 4) < 0.05


def test_images_of_8_bits_are_whole_numbers(jpeg):
    image = source(jpeg, size=100).image(0).numpy()
    np.testing.assert_array_equal(image, np.round(image))
    assert not source(jpeg).deep


def test_images_of_16_bits_keep_their_fractions(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (256, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    images = source(tmp_path / "ramp.png", size=64)
    assert images.deep
    assert np.abs(images.image(0).numpy() - np.round(images.image(0).numpy())).max() > 0.2


def part_of(path: Path, encoded: bytes, **facts) -> FilePart:
    """`encoded` somewhere inside a larger file."""
    path.write_bytes(b"before" + encoded + b"after")
    return FilePart(path, offset=6, length=len(encoded), **facts)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_an_image_inside_a_larger_file_is_the_image(photograph, tmp_path, suffix):
    alone = tmp_path / f"alone{suffix}"
    photograph.resize((90, 80)).save(alone)
    images = source(alone, part_of(tmp_path / "shard", alone.read_bytes()), size=64)
    np.testing.assert_array_equal(images.image(0), images.image(1))


def test_plain_pixels_are_read_as_they_stand(photograph, tmp_path):
    pixels = np.asarray(photograph.resize((40, 40)))
    images = source(part_of(tmp_path / "shard", pixels.tobytes(), pixels=(40, 40)), size=40)
    np.testing.assert_array_equal(images.image(0), pixels)


def test_a_shard_that_ends_too_early_is_an_error_that_names_it(photograph, tmp_path):
    pixels = np.asarray(photograph.resize((40, 40)))
    place = part_of(tmp_path / "shard", pixels.tobytes(), pixels=(40, 40))
    (tmp_path / "shard").write_bytes((tmp_path / "shard").read_bytes()[:100])
    with pytest.raises(Exception, match="shard.*the file ends before it"):
        source(place, size=40).image(0)


def test_a_frame_of_an_animation_is_an_image(tmp_path):
    frames = [Image.new("L", (20, 20), value) for value in (10, 120, 240)]
    frames[0].save(tmp_path / "moving.tif", save_all=True, append_images=frames[1:])
    places = [FilePart(tmp_path / "moving.tif", frame=number) for number in range(3)]
    assert [float(source(*places, size=20).image(row).numpy().mean()) for row in range(3)] == [10, 120, 240]


def test_a_frame_that_is_not_there_is_a_bad_image(tmp_path):
    Image.new("L", (20, 20), 7).save(tmp_path / "still.tif")
    place = FilePart(tmp_path / "still.tif", frame=4)
    with pytest.raises(BadImageError, match="frame 5"):
        examine_images([place], ImageSettings(fundus_crop=True))


def test_the_fingerprint_follows_file_size_and_reading(jpeg):
    prints = {
        source(jpeg).fingerprint(0),
        source(jpeg, size=64).fingerprint(0),
        source(jpeg, aspect="pad").fingerprint(0),
    }
    assert len(prints) == 3
    assert source(jpeg).fingerprint(0) in prints
    assert inspect_image(jpeg).decoder == "jpeg"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("auto", [1000 / 257, 3000 / 257, 5000 / 257]),
        ("minmax", [0, 127.5, 255]),
        ("4000,4000", [0, 63.75, 191.25]),
        ("1000,1000", [127.5, 255, 255]),
    ],
)
def test_a_window_says_which_16_bit_values_become_black_and_white(tmp_path, suffix, window, expected):
    pixels = np.repeat(np.array([[1000], [3000], [5000]], np.uint16), 3, axis=1)
    Image.fromarray(pixels).save(tmp_path / f"deep{suffix}")
    image = source(tmp_path / f"deep{suffix}", size=3, window=window).image(0).numpy()
    np.testing.assert_allclose(image[:, 0, 0], expected, atol=0.01)


def test_values_of_32_bits_are_seen_from_the_smallest_to_the_largest(tmp_path):
    Image.fromarray(np.array([[-100, 0], [100_000, 200_000]], np.int32)).save(tmp_path / "deep.tif")
    image = source(tmp_path / "deep.tif", size=2).image(0).numpy()[..., 0]
    np.testing.assert_allclose(image, [[0, 0.127], [127.56, 255]], atol=0.01)


def test_floats_are_taken_as_they_are_or_through_the_window(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5], [1.0, 200.0]], np.float32)).save(tmp_path / "deep.tif")
    np.testing.assert_allclose(source(tmp_path / "deep.tif", size=2).image(0)[..., 0], [[0, 0.5], [1, 200]])
    windowed = source(tmp_path / "deep.tif", size=2, window="0.5,1").image(0)[..., 0]
    np.testing.assert_allclose(windowed, [[0, 127.5], [255, 255]])
