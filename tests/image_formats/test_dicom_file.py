"""DICOM files as they come: ways of storing pixels, headers, and all that can be wrong with them."""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dicom_files import as_jpeg, blob, dicom, save, write
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from radtransfer.errors import BadImageError
from radtransfer.images import dicom_file
from radtransfer.images import dicom_file as dicom_guard
from radtransfer.images.dicom import DicomHeader, decode_dicom, read_header
from radtransfer.images.files import is_dicom
from radtransfer.images.formats import ImageFacts, count_frames, decode_outside, inspect_image
from radtransfer.images.refs import FilePart

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype="uint8")
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def grey(file, frame=0, window="minmax"):
    return decode_dicom(FilePart(file, frame=frame), window)[:, :, 0]


def reason(file, **options):
    with pytest.raises(BadImageError) as error:
        decode_dicom(FilePart(file, **options), "auto")
    assert error.value.reason in str(error.value)
    assert str(file) not in error.value.reason
    return error.value.reason


def stretched(pixels):
    return (pixels.astype("float64") - pixels.min()) / (pixels.max() - pixels.min()) * 255


# Ways of storing pixels


@pytest.mark.parametrize("pixels", [blob(), blob().astype("int16") - 900, RGB[:, :, 0]], ids=["u16", "i16", "u8"])
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.keyword)
def test_pixels_are_read_in_every_byte_order(tmp_path, syntax, pixels):
    file = write(tmp_path / "a.dcm", pixels, syntax=syntax)
    np.testing.assert_allclose(grey(file), stretched(pixels), atol=1e-3 if pixels.itemsize > 1 else 0.5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_lossless_compression_changes_nothing(tmp_path, syntax):
    data = dicom(np.stack([blob(seed=1), blob(seed=2)]), NumberOfFrames=2)
    data.compress(syntax)
    file = save(tmp_path / "a.dcm", data)
    assert read_header(file).transfer_syntax == syntax.name
    for frame in (0, 1):
        np.testing.assert_allclose(grey(file, frame), stretched(blob(seed=frame + 1)), atol=1e-3)


@pytest.mark.parametrize("frame", [0, 1, 2])
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.keyword)
def test_a_frame_is_read_on_its_own(tmp_path, syntax, frame):
    frames = np.stack([blob(seed=seed) for seed in range(3)])
    file = write(tmp_path / "a.dcm", frames, NumberOfFrames=3, syntax=syntax)
    assert count_frames(file) == 3
    np.testing.assert_allclose(grey(file, frame), stretched(frames[frame]), atol=1e-3)


@pytest.mark.parametrize("planes", [0, 1])
def test_colours_have_no_window(tmp_path, planes):
    data = dicom(RGB, PlanarConfiguration=planes, WindowCenter=10, WindowWidth=5)
    if planes:
        data.PixelData = RGB.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(decode_dicom(save(tmp_path / "a.dcm", data), "10,5"), RGB)


def test_colours_of_16_bits_are_scaled(tmp_path):
    deep = RGB.astype("uint16") * 257
    np.testing.assert_allclose(decode_dicom(write(tmp_path / "a.dcm", deep), "auto"), RGB, atol=1e-4)
    half = write(tmp_path / "b.dcm", RGB.astype("uint16") * 16, BitsStored=12)
    np.testing.assert_allclose(decode_dicom(half, "auto"), RGB * (16 / 4095 * 255), atol=1e-3)


def test_luminance_and_colour_become_rgb(tmp_path):
    # ITU-R BT.601, as PS3.3 C.7.6.3.1.2 has it: pure red.
    red = np.array([[[76, 85, 255]]], "uint8").repeat(4, axis=1)
    file = write(tmp_path / "a.dcm", red, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(decode_dicom(file, "auto"), [[[254, 0, 0]] * 4], atol=1)


def test_half_the_colour_stands_for_two_pixels(tmp_path):
    data = dicom(np.zeros((1, 4, 3), "uint8"), PhotometricInterpretation="YBR_FULL_422")
    data.PixelData = bytes([50, 60, 128, 128, 70, 80, 128, 128])
    image = decode_dicom(save(tmp_path / "a.dcm", data), "auto")
    assert image[0, :, 0].tolist() == [50, 60, 70, 80]


def test_a_jpeg_inside_is_read_in_its_colours(tmp_path):
    colours = np.zeros((16, 16, 3), "uint8") + np.array([200, 60, 20], "uint8")
    file = save(tmp_path / "a.dcm", as_jpeg(dicom(colours), colours))
    np.testing.assert_allclose(decode_dicom(file, "auto"), colours, atol=3)


@pytest.mark.parametrize(("bits", "unit"), [(8, 1), (16, 257), (16, 1)])
def test_a_palette_gives_its_colours(tmp_path, bits, unit):
    indices = np.array([[0, 1, 2, 3]], "uint8")
    colours = np.array([[0, 10, 100, 255], [255, 0, 1, 2], [5, 6, 7, 8]])
    data = dicom(indices, PhotometricInterpretation="PALETTE COLOR")
    for name, values in zip(("Red", "Green", "Blue"), colours, strict=True):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, bits])
        table = (values * unit).astype(f"<u{bits // 8}").tobytes()
        setattr(data, f"{name}PaletteColorLookupTableData", table)
    np.testing.assert_array_equal(decode_dicom(save(tmp_path / "a.dcm", data), "auto")[0], colours.T)


