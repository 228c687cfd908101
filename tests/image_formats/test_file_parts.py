"""Files with many parts are read in one pass, or refused: what is counted is work, not time."""

import gc
import io
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from dicom_files import write
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.checks import survey_image
from radtransfer.data.readers import read_table
from radtransfer.errors import BadImageError, DataError
from radtransfer.images.formats import count_frames, decode_outside, inspect_image
from radtransfer.images.refs import FilePart

OPENED: list[str] = []
sys.addaudithook(lambda event, arguments: OPENED.append(str(arguments[0])) if event == "open" else None)


def animation(file, count, **options):
    """Frames of which each is brighter than the one before."""
    frames = [Image.new("L", (12, 10), 20 + k * 200 // count) for k in range(count)]
    for k, frame in enumerate(frames):
        frame.putpixel((k % 12, k // 12 % 10), 255)
    frames[0].save(file, save_all=True, append_images=frames[1:], **options)
    return file


def cine(file, count):
    pixels = np.stack([np.full((8, 8), k % 250, "uint8") for k in range(count)])
    return write(file, pixels, NumberOfFrames=count)


def every_frame(file, count):
    return [survey_image(FilePart(file, frame=frame)) for frame in range(count)]


def calls(work) -> int:
    """How many functions `work` calls, in Python or in C."""
    count = 0

    def hear(*_):
        nonlocal count
        count += 1

    gc.disable()
    sys.setprofile(hear)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


KINDS = {
    "a.gif": animation,
    "a.tif": animation,
    "a.webp": lambda file, count: animation(file, count, lossless=True),
    "a.png": animation,
    "a.dcm": cine,
}


@pytest.mark.parametrize("name", KINDS)
def test_twice_the_frames_are_twice_the_work(tmp_path, name):
    def work(count):
        file = KINDS[name](tmp_path / f"{count}_{name}", count)
        return calls(lambda: every_frame(file, count))

    work(2)
    assert work(160) <= 2.3 * work(80)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_a_file_of_many_frames_is_opened_a_few_times_for_all(tmp_path, name):
    file = KINDS[name](tmp_path / name, 60)
    before = OPENED.count(str(file))
    assert not any(record.problem for record in every_frame(file, 60))
    assert OPENED.count(str(file)) - before <= 5


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_the_same_in_any_order_and_from_several_threads(tmp_path, name):
    file = KINDS[name](tmp_path / name, 40)

    def seen(frame):
        place = FilePart(file, frame=frame)
        return decode_outside(place, inspect_image(place), "auto") if frame or name != "a.png" else None

    expected, found = [seen(frame) for frame in range(40)], {}
    assert len({image.tobytes() for image in expected if image is not None}) >= 39

    def read(frames):
        for frame in frames:
            found[frame] = seen(frame)

    order = np.random.default_rng(0).permutation(40).tolist()
    threads = [threading.Thread(target=read, args=(order[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    for frame, image in found.items():
        assert expected[frame] is None or np.array_equal(image, expected[frame]), frame


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_written_anew_is_read_anew(tmp_path, name):
    file = KINDS[name](tmp_path / name, 3)
    first = every_frame(file, 3)
    KINDS[name](tmp_path / f"other_{name}", 5).replace(file)
    again = every_frame(file, 5)
    assert not any(record.problem for record in again)
    assert again[1].pixels != first[1].pixels or name == "a.dcm"
    assert count_frames(file) == 5


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_a_frame_that_is_not_there_is_told(tmp_path, name):
    file = KINDS[name](tmp_path / name, 3)
    assert [record.problem for record in every_frame(file, 5)] == ["", "", "", "corrupt", "corrupt"]


def test_frames_behind_one_that_is_damaged_are_told_without_reading_on(tmp_path):
    file = animation(tmp_path / "a.gif", 60)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    count = calls(lambda: every_frame(file, 60))
    problems = [record.problem for record in every_frame(file, 60)]
    assert problems[0] == ""
    assert set(problems[35:]) <= {"corrupt", "truncated"}
    assert count < 60 * calls(lambda: every_frame(animation(tmp_path / "b.gif", 2), 2))


def chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), "u1")).save(file, kind, **options)
    return file.getvalue()


def scans(count):
    data = encoded("JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:last] + data[last:end] * count + data[end:]


def directories(count):
    """A TIFF of pages of one pixel each."""
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    size, data = 2 + 12 * len(entries) + 4, bytearray(b"II*\0\x08\0\0\0")
    for page in range(count):
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 3, 1, n) for tag, n in entries)
        data += struct.pack("<I", len(data) + 4 if page < count - 1 else 0)
    assert len(data) == 8 + size * count
    return bytes(data)


PNG, JPEG, GIF = encoded("PNG"), encoded("JPEG"), encoded("GIF")
PIXEL = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
COLOURS = 13 + (3 << (GIF[10] & 7) + 1)
HOSTILE = {
    "scans.jpg": (scans(2_000), "more than 100 scans"),
    "segments.jpg": (JPEG[:2] + b"\xff\xe1\0\x0cExif\0\0abcd" * 100_000 + JPEG[2:], "more than 2,000 segments"),
    "comments.jpg": (JPEG[:2] + b"\xff\xfe\0\x03a" * 100_000 + JPEG[2:], "more than 2,000 segments"),
    "chunks.png": (PNG[:33] + chunk(b"abCd") * 100_000 + PNG[33:], "more than 10,000 chunks"),
    "texts.png": (PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) * 90 + PNG[33:], "text chunks"),
    "text.png": (PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000))) + PNG[33:], "too large"),
    "behind.png": (PNG[:-12] + chunk(b"tEXt", b"a\0b") * 100_000 + PNG[-12:], "more than 10,000 chunks"),
    "comments.gif": (GIF[:COLOURS] + b"!\xfe" + b"\x01a" * 1_000_000 + b"\0" + GIF[COLOURS:], "4,096 comments"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_with_more_parts_than_any_writer_makes_is_refused_by_what_it_has(tmp_path, name):
    content, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    count = calls(lambda: pytest.raises(BadImageError, inspect_image, tmp_path / name))
    assert count < 100_000
    with pytest.raises(BadImageError, match=reason):
        inspect_image(tmp_path / name)


@pytest.mark.parametrize("content", [scans(1), JPEG, PNG, GIF, encoded("PNG", pnginfo=None)])
def test_usual_files_have_few_parts(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert inspect_image(tmp_path / "a").height == 16


@pytest.mark.parametrize("name", ["a.gif", "a.tif"])
def test_more_frames_than_are_read_are_told_at_once_and_the_first_is_read(tmp_path, name):
    content = GIF[:-1] + PIXEL * 200_000 + b";" if name == "a.gif" else directories(50_000)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    assert calls(lambda: count_frames(tmp_path / "x" / name)) < 500_000
    with pytest.raises(DataError, match=f"x/{name} has more than 10,000 frames. Store it in several files, or use"):
        read_table(DataSettings(source=str(tmp_path), frames="all"))
    first = read_table(DataSettings(source=str(tmp_path)))
    assert [survey_image(file).problem for file in first.files] == ["", ""]


def test_pages_of_a_tiff_up_to_the_limit_are_read(tmp_path):
    (tmp_path / "a.tif").write_bytes(directories(9_000))
    assert count_frames(tmp_path / "a.tif") == 9_000
    assert survey_image(FilePart(tmp_path / "a.tif", frame=8_999)).problem == ""


def test_exif_is_read_no_further_than_a_jpeg_can_have(tmp_path):
    entries = struct.pack("<HHII", 274, 3, 1, 6) + struct.pack("<HHII", 999, 1, 4_000_000, 8) * 60_000
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 60_001) + entries + bytes(4_000_000)
    (tmp_path / "a.png").write_bytes(PNG[:33] + chunk(b"eXIf", exif) + PNG[33:])
    assert calls(lambda: inspect_image(tmp_path / "a.png")) < 100_000
    assert inspect_image(tmp_path / "a.png").orientation == 6
