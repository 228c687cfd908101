"""The pass over all images: what cannot be read and why, and what two files have in common."""

import io

import numpy as np
import pytest
from dicom_files import blob, write
from PIL import Image

from radtransfer.data import checks as image_survey
from radtransfer.data.checks import ImageRecord, survey_image, survey_images
from radtransfer.data.table import ImageTable
from radtransfer.errors import BadImageError
from radtransfer.images.refs import FilePart
from radtransfer.process import Progress

RGB = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype="uint8")


@pytest.fixture
def saved(tmp_path):
    def save(name, pixels=RGB, **options):
        Image.fromarray(pixels).save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_re_encoded_images_have_the_same_pixels_and_other_contents(saved):
    records = [survey_image(saved(name)) for name in ("a.png", "a.bmp", "a.tif", "a.ppm")]
    assert len({record.pixels for record in records}) == 1
    assert len({record.contents for record in records}) == 4
    assert survey_image(saved("b.png", 255 - RGB)).pixels != records[0].pixels


def test_grey_and_rgb_files_of_one_picture_have_the_same_pixels(saved):
    grey = saved("grey.png", RGB[:, :, 0])
    assert survey_image(grey).pixels == survey_image(saved("rgb.bmp", np.repeat(RGB[:, :, :1], 3, axis=2))).pixels


def test_sixteen_bits_are_one_image_in_png_and_tiff(saved):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    one, other = survey_image(saved("a.png", deep)), survey_image(saved("a.tif", deep))
    assert one.mode == other.mode == "16-bit grey"
    assert one.high == pytest.approx(deep.max() / 257, abs=1e-3)
    assert one.pixels == other.pixels
    assert survey_image(saved("b.png", deep // 2)).pixels != one.pixels


def test_floats_keep_their_values(saved):
    record = survey_image(saved("a.tif", np.linspace(-50, 400, 600, dtype="float32").reshape(20, 30)))
    assert (record.mode, record.low, record.high) == ("float grey", -50.0, 400.0)


def test_a_turned_image_is_not_the_same_as_one_that_is_not(saved):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert survey_image(saved("a.png", exif=exif)).pixels != survey_image(saved("b.png")).pixels


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_cut_files_are_truncated(saved, name):
    file = saved(name)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert survey_image(file).problem == "truncated"


@pytest.mark.parametrize(
    ("contents", "problem"),
    [(b"", "empty_file"), (b"<!DOCTYPE html><html>", "not_an_image"), (b"GARBAGE" * 9, "not_an_image")],
)
def test_what_is_not_an_image_has_its_problem(tmp_path, contents, problem):
    (tmp_path / "a.png").write_bytes(contents)
    record = survey_image(tmp_path / "a.png")
    assert (record.problem, record.facts) == (problem, None)
    assert record.reason


def test_damaged_and_missing_files_have_their_problems(saved, tmp_path):
    file = saved("a.png")
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    file.write_bytes(data)
    assert survey_image(file).problem == "corrupt"
    assert survey_image(tmp_path / "none.png").problem == survey_image(None).problem == "missing"


def test_an_image_that_vanishes_while_it_is_looked_at_is_a_problem(saved, monkeypatch):
    file, decode = saved("a.png"), image_survey.decode_checked

    def decode_and_delete(ref, facts, **options):
        pixels = decode(ref, facts, **options)
        ref.unlink()
        return pixels

    monkeypatch.setattr(image_survey, "decode_checked", decode_and_delete)
    assert survey_image(file).problem == "unreadable"


def test_nearly_constant_images_have_no_look(saved):
    assert survey_image(saved("a.png", np.full((50, 50), 7, np.uint8))).grid is None
    assert survey_image(saved("b.png", np.linspace(0, 255, 2500).reshape(50, 50).astype(np.uint8))).grid.shape == (8, 9)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "grey"), ("P", "palette"), ("RGBA", "RGB with alpha"), ("LA", "grey with alpha"), ("1", "black and white")],
)
def test_the_mode_is_that_of_the_file(tmp_path, mode, expected):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.png")
    assert survey_image(tmp_path / "a.png").mode == expected


def test_parts_of_one_file_are_told_apart(tmp_path):
    parts, data = [], b""
    for pixels in (RGB, 255 - RGB):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        parts.append(FilePart(tmp_path / "all.bin", len(data), len(file.getvalue())))
        data += file.getvalue()
    (tmp_path / "all.bin").write_bytes(data)
    one, other = map(survey_image, parts)
    assert one.contents != other.contents and one.pixels != other.pixels


def test_frames_of_one_file_have_no_contents_of_their_own(tmp_path):
    frames = [Image.fromarray(pixels) for pixels in (RGB, 255 - RGB)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    records = [survey_image(FilePart(tmp_path / "a.tif", frame=frame)) for frame in (0, 1)]
    assert [record.contents for record in records] == [b"", b""]
    assert records[0].pixels != records[1].pixels


class Stopping(Progress):
    def count(self, what, done, total):
        raise KeyboardInterrupt


def test_all_images_are_surveyed_in_order_and_an_interrupt_ends_it(saved):
    files = tuple(saved(f"{i}.png", RGB[: 10 + i]) for i in range(40))
    table = ImageTable(tuple(map(str, files)), files, np.eye(2, dtype="float32")[[0, 1] * 20], ("a", "b"), "multiclass")
    records = survey_images(table, workers=2, window="auto", progress=Progress())
    assert [record.facts.height for record in records] == list(range(10, 50))
    with pytest.raises(KeyboardInterrupt):
        survey_images(table, workers=2, window="auto", progress=Stopping())


def test_dicom_is_surveyed_as_it_is_read(tmp_path):
    record = survey_image(write(tmp_path / "a.dcm", blob()))
    assert (record.problem, record.mode, record.facts.decoder) == ("", "DICOM", "dicom")
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[:-900])
    assert survey_image(tmp_path / "a.dcm").problem == "truncated"


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("its 90000×90000 pixels are above the limit of 200 megapixels; reduce it", "too_large"),
        ("cannot be opened (Permission denied)", "unreadable"),
        ("its pixels (JPEG 2000) cannot be read", "unreadable"),
        ("no pixel data, or truncated before it", "truncated"),
        ("damaged or truncated (image file is truncated (3 bytes not processed))", "truncated"),
        ("damaged or truncated (broken PNG file)", "corrupt"),
        ("it contains NaN or infinite values", "corrupt"),
    ],
)
def test_the_reason_decides_the_kind(monkeypatch, tmp_path, reason, problem):
    def refuse(place):
        raise BadImageError(place, reason)

    monkeypatch.setattr("radtransfer.data.checks.inspect_image", refuse)
    assert survey_image(tmp_path / "a.png") == ImageRecord(problem, reason)