def test_masks_of_one_bit_become_black_and_white(tmp_path):
    mask = np.zeros((2, 8, 8), "uint8")
    mask[1, 2:5, 3:6] = 1
    data = dicom(mask, NumberOfFrames=2)
    data.BitsAllocated = data.BitsStored = 1
    data.HighBit = 0
    data.PixelData = np.packbits(mask.ravel(), bitorder="little").tobytes()
    file = save(tmp_path / "a.dcm", data)
    assert not grey(file, window="auto").any()
    np.testing.assert_array_equal(grey(file, 1, "auto"), mask[1] * 255)


def test_floating_point_values_are_read_and_must_be_finite(tmp_path):
    values = np.linspace(-0.5, 2.5, 12, dtype="float32").reshape(3, 4)
    data = dicom(np.zeros((3, 4), "uint32"))
    del data.PixelData, data.PixelRepresentation, data.BitsStored, data.HighBit
    data.FloatPixelData = values.tobytes()
    np.testing.assert_allclose(grey(save(tmp_path / "a.dcm", data)), stretched(values), atol=1e-3)
    values[0, 0] = np.nan
    data.FloatPixelData = values.tobytes()
    assert "NaN or infinite" in reason(save(tmp_path / "b.dcm", data))


# Headers


def test_the_header_says_what_is_needed(tmp_path):
    file = write(tmp_path / "a.dcm", blob(20, 30), patient="  Müller^1 ", SpecificCharacterSet="ISO_IR 192")
    assert read_header(file) == DicomHeader(
        height=20,
        width=30,
        frames=1,
        patient_id="Müller^1",
        transfer_syntax="Explicit VR Little Endian",
        photometric="MONOCHROME2",
        bits=16,
    )


@pytest.mark.parametrize("encoding", ["ISO_IR 192", "ISO_IR 100"])
def test_patient_ids_keep_their_accents(tmp_path, encoding):
    file = write(tmp_path / "a.dcm", blob(), patient="Ångström-é", SpecificCharacterSet=encoding)
    assert read_header(file).patient_id == "Ångström-é"


@pytest.mark.parametrize("patient", ["", "   ", None])
def test_an_empty_patient_id_is_none(tmp_path, patient):
    assert read_header(write(tmp_path / "a.dcm", blob(), patient=patient)).patient_id is None


@pytest.mark.parametrize("count", [None, 0])
def test_without_a_number_of_frames_there_is_one(tmp_path, count):
    data = dicom(blob())
    data.NumberOfFrames = count
    file = save(tmp_path / "a.dcm", data)
    assert read_header(file).frames == 1
    assert grey(file).shape == (32, 40)


def test_it_is_known_by_its_first_bytes(tmp_path):
    assert is_dicom(write(tmp_path / "a", blob()).read_bytes()[:132])
    assert not is_dicom(b"DICM")
    assert not is_dicom(b"")


@pytest.mark.parametrize(("pixels", "deep"), [(blob(), True), (RGB, False)])
def test_it_is_an_image_like_others(tmp_path, pixels, deep):
    file = write(tmp_path / "IM-0001", pixels)
    facts = inspect_image(file)
    assert facts == ImageFacts("dicom", *pixels.shape[:2], deep=deep)
    np.testing.assert_array_equal(decode_outside(file, facts, "minmax"), decode_dicom(file, "minmax"))


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda uid: uid.keyword)
def test_an_old_file_without_preamble_is_read_if_its_name_says_dicom(tmp_path, syntax):
    data = dicom(blob(), syntax=syntax)
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    bare = tmp_path / "a.IMA"
    del data.file_meta
    data.preamble = None
    data.save_as(bare, implicit_vr=implicit, little_endian=little)
    np.testing.assert_allclose(
        decode_outside(bare, inspect_image(bare), "minmax")[:, :, 0], stretched(blob()), atol=1e-3
    )
    other = bare.rename(tmp_path / "a.bin")
    with pytest.raises(BadImageError, match="not an image of a known format"):
        inspect_image(other)


