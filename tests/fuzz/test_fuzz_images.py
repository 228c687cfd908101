import io
import struct
import zlib
from functools import cache

import numpy as np
import pytest
from dicom_files import dicom
from fuzzing import ASKED, answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiff_files import LZW, MINISWHITE, RGB, page, tiff

from radtransfer.config.schema import ImageSettings
from radtransfer.data.image_check import examine_image, read_pixels
from radtransfer.errors import BadImageError
from radtransfer.images.files import BEGINNINGS
from radtransfer.images.formats import PIXEL_LIMIT, inspect_image

SUFFIXES = (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm", ".dcm", ".csv", "")


def saved(image, format, **options):
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


@cache
def images():
    """An image of every kind that is read, by name."""
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (17, 23), np.uint8))
    colour = Image.fromarray(rng.integers(0, 255, (17, 23, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65535, (17, 23), np.uint16))
    pages = [colour, colour.transpose(Image.Transpose.ROTATE_180)]
    alpha = colour.convert("RGBA")
    return {
        "grey.png": saved(grey, "PNG"),
        "colour.png": saved(colour, "PNG"),
        "palette.png": saved(colour.quantize(16), "PNG"),
        "alpha.png": saved(alpha, "PNG"),
        "deep.png": saved(deep, "PNG"),
        "one.png": saved(grey.resize((1, 1)), "PNG"),
        "grey.jpg": saved(grey, "JPEG"),
        "colour.jpg": saved(colour, "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "exif.jpg": saved(colour, "JPEG", exif=turned()),
        "colour.bmp": saved(colour, "BMP"),
        "animated.gif": saved(pages[0], "GIF", save_all=True, append_images=pages[1:]),
        "pages.tif": saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
        "lzw.tif": saved(deep, "TIFF", compression="tiff_lzw"),
        "float.tif": saved(Image.fromarray(rng.random((17, 23), np.float32)), "TIFF"),
        "white.tif": tiff(page(np.asarray(deep), photometric=MINISWHITE, order=">"), order=">"),
        "big.tif": tiff(page(np.asarray(deep).astype(np.float64)), page(np.asarray(grey)), big=True),
        "tiles.tif": tiff(page(np.asarray(colour).astype(np.int16), photometric=RGB, tile=(16, 16), compression=LZW)),
        "planes.tif": tiff(page(np.asarray(alpha).astype(np.uint16), photometric=RGB, planar=2, tags={338: [1]})),
        "animated.webp": saved(pages[0], "WEBP", save_all=True, append_images=pages[1:], lossless=True),
        "colour.ppm": saved(colour, "PPM"),
        "deep.ppm": b"P6 17 23 4095\n" + bytes(range(16)) * (17 * 23 * 6 // 16) + bytes(10),
    }


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def pixels(path):
    facts = examine_image(path, ImageSettings())[0]
    return read_pixels(path, facts)


def look(path, content):
    """The pixels that training would see, or why there are none."""
    path.write_bytes(content)
    return answer(pixels, path, names=path.name, codes=(3,))


@pytest.mark.parametrize("name", images())
def test_every_kind_is_read_and_only_whole(name, tmp_path):
    content = images()[name]
    path = tmp_path / name
    whole = look(path, content)
    assert not isinstance(whole, Exception), whole
    step = 1 if ASKED else max(len(content) // 40, 1)
    for length in range(0, len(content), step):
        part = look(path, content[:length])
        assert isinstance(part, BadImageError) or np.array_equal(part, whole), (length, len(content))


@given(st.sampled_from(sorted(images())), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
@fuzzed(150)
def test_damaged_bytes_are_refused_or_read(tmp_path_factory, name, changes):
    content = bytearray(images()[name])
    for place, value in changes:
        content[place % len(content)] = value
    found = look(tmp_path_factory.getbasetemp() / f"damaged {name}", bytes(content))
    damaged_png = name.endswith(".png") and bytes(content) != images()[name]
    if damaged_png and not isinstance(found, Exception):  # its chunks have checksums: what is read is what was written
        assert found.ndim == 3


@given(st.sampled_from(sorted(images())), st.sampled_from(SUFFIXES), st.binary(max_size=40))
@fuzzed(50)
def test_the_suffix_does_not_matter_and_what_follows_neither(tmp_path_factory, name, suffix, more):
    path = tmp_path_factory.getbasetemp() / f"renamed{suffix}"
    found = look(path, images()[name] + more)
    assert isinstance(found, Exception) or found.ndim == 3


@given(st.binary(max_size=400), st.sampled_from(SUFFIXES))
@fuzzed(100)
def test_any_bytes_are_refused_by_name(tmp_path_factory, content, suffix):
    assert isinstance(look(tmp_path_factory.getbasetemp() / f"noise{suffix}", content), BadImageError)


@given(
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"RIFF", b"P6", b"P5 "]
    ),
    st.binary(max_size=400),
)
@fuzzed(150)
def test_any_bytes_behind_a_true_beginning_are_refused_or_read(tmp_path_factory, beginning, content):
    look(tmp_path_factory.getbasetemp() / "half true", beginning + content)


@given(st.sampled_from(sorted(BEGINNINGS)), st.binary(max_size=600), st.sampled_from(SUFFIXES))
@fuzzed(100)
def test_formats_that_are_not_read_are_refused_by_name_whatever_follows(tmp_path_factory, magic, content, suffix):
    error = look(tmp_path_factory.getbasetemp() / f"unread{suffix}", magic + content)
    assert isinstance(error, BadImageError)
    assert "which is not read; " in error.reason


HEADER = {
    "Rows": (0, 1, 16, 17, 40_000),
    "Columns": (0, 22, 23, 24),
    "SamplesPerPixel": (1, 2, 3, 4),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", ""),
    "BitsAllocated": (1, 8, 12, 16, 32, 64),
    "BitsStored": (0, 1, 7, 8, 12, 16, 17),
    "HighBit": (0, 7, 11, 15, 31),
    "PixelRepresentation": (0, 1, 2),
    "PlanarConfiguration": (0, 1, 2),
    "NumberOfFrames": (0, 1, 2, 3, -1),
    "RescaleSlope": (0, 1, -2, 1e-30),
    "WindowWidth": (-1, 0, 0.5, 1, 400),
    "WindowCenter": (0, -1024, 1e9),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "OTHER"),
    "PresentationLUTShape": ("INVERSE", "IDENTITY", "OTHER"),
    "PixelPaddingValue": (0, 255),
    "SmallestImagePixelValue": (0, 255),
    "LargestImagePixelValue": (255, 4095),
}


@given(
    st.sampled_from([np.uint8, np.uint16, np.int16]),
    st.sampled_from([1, 3]),
    st.dictionaries(st.sampled_from(sorted(HEADER)), st.integers(0, 6), max_size=5),
    st.sets(st.sampled_from(sorted(HEADER)), max_size=1),
)
@fuzzed(150)
def test_a_dicom_header_that_its_pixels_deny_is_refused_or_read(tmp_path_factory, kind, channels, changes, left_out):
    values = np.random.default_rng(0).integers(0, 250, (17, 23, channels)).astype(kind)
    data = dicom(values if channels == 3 else values[:, :, 0])
    for name, number in changes.items():
        value = HEADER[name][number % len(HEADER[name])]
        if name.endswith("Value"):  # whose type else depends on what is left out
            data.add_new(name, "US", value)
        else:
            setattr(data, name, value)
    for name in left_out & set(data.dir()):
        delattr(data, name)
    file = tmp_path_factory.getbasetemp() / "denied.dcm"
    data.save_as(file, enforce_file_format=True)
    found = look(file, file.read_bytes())
    assert isinstance(found, BadImageError) or found.min() >= 0 and found.max() <= 255


def png_header(width, height, depth=8, colour=0):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    "content",
    [
        png_header(30_000, 30_000) + images()["grey.png"][33:],
        b"BM" + bytes(16) + struct.pack("<ii", 30_000, 30_000) + bytes(100),
        b"GIF89a" + struct.pack("<HH", 30_000, 30_000) + bytes(40),
        b"P6 30000 30000 255\n" + bytes(100),
        images()["colour.jpg"].replace(struct.pack(">HH", 17, 23), struct.pack(">HH", 30_000, 30_000), 1),
        tiff(page(np.zeros((2, 2), np.uint16), photometric=MINISWHITE, tags={256: 30_000, 257: 30_000})),
    ],
    ids=["png", "bmp", "gif", "ppm", "jpeg", "tiff"],
)
def test_a_small_file_that_claims_to_be_huge_is_refused_from_its_header(tmp_path, content):
    path = tmp_path / "huge.png"
    path.write_bytes(content)
    error = answer(inspect_image, path, names="huge.png", codes=(3,))
    assert isinstance(error, BadImageError)
    assert PIXEL_LIMIT < 30_000**2
