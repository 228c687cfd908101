"""TIFF by its tags: every type, meaning and layout of values, written byte by byte, or a refusal that names it."""

import struct

import numpy as np
import pytest
import tiff_files as tiffs
from tiff_files import CIELAB, CMYK, MASK, MINISBLACK, MINISWHITE, PALETTE, RGB, YCBCR, page, tiff, write

from radtransfer.config.schema import ImageSettings
from radtransfer.data.checks import survey_image
from radtransfer.data.image_check import examine_image, read_pixels
from radtransfer.errors import BadImageError
from radtransfer.images.formats import count_frames, decode_outside, inspect_image
from radtransfer.images.refs import FilePart

RNG = np.random.default_rng(0)
TYPES = [("u", bits) for bits in (1, 2, 4, 8, 12, 16, 32, 64)] + [("i", bits) for bits in (2, 4, 8, 12, 16, 32, 64)]
TYPES += [("f", bits) for bits in (16, 32, 64)]
LAYOUTS = [{}, {"strip": 5}, {"tile": (16, 16)}, {"compression": tiffs.LZW, "strip": 4}, {"fill": 2}]
LAYOUTS += [{"compression": tiffs.PACKBITS}, {"compression": tiffs.ZSTD, "tile": (16, 32)}]
LAYOUTS += [{"compression": tiffs.DEFLATE, "predictor": 2, "strip": 7}, {"compression": tiffs.LZW, "predictor": 2}]
LAYOUTS += [{"compression": tiffs.DEFLATE, "predictor": 3}]


def random_values(kind, bits, samples):
    """Values that use all of the type up to 16 bits, and leave 0 to 65535 in a wider one."""
    size = 17, 23, samples
    if kind == "f":
        return RNG.normal(100, 400, size).astype(f"f{bits // 8}")
    low, high = (0, 2**bits) if kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    wide = 8 if bits <= 8 else 16 if bits <= 16 else bits
    return RNG.integers(low, high, size, dtype=f"{kind}{wide // 8}")


def shown(values, kind, bits, photometric, window="auto"):
    """What is to become of `values`, written down without a look at the code."""
    low, high = (0, 2.0**bits - 1) if kind == "u" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    if bits > 8 and window == "40,400":
        low, high = -160.0, 240.0
    elif bits > 8 and (window == "minmax" or bits > 16 or kind == "f"):
        low, high = float(values.min()), float(values.max())
    image = np.clip((values.astype("f8") - low) / (high - low), 0, 1) * 255
    image = np.rint(image) if bits <= 8 else image
    return np.broadcast_to(255 - image if photometric == MINISWHITE else image, (*values.shape[:2], 3))


def seen(file, window="auto"):
    facts, *_ = examine_image(file, ImageSettings(window=window))
    return read_pixels(file, facts, window=window)


@pytest.mark.parametrize(("kind", "bits"), TYPES)
def test_every_type_of_value_is_what_its_tags_say(tmp_path, kind, bits):
    for photometric in (MINISWHITE, MINISBLACK, RGB):
        values = random_values(kind, bits, 3 if photometric == RGB else 1)
        for number, window in enumerate(("auto", "minmax", "40,400", "auto")):
            options = {"photometric": photometric, "bits": bits, "order": "<>"[number % 2], "big": number > 1}
            file = write(tmp_path / "a.tif", values, **options)
            expected = shown(values, kind, bits, photometric, window)
            np.testing.assert_allclose(seen(file, window), expected, atol=2e-3, err_msg=f"{options} {window}")


@pytest.mark.parametrize(("kind", "bits"), TYPES)
def test_where_values_lie_does_not_change_them(tmp_path, kind, bits):
    for number, layout in enumerate(LAYOUTS):
        if layout.get("predictor") == 2 and bits % 8 or layout.get("predictor") == 3 and kind != "f":
            continue
        photometric, order, planar = (MINISWHITE, RGB, RGB)[number % 3], "<>"[number % 2], 1 + number // 2 % 2
        values = random_values(kind, bits, 3 if photometric == RGB else 1)
        options = {"photometric": photometric, "bits": bits, "order": order, "planar": planar, **layout}
        file = write(tmp_path / "a.tif", values, **options)
        expected = shown(values, kind, bits, photometric)
        np.testing.assert_allclose(seen(file), expected, atol=2e-3, err_msg=str(options))


def test_ordinary_files_are_read_bit_for_bit_as_by_pillow(tmp_path):
    from PIL import Image

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        image = Image.new(mode, (9, 7)) if mode == "I;16" else Image.fromarray(random_values("u", 8, 3)).convert(mode)
        for compression in (None, "tiff_lzw", "jpeg" if mode in ("L", "RGB") else "packbits"):
            image.save(tmp_path / "a.tif", compression=compression)
            with Image.open(tmp_path / "a.tif") as again:
                plain = again.convert("RGBA").convert("RGB") if mode == "P" else again.convert("RGB")
            if mode != "I;16":
                np.testing.assert_array_equal(seen(tmp_path / "a.tif"), np.asarray(plain))