def test_images_above_the_limit_are_refused_from_their_header(tmp_path):
    data = dicom(np.zeros((2, 2), "uint8"))
    data.compress(RLELossless)
    data.Rows = data.Columns = 65535
    with pytest.raises(BadImageError, match="65535×65535 pixels are above the limit"):
        inspect_image(save(tmp_path / "a.dcm", data))


def test_compressed_pixels_in_implicit_elements_are_read(tmp_path):
    data = dicom(blob())
    data.compress(RLELossless)
    whole = save(tmp_path / "a.dcm", data).read_bytes()
    header = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    del data.file_meta
    data.preamble = None
    data.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    (tmp_path / "b.dcm").write_bytes(header + (tmp_path / "b.dcm").read_bytes())
    np.testing.assert_allclose(grey(tmp_path / "b.dcm"), stretched(blob()), atol=1e-3)


# What can be wrong


def test_a_file_that_is_not_there(tmp_path):
    assert reason(tmp_path / "a.dcm") == "not found"


@pytest.mark.parametrize("contents", [b"", b"x", b"some text, not DICOM at all" * 20, bytes(1000), b"\xff" * 500])
def test_a_name_alone_makes_no_dicom(tmp_path, contents):
    file = tmp_path / "a.dcm"
    file.write_bytes(contents)
    with pytest.raises(BadImageError) as error:
        inspect_image(file)
    assert error.value.reason in ("not a DICOM file", "an empty file")


def test_a_web_page_in_place_of_an_image_is_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"<!DOCTYPE html><html>" + b" " * 500)
    with pytest.raises(BadImageError, match="an HTML page"):
        inspect_image(tmp_path / "a.dcm")


def test_an_image_of_another_format_called_dcm_is_read_as_what_it_is(tmp_path):
    from PIL import Image

    Image.fromarray(RGB).save(tmp_path / "a.dcm", "PNG")
    assert inspect_image(tmp_path / "a.dcm").decoder == "png8"


@pytest.mark.parametrize("seed", range(20))
def test_garbage_after_the_preamble(tmp_path, seed):
    file = tmp_path / "a.dcm"
    file.write_bytes(bytes(128) + b"DICM" + np.random.default_rng(seed).bytes(3000))
    reason(file)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_flipped_bytes_are_never_more_than_a_bad_image(tmp_path, syntax, seed):
    data = dicom(blob(), WindowCenter=40, WindowWidth=400, syntax=syntax if syntax in NATIVE else NATIVE[1])
    if syntax not in NATIVE:
        data.compress(syntax)
    file = save(tmp_path / "a.dcm", data)
    contents = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(132, len(contents) if syntax not in NATIVE else 800, 12):
        contents[place] = rng.integers(256)
    file.write_bytes(contents)
    try:
        assert decode_dicom(file, "auto").dtype == np.float32
    except BadImageError as error:
        assert error.reason


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_truncated_pixels(tmp_path, syntax):
    data = dicom(blob(), syntax=syntax if syntax in NATIVE else ExplicitVRLittleEndian)
    if syntax not in NATIVE:
        data.compress(syntax)
    file = save(tmp_path / "a.dcm", data)
    file.write_bytes(file.read_bytes()[:-200])
    assert "truncated" in reason(file) or syntax == DeflatedExplicitVRLittleEndian and "damaged" in reason(file)


def test_truncated_frames_are_found_from_the_header(tmp_path):
    file = write(tmp_path / "a.dcm", np.stack([blob(), blob()]), NumberOfFrames=2)
    file.write_bytes(file.read_bytes()[:-10])
    assert "truncated" in reason(file, frame=0)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.keyword)
def test_no_pixels(tmp_path, syntax):
    data = dicom(blob(), syntax=syntax)
    del data.PixelData
    words = reason(save(tmp_path / "a.dcm", data))
    assert "no pixel data" in words.lower().replace("'", "")


