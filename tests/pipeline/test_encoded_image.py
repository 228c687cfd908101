import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data.image_check import examine_images
from radtransfer.images.decode import ImageSource, can_read_encoded, encoded_image, exif_orientation

SIZE = 32
SIZES = ((21, 50), (32, 32), (200, 90), (301, 257), (64, 65), (1203, 987))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """JPEGs and PNGs in grey and colour, of 8 and 16 bits, with a palette, of all orientations."""
    folder, rng = tmp_path_factory.mktemp("encoded"), np.random.default_rng(0)
    files = []
    for number, (width, height) in enumerate(SIZES):
        coarse = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        pixels = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 2
        image = Image.fromarray(pixels)
        image.save(folder / f"{number}.jpg", quality=90, exif=exif)
        image.convert("L").save(folder / f"{number}_grey.jpg")
        image.save(folder / f"{number}.png", exif=exif)
        image.quantize(16).save(folder / f"{number}_palette.png")
        image.convert("RGBA").save(folder / f"{number}_alpha.png")
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 200 + 300).save(folder / f"{number}_deep.png")
    files += sorted(folder.iterdir())
    return files


def reader(reading):
    return tf.function(
        lambda contents: encoded_image(contents, image_size=SIZE, reading=reading),
        input_signature=[tf.TensorSpec((), tf.string)],
    )


@pytest.mark.parametrize(
    ("aspect", "window"), [("stretch", "auto"), ("pad", "minmax"), ("crop", "9000,12000"), ("stretch", "minmax")]
)
def test_the_graph_gives_the_pixels_of_training(files, aspect, window):
    reading = ImageSettings(aspect=aspect, window=window)
    source, read = ImageSource(files, examine_images(files, reading), image_size=SIZE, reading=reading), reader(reading)
    for row, file in enumerate(files):
        np.testing.assert_array_equal(read(file.read_bytes()), source.image(row), err_msg=file.name)


@pytest.mark.parametrize(("make", "words"), [("gif", "encoded JPEG or PNG"), ("cmyk", "CMYK")])
def test_other_formats_are_refused_with_the_reason(tmp_path, make, words):
    image = Image.new("RGB", (40, 40))
    image = image.convert("CMYK") if make == "cmyk" else image
    image.save(tmp_path / "image", "JPEG" if make == "cmyk" else "GIF")
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        reader(ImageSettings())((tmp_path / "image").read_bytes())


def test_a_truncated_file_is_refused(files):
    with pytest.raises(tf.errors.InvalidArgumentError):
        reader(ImageSettings())(files[0].read_bytes()[:200])


def test_the_disc_of_a_retina_is_not_looked_for_in_a_graph():
    assert can_read_encoded(ImageSettings())
    assert not can_read_encoded(ImageSettings(fundus_crop=True))


def jpeg_with(exif):
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + b"\xff\xda"


def directory(order, kind, value, *, entries=1, offset=8):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    packed = struct.pack(order + ("HH" if kind == 3 else "I"), *value)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + packed
    return mark + struct.pack(order + "IH", offset, entries) + entry


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "value", "expected"), [(3, (6, 0), 6), (4, (8,), 8), (3, (9, 0), 1), (3, (0, 0), 1), (2, (6,), 1)]
)
def test_the_orientation_is_read_in_both_orders_of_bytes(order, kind, value, expected):
    assert int(exif_orientation(jpeg_with(directory(order, kind, value)))) == expected


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", directory("<", 3, (6, 0), offset=10**9), directory("<", 3, (6, 0), entries=0), b"\xff" * 40]
)
def test_damaged_exif_turns_nothing(exif):
    assert int(exif_orientation(jpeg_with(exif))) == 1


def test_exif_behind_the_pixels_of_a_png_counts_as_little_as_in_training():
    chunk = b"eXIf" + directory("<", 3, (6, 0))
    start = b"\x89PNG\r\n\x1a\n" + b"\0" * 25
    assert int(exif_orientation(start + chunk + b"IDAT")) == 6
    assert int(exif_orientation(start + b"IDAT" + chunk)) == 1