# What values mean


def test_sixteen_bits_that_count_from_white_are_not_a_negative(tmp_path):
    values = np.array([[0, 257, 65535]], "u2")
    assert seen(write(tmp_path / "a.tif", values, photometric=MINISWHITE))[0, :, 0].tolist() == [255, 254, 0]


def test_a_window_counts_in_stored_values_and_white_comes_after_it(tmp_path):
    values = np.array([[0, 1000, 2000, 4000]], "u2")
    file = write(tmp_path / "a.tif", values, photometric=MINISWHITE)
    assert seen(file, "1500,2000")[0, :, 0].tolist() == [255, 191.25, 63.75, 0]


def test_one_window_is_for_all_colours_alike(tmp_path):
    values = np.array([[[100, 200, 300], [100, 100, 500]]], "u2")
    file = write(tmp_path / "a.tif", values, photometric=RGB)
    np.testing.assert_allclose(seen(file, "minmax")[0], [[0, 63.75, 127.5], [0, 0, 255]], atol=1e-3)
    np.testing.assert_allclose(seen(file, "200,200")[0], [[0, 127.5, 255], [0, 0, 255]], atol=1e-3)


@pytest.mark.parametrize("high", [1.0, 255.0])
def test_floats_and_wide_integers_within_the_usual_range_are_taken_as_they_are(tmp_path, high):
    values = np.array([[0, high / 4, high]])
    np.testing.assert_allclose(seen(write(tmp_path / "a.tif", values))[0, :, 0], values[0], rtol=1e-6)
    whole = (values * 257).astype("u4")
    np.testing.assert_allclose(seen(write(tmp_path / "b.tif", whole))[0, :, 0], whole[0] / 257, rtol=1e-6)


def test_unsigned_32_bits_do_not_wrap(tmp_path):
    values = np.array([[0, 2**31 - 1, 2**31, 2**32 - 1]], "u4")
    np.testing.assert_allclose(seen(write(tmp_path / "a.tif", values))[0, :, 0], [0, 127.5, 127.5, 255], atol=1e-3)


@pytest.mark.parametrize("sample", [1, 2])
def test_transparency_is_dropped_and_colours_are_what_they_were_before_it(tmp_path, sample):
    colours = np.array([[[40000, 20000, 100]]], "u2")
    alpha = np.array([[[32768]]], "u2")
    stored = colours if sample == 2 else (colours * (32768 / 65535)).round().astype("u2")
    for photometric, part in ((RGB, slice(0, 3)), (MINISBLACK, slice(0, 1))):
        values = np.concatenate([stored[:, :, part], alpha], axis=2)
        file = write(tmp_path / "a.tif", values, photometric=photometric, tags={338: [sample]})
        expected = np.broadcast_to(colours[:, :, part] / 257, (1, 1, 3))
        np.testing.assert_allclose(seen(file), expected, atol=0.01)


def test_four_inks_of_16_bits_become_colours(tmp_path):
    values = random_values("u", 16, 4)
    expected = (65535.0 - values[:, :, :3]) * (65535.0 - values[:, :, 3:]) / 65535 / 257
    for planar in (1, 2):
        file = write(tmp_path / "a.tif", values, photometric=CMYK, planar=planar)
        np.testing.assert_allclose(seen(file), expected, atol=1e-3)


@pytest.mark.parametrize("unit", [1, 257])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_palette_gives_its_colours_of_8_or_16_bits(tmp_path, bits, unit):
    colours = RNG.integers(0, 256, (3, 2**bits))
    values = random_values("u", bits, 1)
    file = write(tmp_path / "a.tif", values, photometric=PALETTE, bits=bits, tags={320: (colours * unit).ravel()})
    np.testing.assert_array_equal(seen(file), colours.T[values[:, :, 0]])