def test_a_document_says_what_it_is(tmp_path):
    data = dicom(blob())
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    del data.PixelData, data.Rows, data.Columns
    assert reason(save(tmp_path / "a.dcm", data)) == "a DICOM file without an image (Encapsulated PDF Storage)"


def test_an_image_cut_off_in_its_header(tmp_path):
    file = write(tmp_path / "a.dcm", blob())
    file.write_bytes(file.read_bytes()[:450])
    assert reason(file) == "its image is missing or truncated (Secondary Capture Image Storage)"


def test_a_reason_is_one_line_that_can_be_printed(tmp_path):
    file = write(tmp_path / "a.dcm", RGB, PhotometricInterpretation="CMYK")
    file.write_bytes(file.read_bytes().replace(b"CMYK", b"A\x07\x1bB"))
    assert reason(file).startswith("its pixels are A??B;")


def test_a_frame_that_is_not_there(tmp_path):
    file = write(tmp_path / "a.dcm", np.stack([blob(), blob()]), NumberOfFrames=2)
    assert reason(file, frame=2) == "there is no frame 3: the file has 2"


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", ""])
def test_colours_of_an_unknown_kind(tmp_path, photometric):
    file = write(tmp_path / "a.dcm", RGB, PhotometricInterpretation=photometric)
    assert "MONOCHROME2" in reason(file)
    with pytest.raises(BadImageError, match=photometric or "unknown kind"):
        read_header(file)


@pytest.mark.parametrize(
    ("photometric", "pixels"), [("MONOCHROME2", RGB), ("PALETTE COLOR", RGB), ("RGB", RGB[:, :, 0])]
)
def test_as_many_values_in_each_pixel_as_its_kind_has(tmp_path, photometric, pixels):
    file = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation=photometric)
    assert reason(file).startswith(f"damaged: {photometric} pixels have")


def test_video_is_refused(tmp_path):
    data = dicom(RGB)
    data.file_meta.TransferSyntaxUID = MPEG2MPML
    data.PixelData = encapsulate([b"video!"])
    data["PixelData"].is_undefined_length = True
    assert "its video (MPEG2 Main Profile" in reason(save(tmp_path / "a.dcm", data))


# Headers that the pixels deny: read where it is certain what they are, with a note; else refused by name


def noted(file, window="minmax"):
    notes = []
    return decode_dicom(file, window, notes=notes), notes


def of_length(pixels, **attributes):
    """A data set whose header is changed after its pixels were written."""
    data = dicom(pixels)
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_rgb_that_is_called_subsampled_is_read_as_long_as_it_is(tmp_path, syntax):
    frames = np.tile(np.stack([RGB, 255 - RGB]), (1, 6, 5, 1))
    data = dicom(frames, NumberOfFrames=2, syntax=syntax if syntax in NATIVE else NATIVE[1])
    if syntax not in NATIVE:
        data.compress(syntax)
    data.PhotometricInterpretation = "YBR_FULL_422"
    file = save(tmp_path / "a.dcm", data)
    for frame, pixels in enumerate(frames):
        image, notes = noted(FilePart(file, frame=frame))
        np.testing.assert_array_equal(image, pixels)
        assert notes == ["the header says YBR_FULL_422, but the pixels are not subsampled; read as RGB"]


def test_luminance_of_full_length_is_told_apart_from_rgb(tmp_path):
    ultrasound = np.full((8, 8, 3), (16, 128, 128), "uint8")
    ultrasound[2:5, 2:5] = (76, 85, 255)
    image, notes = noted(write(tmp_path / "a.dcm", ultrasound, PhotometricInterpretation="YBR_FULL_422"))
    np.testing.assert_allclose(image[0, 0], [16, 16, 16])
    np.testing.assert_allclose(image[3, 3], [254, 0, 0], atol=1)
    assert notes[0].endswith("read as YBR_FULL")
    either = np.full((8, 8, 3), (120, 100, 140), "uint8")
    file = write(tmp_path / "b.dcm", either, PhotometricInterpretation="YBR_FULL_422")
    assert "may be RGB or YBR_FULL" in reason(file)


def test_subsampled_colours_that_are_called_full_are_read_as_long_as_they_are(tmp_path):
    data = dicom(np.zeros((1, 4, 3), "uint8"), PhotometricInterpretation="YBR_FULL")
    data.PixelData = bytes([50, 60, 128, 128, 70, 80, 128, 128])
    image, notes = noted(save(tmp_path / "a.dcm", data))
    assert image[0, :, 0].tolist() == [50, 60, 70, 80]
    assert len(notes) == 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda uid: uid.keyword)
