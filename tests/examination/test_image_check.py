"""Images on disk: read by the right decoder, and checked before training."""

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.schema import ImageSettings
from radtransfer.data import image_check as images
from radtransfer.data.image_check import BadImage, check_images, examine_image
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError, DataError
from radtransfer.images.formats import ImageFacts, decode_outside, decode_with_pillow, inspect_image
from radtransfer.process import Progress

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype="uint8")


def save(file, image, **options):
    image.save(file, **options)
    return file


def png_of(width, height, depth, kind, rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(file, pixels):
    """A 16-bit PNG of any number of channels, which Pillow cannot write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    file.write_bytes(png_of(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows))
    return file


def png_header(file, width, height):
    """A PNG that claims a size and has hardly a pixel."""
    file.write_bytes(png_of(width, height, 8, 2, b"\0"))
    return file


def rotated(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


# Headers


@pytest.mark.parametrize(
    ("name", "mode", "decoder"),
    [
        ("a.png", "RGB", "png8"),
        ("a.png", "RGBA", "png8"),
        ("a.png", "LA", "png8"),
        ("a.png", "1", "png8"),
        ("a.png", "P", "png8"),
        ("a.png", "I;16", "png16"),
        ("a.jpg", "RGB", "jpeg"),
        ("a.jpg", "L", "jpeg"),
        ("a.jpg", "CMYK", "pillow"),
        ("a.bmp", "RGB", "pillow"),
        ("a.gif", "P", "pillow"),
        ("a.tif", "RGB", "pillow"),
        ("a.webp", "RGB", "pillow"),
        ("a.ppm", "RGB", "pillow"),
    ],
)
def test_the_header_decides_the_decoder_and_gives_the_size(tmp_path, name, mode, decoder):
    image = Image.new(mode, (9, 6)) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    assert inspect_image(save(tmp_path / name, image)) == ImageFacts(decoder, 6, 9, deep=decoder == "png16")


def test_colour_of_16_bits_is_seen_although_pillow_hides_it(tmp_path):
    pixels = np.zeros((3, 4, 3), "uint16")
    assert inspect_image(png16(tmp_path / "a.png", pixels)) == ImageFacts("png16", 3, 4, deep=True)


def test_the_content_decides_not_the_suffix(tmp_path):
    file = save(tmp_path / "a.png", Image.fromarray(RGB), format="JPEG")
    assert inspect_image(file).decoder == "jpeg"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize(("value", "expected"), [(6, 6), (8, 8), (0, 1), (9, 1)])
def test_exif_orientation_is_reported_and_the_size_is_as_stored(tmp_path, name, value, expected):
    facts = inspect_image(save(tmp_path / name, Image.fromarray(RGB), exif=rotated(value)))
    assert (facts.orientation, facts.height, facts.width) == (expected, 6, 9)


def test_tiff_images_are_turned_by_pillow_already(tmp_path):
    file = save(tmp_path / "a.tif", Image.fromarray(RGB), exif=rotated(6))
    assert inspect_image(file) == ImageFacts("pillow", 9, 6, 1)
    np.testing.assert_array_equal(decode_with_pillow(file), np.rot90(RGB, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse_an_image(tmp_path):
    file = save(tmp_path / "a.jpg", Image.fromarray(RGB), exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert inspect_image(file).orientation == 1


# Pillow's pixels


@pytest.mark.parametrize("name", ["a.bmp", "a.tif", "a.ppm", "a.png"])
def test_rgb_is_read_as_it_is(tmp_path, name):
    pixels = decode_with_pillow(save(tmp_path / name, Image.fromarray(RGB)))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, RGB)


def test_grey_is_repeated_and_transparency_dropped(tmp_path):
    grey = RGB[:, :, 0]
    alpha = Image.fromarray(RGB[:, :, 1])
    for image in (Image.fromarray(grey), Image.merge("LA", (Image.fromarray(grey), alpha))):
        pixels = decode_with_pillow(save(tmp_path / "a.tif", image))
        np.testing.assert_array_equal(pixels, np.repeat(grey[:, :, None], 3, axis=2))
    rgba = Image.fromarray(RGB)
    rgba.putalpha(alpha)
    np.testing.assert_array_equal(decode_with_pillow(save(tmp_path / "b.tif", rgba)), RGB)


def test_one_bit_is_black_and_white(tmp_path):
    pixels = decode_with_pillow(save(tmp_path / "a.tif", Image.fromarray(RGB[:, :, 0] > 127)))
    np.testing.assert_array_equal(pixels[:, :, 0], np.where(RGB[:, :, 0] > 127, 255, 0))


def test_a_palette_with_transparency_gives_its_colours(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    file = save(tmp_path / "a.png", palette, transparency=bytes(range(16)))
    np.testing.assert_array_equal(decode_with_pillow(file), np.asarray(palette.convert("RGB")))


def test_cmyk_keeps_its_colours(tmp_path):
    colour = Image.new("RGB", (16, 16), (200, 30, 60))
    pixels = decode_with_pillow(save(tmp_path / "a.jpg", colour.convert("CMYK"), quality=100))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), [200, 30, 60], atol=3)


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "int32")])
def test_sixteen_bits_are_scaled_and_never_clipped(tmp_path, mode, dtype):
    values = np.array([[0, 257, 25700], [65535, 32768, 4095]], dtype)
    image = Image.frombytes(mode, (3, 2), values.tobytes())
    pixels = decode_with_pillow(save(tmp_path / "a.tif", image))
    np.testing.assert_allclose(pixels[:, :, 1], values / 257, rtol=1e-6)
    assert pixels.max() == 255


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("greatest", [256, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_pnm_of_more_than_8_bits_keeps_its_values(tmp_path, channels, greatest, plain):
    values = np.random.default_rng(0).integers(0, greatest + 1, (4, 5, channels))
    number = {1: 5, 3: 6}[channels] - 3 * plain
    words = " ".join(map(str, values.ravel())).encode()
    data = b"# a comment\n" + words if plain else values.astype(">u2").tobytes()
    file = tmp_path / "a.ppm"
    file.write_bytes(b"P%d\n5 4\n%d\n" % (number, greatest) + data)
    for window, (low, high) in {"auto": (0, greatest), "100,100": (50, 150)}.items():
        facts, *_ = examine_image(file, ImageSettings(window=window))
        expected = np.clip((values - low) / (high - low), 0, 1) * 255 * np.ones(3)
        np.testing.assert_allclose(decode_outside(file, facts, window), expected, atol=1e-3)
    file.write_bytes(file.read_bytes()[: -20 * channels])
    with pytest.raises(BadImageError, match="damaged or truncated"):
        decode_with_pillow(file)


def test_floats_are_taken_as_they_are_and_must_be_finite(tmp_path):
    values = np.array([[0.5, 200.25]], "float32")
    pixels = decode_with_pillow(save(tmp_path / "a.tif", Image.fromarray(values)))
    np.testing.assert_array_equal(pixels[:, :, 2], values)
    with pytest.raises(BadImageError, match="NaN or infinite"):
        decode_with_pillow(save(tmp_path / "b.tif", Image.fromarray(values * np.nan)))


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_with_pillow(file)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("name", ["a.png", "b.png", "c.png", "d.png", "e.jpg"])
def test_pillow_and_tensorflow_read_the_same_pixels(tmp_path, name):
    import tensorflow as tf

    modes = {"a.png": "RGBA", "b.png": "P", "c.png": "LA", "d.png": "1", "e.jpg": "L"}
    file = save(tmp_path / name, Image.fromarray(RGB).convert(modes[name]))
    decoded = tf.io.decode_image(file.read_bytes(), channels=3).numpy()
    np.testing.assert_allclose(decode_with_pillow(file), decoded, atol=2 if name.endswith("jpg") else 0)


# The check of a data set


class Heard(Progress):
    def __init__(self):
        self.notes, self.counts = [], []

    def note(self, text):
        self.notes.append(text)

    def count(self, what, done, total):
        self.counts.append((what, done, total))


def table_of(files):
    return ImageTable(
        paths=tuple(f"data/{Path(file).name}" if file else f"missing{i}" for i, file in enumerate(files)),
        files=tuple(files),
        targets=np.eye(2, dtype="float32")[[i % 2 for i in range(len(files))]],
        classes=("a", "b"),
        task="multiclass",
    )


def check(files, report, **settings):
    return check_images(table_of(files), workers=2, report_file=report, **{"on_bad_image": "error", **settings})


def good_files(folder, count=3):
    return [save(folder / f"good{i}.png", Image.fromarray(RGB)) for i in range(count)]


def encoded(kind, size=(64, 64)):
    stream = io.BytesIO()
    Image.effect_noise(size, 50).save(stream, kind)
    return stream.getvalue()


def test_readable_images_pass_and_are_counted(tmp_path):
    files = [*good_files(tmp_path, 40), save(tmp_path / "a.jpg", Image.fromarray(RGB), exif=rotated(6))]
    heard = Heard()
    report = tmp_path / "bad.txt"
    report.write_text("of an earlier run")
    checked = check(files, report, progress=heard)
    assert len(checked.table) == len(checked.facts) == 41
    assert checked.facts[40] == ImageFacts("jpeg", 6, 9, 6)
    assert checked.bad == () and not report.exists()
    assert heard.counts[-1] == ("images checked", 41, 41) and len(heard.counts) > 1
    assert heard.notes == []


BROKEN = {
    "empty.png": (b"", "an empty file"),
    "page.jpg": (b"<!DOCTYPE html><html>", "an HTML page, not an image; download it again"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not an image; run `git lfs"),
    "text.png": (b"hello", "not an image of a known format"),
    "half.jpg": (encoded("JPEG")[:1500], "truncated"),
    "half.png": (encoded("PNG")[:1500], "truncated"),
    "tail.png": (encoded("PNG")[:-12], "truncated"),
    "flip.png": (encoded("PNG")[:800] + b"\0" * 40 + encoded("PNG")[840:], "damaged"),
    "half.tif": (encoded("TIFF")[:1500], "damaged or truncated"),
    "half.bmp": (encoded("BMP")[:1500], "damaged or truncated"),
    "half.gif": (encoded("GIF")[:1500], "damaged or truncated"),
    "start.jpg": (encoded("JPEG")[:100], "damaged or truncated in its header"),
    "start.png": (encoded("PNG")[:20], "damaged or truncated in its header"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_found_and_the_reason_given(tmp_path, name):
    content, reason = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    checked = check([tmp_path / name, *good_files(tmp_path)], tmp_path / "bad.txt", on_bad_image="skip")
    assert [image.path for image in checked.bad] == [f"data/{name}"]
    assert checked.bad[0].reason.startswith(reason)


def test_a_bomb_is_refused_from_its_header_and_a_large_image_is_not(tmp_path):
    with pytest.raises(BadImageError, match="20000×10001 pixels are above the limit of 200 megapixels"):
        inspect_image(png_header(tmp_path / "a.png", 20000, 10001))
    assert inspect_image(png_header(tmp_path / "b.png", 20000, 10000)).width == 20000


def test_all_bad_images_are_listed_in_a_file_and_the_first_three_named(tmp_path):
    files = [None, *good_files(tmp_path), None, tmp_path / "gone.png", tmp_path / "empty.png"]
    files[-1].write_bytes(b"")
    report = tmp_path / "run" / "bad_images.txt"
    with pytest.raises(DataError) as caught:
        check(files, report)
    assert str(caught.value) == (
        "4 of 7 images cannot be read: 'missing0' (not found), 'missing4' (not found), 'data/gone.png' "
        f"(not found), …. Full list: {report}. 3 were not found: is --image-root right? Repair or remove them, "
        "or skip them with --on-bad-image skip."
    )
    assert report.read_text().splitlines() == [
        *("missing0\tnot found", "missing4\tnot found", "data/gone.png\tnot found", "data/empty.png\tan empty file")
    ]


def test_where_no_image_is_found_the_root_is_asked_for(tmp_path):
    with pytest.raises(DataError, match="2 of 2 images cannot be read.*Correct their paths, or give their folder"):
        check([None, None], tmp_path / "bad.txt")


def test_bad_images_can_be_skipped_with_a_note(tmp_path):
    files = [*good_files(tmp_path, 2), None]
    heard = Heard()
    checked = check(files, tmp_path / "bad.txt", on_bad_image="skip", progress=heard)
    assert checked.table.paths == ("data/good0.png", "data/good1.png")
    assert checked.bad == (BadImage("missing2", "not found"),)
    assert len(checked.facts) == 2
    assert heard.notes[0].startswith("1 of 3 images cannot be read and are skipped; see")


def test_nothing_left_is_an_error_even_when_skipping(tmp_path):
    with pytest.raises(DataError, match="2 of 2"):
        check([None, None], tmp_path / "bad.txt", on_bad_image="skip")


@pytest.mark.parametrize(("top", "noted"), [(4095, True), (65535, False)])
def test_twelve_bit_data_in_sixteen_bits_is_noted(tmp_path, top, noted):
    ramp = np.linspace(0, top, 12).astype("uint16").reshape(3, 4, 1)
    files = [png16(tmp_path / "a.png", ramp), png16(tmp_path / "b.png", ramp // 2)]
    heard = Heard()
    check(files, tmp_path / "bad.txt", progress=heard)
    assert bool(heard.notes) == noted
    if noted:
        assert heard.notes[0].startswith("the 2 16-bit images use only the values 0 to 4095 of 0 to 65535")


def test_an_interrupted_check_stops_its_workers(tmp_path, monkeypatch):
    class Interrupting(Progress):
        def count(self, what, done, total):
            raise KeyboardInterrupt

    inspected = []

    def slow(file, reading):
        inspected.append(file)
        time.sleep(0.001)
        return examine_image(file, reading)

    monkeypatch.setattr("radtransfer.data.image_check.examine_image", slow)
    with pytest.raises(KeyboardInterrupt):
        check(good_files(tmp_path, 1) * 1000, tmp_path / "bad.txt", progress=Interrupting())
    assert len(inspected) < 200


def test_busi_is_readable(busi, tmp_path):
    files = sorted((busi / "images").rglob("*.png"))[::26]
    checked = check(files, tmp_path / "bad.txt")
    assert set(checked.facts) == {ImageFacts("png8", 256, 256, 1)}


@pytest.fixture
def three_images(tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    return [save(tmp_path / f"{number}.png", Image.fromarray(RGB)) for number in range(3)]


def decoded(files, monkeypatch, **reading) -> int:
    """How many images a check decodes."""
    seen = []
    with monkeypatch.context() as patch:
        whole = images.examine_image
        patch.setattr(images, "examine_image", lambda place, how: seen.append(place) or whole(place, how))
        checked = check(files, files[0].parent / "bad.txt", reading=ImageSettings(**reading))
    assert checked.facts == tuple(inspect_image(file) for file in files)
    return len(seen)


def test_images_that_have_not_changed_are_not_decoded_again(three_images, monkeypatch):
    assert decoded(three_images, monkeypatch) == 3
    assert decoded(three_images, monkeypatch) == 0


def test_after_a_change_of_one_all_are_decoded_again(three_images, monkeypatch):
    decoded(three_images, monkeypatch)
    status = three_images[1].stat()
    three_images[1].write_bytes(three_images[0].read_bytes())  # of the same size, and of the same time
    os.utime(three_images[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert decoded(three_images, monkeypatch) == 3


def test_another_way_of_reading_decodes_again(three_images, monkeypatch):
    decoded(three_images, monkeypatch)
    assert decoded(three_images, monkeypatch, window="minmax") == 3


def test_bad_images_are_found_again(three_images, tmp_path):
    three_images[1].write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 3"):
            check(three_images, tmp_path / "bad.txt")