@pytest.mark.parametrize("compression", [tiffs.PLAIN, tiffs.LZW])
def test_luminance_and_colour_become_rgb_also_where_they_are_not_compressed(tmp_path, compression):
    red = np.zeros((16, 16, 3), "u1") + np.array([76, 85, 255], "u1")
    file = write(tmp_path / "a.tif", red, photometric=YCBCR, compression=compression, tags={530: [1, 1]})
    np.testing.assert_allclose(seen(file), np.broadcast_to([254.0, 0, 0], red.shape), atol=1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_found_whoever_reads_the_values(tmp_path, orientation):
    from radtransfer.images.decode import ImageSource

    values = random_values("u", 8, 3)[:16, :16].astype("u2") * 257
    files = [tmp_path / "8.tif", tmp_path / "16.tif"]
    for file, pixels in zip(files, ((values // 257).astype("u1"), values), strict=True):
        write(file, pixels, photometric=RGB, tags={274: orientation})
    facts = [inspect_image(file) for file in files]
    source = ImageSource(files, facts, image_size=16, reading=ImageSettings())
    np.testing.assert_allclose(source.image(0), source.image(1), atol=1e-3)


# What is refused, and how


def refused(file, content=None):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadImageError) as error:
        seen(file)
    return error.value.reason


BYTES = np.zeros((4, 4, 1), "u1")


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (BYTES.repeat(5, 2), {}, "its pixels have 5 values of unknown meaning"),
        (BYTES.repeat(2, 2), {"tags": {338: [0]}}, "its pixels have 2 values of unknown meaning"),
        (BYTES.repeat(2, 2), {"photometric": RGB}, "its pixels have 2 values of unknown meaning"),
        (BYTES.repeat(60, 2), {"photometric": RGB}, "its pixels have 60 values of unknown meaning"),
        (BYTES.repeat(3, 2), {"photometric": CIELAB}, "its pixels are CIELab, which is not read; convert it"),
        (BYTES, {"photometric": MASK, "bits": 1}, "its pixels are a transparency mask"),
        (BYTES, {"photometric": 32803}, "its pixels are of a colour filter array"),
        (BYTES, {"photometric": 4711}, "its pixels are of kind 4711"),
        (BYTES, {"photometric": None}, "its tag PhotometricInterpretation is missing"),
        (BYTES.repeat(4, 2), {"photometric": CMYK, "tags": {332: 2}}, "its pixels are CMYK, which is not read"),
        (BYTES.astype("c8"), {}, "its grey values are neither integers nor floats of 64 bits"),
        (BYTES, {"tags": {339: [4]}}, "its grey values are neither integers nor floats"),
        (BYTES.repeat(3, 2), {"bits": 24}, "its grey values are integers of 24 bits"),
        (BYTES.repeat(3, 2), {"photometric": RGB, "tags": {258: [5, 6, 5]}}, "its pixels have values of several types"),
        (BYTES.astype("u2"), {"bits": 12, "tags": {259: 7}}, "its 12-bit grey pixels are compressed with JPEG"),
        (BYTES, {"tags": {32997: 4}}, "its page is a volume of 4 slices"),
        (BYTES, {"tags": {259: 34712}}, "its 8-bit grey pixels are compressed with JPEG2000"),
        (
            BYTES.astype("u2"),
            {"compression": 8, "photometric": MINISWHITE, "tags": {317: 3}},
            "its 16-bit grey pixels have the predictor 3",
        ),
    ],
)
def test_what_is_not_read_says_what_it_is(tmp_path, values, options, words):
    options = {"bits": 24} | options if values.shape[2] == 3 and options.get("bits") == 24 else options
    file = tmp_path / "a.tif"
    tags, segments, tiled = page(values[:, :, :1] if options.get("bits") == 24 else values, **options)
    file.write_bytes(tiff((tags, segments, tiled)))
    assert refused(file).startswith(words)
    assert survey_image(file).problem == "unreadable"


@pytest.mark.parametrize("frame_marker", [b"\xff\xc0", b"\xff\xc1"])
def test_a_jpeg_of_12_bits_is_called_so(tmp_path, frame_marker):
    from PIL import Image

    Image.new("L", (16, 16)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes().replace(b"\xff\xc0\x00\x0b\x08", frame_marker + b"\x00\x0b\x0c")
    assert refused(tmp_path / "a.jpg", data).startswith("its pixels are a JPEG of 12 bits, which is not read")


def test_a_lossless_jpeg_is_called_so(tmp_path):
    from PIL import Image

    Image.new("L", (16, 16)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes().replace(b"\xff\xc0", b"\xff\xc3")
    assert "a lossless JPEG" in refused(tmp_path / "a.jpg", data)


@pytest.mark.parametrize("compression", [tiffs.PLAIN, tiffs.LZW, tiffs.DEFLATE])
def test_a_cut_strip_is_no_image(tmp_path, compression):
    file = write(tmp_path / "a.tif", random_values("u", 16, 3), photometric=RGB, compression=compression, strip=17)
    tags, (segment,), tiled = page(random_values("u", 16, 3), photometric=RGB, compression=compression)
    short = tiff((tags, [segment[: len(segment) // 2]], tiled))
    assert seen(file).shape == (17, 23, 3)
    assert "truncated" in refused(file, short)


@pytest.mark.parametrize(
    "tags",
    [
        {256: 30_000, 257: 30_000},
        {256: 2**31, 257: 2**31},
        {257: 10_000},
        {278: 2**32 - 1, 257: 2**27, 256: 1},
        {322: 2**31, 323: 2**31},
        {322: 0, 323: 0},
        {278: 0},
        {256: 0},
        {277: 65535},
        {258: [65535] * 3},
        {273: [2**31]},
        {279: [2**32 - 1], 257: 100},
    ],
    ids=str,
)
def test_announced_sizes_are_not_believed(tmp_path, tags):
    for values in (random_values("u", 16, 3), random_values("u", 8, 3)):
        for compression in (tiffs.PLAIN, tiffs.LZW):
            content = tiff(page(values, photometric=RGB, compression=compression, tags=tags))
            file = tmp_path / "a.tif"
            file.write_bytes(content)
            try:
                assert seen(file).shape[0] <= 2 * 17
            except BadImageError as error:
                assert error.reason


# Pages


def deep_pages(*levels, **options):
    return [page(np.full((4, 4), level, "u2"), **options) for level in levels]


@pytest.mark.parametrize("photometric", [MINISBLACK, MINISWHITE])
@pytest.mark.parametrize("big", [False, True])
def test_each_page_is_a_frame_whoever_reads_it(tmp_path, big, photometric):
    file = tmp_path / "a.tif"
    file.write_bytes(tiff(*deep_pages(0, 257, 514, photometric=photometric), big=big))
    assert count_frames(file) == 3
    for frame in range(3):
        expected = 255 - frame if photometric == MINISWHITE else frame
        assert seen(FilePart(file, frame=frame)).min() == expected
    assert "no frame 4" in refused(FilePart(file, frame=3))


def test_smaller_copies_and_masks_of_a_page_are_no_frames(tmp_path):
    small, mask = (page(np.zeros((2, 2), "u1"), tags={254: kind}) for kind in (1, 4))
    file = tmp_path / "a.tif"
    file.write_bytes(tiff(small, *deep_pages(257), mask, *deep_pages(514), small))
    assert count_frames(file) == 2
    assert [seen(FilePart(file, frame=frame)).max() for frame in (0, 1)] == [1, 2]
    assert seen(file).shape == (4, 4, 3)


def test_a_preview_of_an_image_that_lies_below_it_is_not_taken_for_it(tmp_path):
    content = tiff(page(np.zeros((2, 2), "u1"), tags={254: 1, 330: [8]}))
    assert refused(tmp_path / "a.tif", content).startswith("its first page is a preview")


def test_pages_that_follow_each_other_in_a_circle_end(tmp_path):
    file = tmp_path / "a.tif"
    data = bytearray(tiff(*deep_pages(257, 514)))
    first = struct.unpack("<I", data[4:8])[0]
    second = data.rindex(struct.pack("<I", first)) if data.count(struct.pack("<I", first)) > 1 else len(data) - 4
    data[second : second + 4] = struct.pack("<I", first)
    file.write_bytes(data)
    assert seen(file).max() == 1
    with pytest.raises(BadImageError, match="form a cycle"):
        count_frames(file)


def test_tags_that_announce_more_than_the_file_are_not_read(tmp_path):
    entries = [struct.pack("<HHII", 300 + number, 2, 40_000, 8) for number in range(3000)]
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(10_000)
    assert "are larger than the file" in refused(tmp_path / "a.tif", content)


# What a data set is told


def test_the_survey_knows_negatives_apart_and_names_what_it_counts(tmp_path):
    values = random_values("u", 16, 1)
    records = [
        survey_image(write(tmp_path / f"{photometric}.tif", values, photometric=photometric))
        for photometric in (MINISWHITE, MINISBLACK)
    ]
    assert records[0].pixels != records[1].pixels
    same = survey_image(write(tmp_path / "c.tif", 65535 - values, photometric=MINISWHITE))
    assert same.pixels == records[1].pixels
    modes = [("i", 16, MINISBLACK, "signed 16-bit grey"), ("u", 16, RGB, "16-bit RGB"), ("f", 64, RGB, "float RGB")]
    modes += [("u", 12, MINISBLACK, "12-bit grey"), ("i", 8, RGB, "signed RGB")]
    for kind, bits, photometric, mode in modes:
        values = random_values(kind, bits, 3 if photometric == RGB else 1)
        assert survey_image(write(tmp_path / "d.tif", values, photometric=photometric, bits=bits)).mode == mode


def test_decoding_without_a_look_at_all_values_clips_no_negative_ones(tmp_path):
    values = np.array([[-32768, -1000, 0, 32767]], "i2")
    file = write(tmp_path / "a.tif", values)
    image = decode_outside(file, inspect_image(file), "auto")
    np.testing.assert_allclose(image[0, :, 0], (values[0] + 32768.0) / 257, atol=1e-3)