def test_values_of_12_bits_are_found_where_they_are_not_where_high_bit_is(tmp_path, syntax, signed):
    values = blob(peak=2000).astype("int16") - 900 if signed else blob()
    for shift in (0, 4):
        stored = (values << shift).astype(values.dtype)
        native = syntax if syntax in NATIVE else NATIVE[1]
        data = dicom(stored, syntax=native, BitsStored=12, HighBit=15)
        if syntax not in NATIVE:
            data.compress(syntax)
            data.HighBit = 15
        image, notes = noted(save(tmp_path / "a.dcm", data), "100,3000")
        expected = np.clip((values - (100.0 - 1500)) / 3000, 0, 1) * 255
        np.testing.assert_allclose(image[:, :, 0], expected, atol=1e-3)
        assert len(notes) == 1


@pytest.mark.parametrize("high", [11, 15, 13, 7])
def test_values_in_bits_that_the_header_does_not_name_are_refused_by_name(tmp_path, high):
    file = write(tmp_path / "a.dcm", blob() * 3 + 1, BitsStored=12, HighBit=high)
    assert reason(file).startswith(f"its header says BitsStored 12 and HighBit {high}, but its values use other bits")


def test_bits_above_the_values_are_noted_where_they_are_an_overlay_or_the_same_everywhere(tmp_path):
    clean = noted(write(tmp_path / "a.dcm", blob(), BitsStored=12))
    assert clean[1] == []
    image, notes = noted(write(tmp_path / "b.dcm", blob() | 0x5000, BitsStored=12))
    np.testing.assert_array_equal(image, clean[0])
    drawn = blob() | np.where(blob() > 2000, 0x1000, 0).astype("uint16")
    data = dicom(drawn, BitsStored=12)
    data.add_new((0x6000, 0x0102), "US", 12)
    overlaid, found = noted(save(tmp_path / "c.dcm", data))
    np.testing.assert_array_equal(overlaid, clean[0])
    assert notes == found == ["bits above BitsStored are set; ignored"]


def test_signs_are_those_of_the_least_and_greatest_value(tmp_path):
    values = np.array([[-1000, -5, 30, 900]], "int16")
    data = of_length(values, PixelRepresentation=0)
    data.add_new("SmallestImagePixelValue", "SS", -1000)
    data.add_new("LargestImagePixelValue", "SS", 900)
    image, notes = noted(save(tmp_path / "a.dcm", data))
    np.testing.assert_allclose(image[0, :, 0], (values[0] + 1000.0) / 1900 * 255, atol=1e-3)
    assert len(notes) == 1
    data.SmallestImagePixelValue = -999
    assert noted(save(tmp_path / "b.dcm", data))[1] == []


def test_colours_have_no_sign(tmp_path):
    image, notes = noted(write(tmp_path / "a.dcm", RGB, PixelRepresentation=1))
    np.testing.assert_array_equal(image, RGB)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("pixels", "attributes", "words"),
    [
        (blob(), {"PixelRepresentation": None}, "its header lacks PixelRepresentation"),
        (blob(), {"BitsStored": None}, "its header lacks BitsStored"),
        (blob(), {"BitsAllocated": None}, "its header lacks BitsAllocated"),
        (blob(), {"SamplesPerPixel": None}, "its header lacks SamplesPerPixel"),
        (RGB, {"PlanarConfiguration": None}, "its header lacks PlanarConfiguration"),
        (blob(), {"PixelRepresentation": 2}, "its header says PixelRepresentation 2, which is invalid"),
        (RGB, {"PlanarConfiguration": 3}, "its header says PlanarConfiguration 3, which is invalid"),
        (blob(), {"BitsStored": 17}, "its header says BitsStored 17 with BitsAllocated 16, which is invalid"),
        (blob(), {"BitsAllocated": 12, "BitsStored": 12}, "its header says BitsAllocated 12, which is invalid"),
        (blob(), {"BitsAllocated": 8, "BitsStored": 8}, "its header describes 1280 bytes of pixels, but it has 2560"),
        (blob(), {"BitsAllocated": 32}, "its header describes 5120 bytes of pixels, but it has 2560"),
        (blob(), {"NumberOfFrames": 2}, "its header describes 5120 bytes of pixels, but it has 2560"),
        (blob(), {"Rows": 16}, "its header describes 1280 bytes of pixels, but it has 2560"),
        (blob(), {"Columns": 39}, "its header describes 2496 bytes of pixels, but it has 2560"),
        (RGB, {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}, "its header describes 48 bytes"),
    ],
)
@pytest.mark.parametrize("deflated", [False, True])
def test_a_header_that_lacks_or_contradicts_what_pixels_are_is_named(tmp_path, pixels, attributes, words, deflated):
    data = of_length(pixels, **attributes)
    if deflated:
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    found = reason(save(tmp_path / "a.dcm", data))
    assert found.startswith(words) or deflated and "damaged" in found and "BitsStored" in attributes


@pytest.mark.parametrize("size", [None, 100, 300])
def test_a_palette_that_is_missing_or_of_another_length_is_named(tmp_path, size):
    data = dicom(RGB[:, :, 0], PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue") if size else ():
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(data, f"{name}PaletteColorLookupTableData", bytes(size))
    assert reason(save(tmp_path / "a.dcm", data)).startswith("its palette is missing or has another length")


def test_a_few_bytes_too_many_are_noted(tmp_path):
    data = dicom(blob())
    data.PixelData += bytes(4)
    image, notes = noted(save(tmp_path / "a.dcm", data))
    np.testing.assert_allclose(image[:, :, 0], stretched(blob()), atol=1e-3)
    assert len(notes) == 1
    odd = write(tmp_path / "b.dcm", RGB[:3, :3])
    assert noted(odd)[1] == []


def test_compressed_pixels_of_another_size_or_colour_are_called_so(tmp_path):
    colours = np.zeros((16, 16, 3), "uint8") + np.array([200, 60, 20], "uint8")
    for changes in ({"Rows": 8}, {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}):
        data = as_jpeg(dicom(colours), colours)
        data.update(changes)
        assert "differ in size or colours from its header" in reason(save(tmp_path / "a.dcm", data))


# What may not be installed


def test_pydicom_is_asked_for_by_the_name_of_the_extra(tmp_path, monkeypatch):
    file = write(tmp_path / "a.dcm", blob())
    monkeypatch.setattr(dicom_guard, "find_spec", lambda name: None)
    assert "pip install 'radtransfer[dicom]'" in reason(file)


@pytest.mark.parametrize(
    ("syntax", "package"), [(JPEG2000Lossless, "pylibjpeg-openjpeg"), (JPEGLosslessSV1, "pylibjpeg-libjpeg")]
)
def test_a_missing_plugin_is_named_with_the_compression(tmp_path, monkeypatch, syntax, package):
    data = dicom(blob())
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([b"compressed"])
    data["PixelData"].is_undefined_length = True
    file = save(tmp_path / "a.dcm", data)
    assert "damaged pixel data" in reason(file)
    monkeypatch.setattr(type(get_decoder(syntax)), "is_available", property(lambda decoder: False))
    monkeypatch.setattr(dicom_file, "find_spec", lambda name: name == "pydicom" or None)
    assert f"({syntax.name}), which needs pylibjpeg and {package}; install them: pip install" in reason(file)


# What pydicom says


def test_what_pydicom_warns_of_and_logs_reaches_nobody(tmp_path, caplog):
    data = dicom(blob())
    data.compress(JPEG2000Lossless)
    file = save(tmp_path / "a.dcm", data)
    contents = file.read_bytes()
    half = contents.index(b"\xff\x4f\xff\x51") + 8
    file.write_bytes(contents[:half].replace(b"OT", b"o\t") + bytes(200) + contents[half + 200 :])
    before = list(warnings.filters)
    with caplog.at_level(logging.DEBUG):
        assert "damaged pixel data" in reason(file)
    assert not caplog.records
    assert warnings.filters == before
    assert logging.getLogger("pydicom").propagate


def test_threads_leave_the_warning_filters_as_they_were(tmp_path):
    file = write(tmp_path / "a.dcm", blob())
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(read_header, [file] * 100))
    assert warnings.filters == before


def test_a_deflated_file_that_unpacks_to_any_size_is_refused(tmp_path, monkeypatch):
    file = write(tmp_path / "bomb.dcm", np.zeros((2000, 2000), "uint8"), syntax=DeflatedExplicitVRLittleEndian)
    assert file.stat().st_size < 20_000
    for _ in range(2):  # with an even length and an odd one, which is padded
        assert decode_dicom(file, "minmax").shape == (2000, 2000, 3)
        file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr("radtransfer.images.dicom_file.DEFLATED_LIMIT", 3_000_000)
    assert "unpacks to more than 3 MB" in reason(file)
