"""Grey DICOM images as a viewer shows them; compared with arithmetic written out here and with pydicom's."""

import numpy as np
import pytest
from dicom_files import blob, dicom, lut, save, write
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from radtransfer.errors import BadImageError
from radtransfer.images.dicom import decode_dicom
from radtransfer.images.refs import FilePart

CT = np.array([[-1024, -160, -100, 0], [40, 140, 239, 3071]], "int16")


def decoded(file, window="auto"):
    """The image, whose three channels are the same."""
    image = decode_dicom(file, window)
    assert image.dtype == np.float32
    assert (image == image[:, :, :1]).all()
    return image[:, :, 0]


def shown_by_pydicom(data):
    """The image by pydicom's own functions, brought to 0–255."""
    values = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype("float64")
    # apply_voi_lut gives windows as stored values, LUTs as the LUT's.
    if "VOILUTSequence" in data:
        high, low = 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1, 0
    else:
        signed = data.PixelRepresentation
        ends = np.array(
            [-(2 ** (data.BitsStored - 1)), 2 ** (data.BitsStored - 1) - 1] if signed else [0, 2**data.BitsStored - 1]
        )
        low, high = ends * data.get("RescaleSlope", 1) + data.get("RescaleIntercept", 0)
    return (values - low) / (high - low) * 255


def test_a_ct_is_rescaled_and_seen_through_its_window(tmp_path):
    data = dicom(CT, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=40, WindowWidth=400)
    hounsfield = CT * 2.0 - 10
    expected = np.clip(((hounsfield - 39.5) / 399 + 0.5) * 255, 0, 255)
    np.testing.assert_allclose(decoded(save(tmp_path / "a.dcm", data)), expected, atol=1e-3)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("signed", [False, True])
def test_windows_agree_with_pydicom(tmp_path, function, signed):
    pixels = blob().astype("int16") - 1000 if signed else blob()
    options = {"VOILUTFunction": function} if function else {}
    data = dicom(pixels, RescaleSlope=0.5, RescaleIntercept=-100, WindowCenter=600, WindowWidth=900, **options)
    np.testing.assert_allclose(decoded(save(tmp_path / "a.dcm", data)), shown_by_pydicom(data), atol=1e-2)


def test_of_several_windows_the_first_is_used(tmp_path):
    several = write(tmp_path / "several.dcm", CT, WindowCenter=[40, 1000], WindowWidth=[400, 50])
    one = write(tmp_path / "one.dcm", CT, WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(decoded(several), decoded(one))


@pytest.mark.parametrize("width", [0, -4])
def test_a_window_without_width_is_none(tmp_path, width):
    file = write(tmp_path / "a.dcm", CT, WindowCenter=40, WindowWidth=width)
    np.testing.assert_allclose(decoded(file), (CT + 1024) / 4095 * 255, atol=1e-3)


def test_a_window_of_width_1_is_a_threshold(tmp_path):
    file = write(tmp_path / "a.dcm", CT, WindowCenter=40, WindowWidth=1)
    np.testing.assert_array_equal(decoded(file), np.where(CT > 39.5, 255, 0))


@pytest.mark.parametrize("kind", ["US", "OW"])
@pytest.mark.parametrize("first", [0, 100])
def test_a_voi_lut_comes_before_the_window_and_agrees_with_pydicom(tmp_path, kind, first):
    entries = (np.linspace(0, 1, 3000) ** 2 * 4095).astype(int).tolist()
    data = dicom(blob(), VOILUTSequence=[lut(entries, first, 12, kind=kind)], WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(decoded(save(tmp_path / "a.dcm", data)), shown_by_pydicom(data), atol=1e-3)


def test_a_modality_lut_stands_in_for_the_rescaling(tmp_path):
    pixels = np.array([[0, 1, 2, 3, 4, 9]], "uint16")
    window = {"WindowCenter": 300, "WindowWidth": 800, "VOILUTFunction": "LINEAR_EXACT"}
    file = write(tmp_path / "a.dcm", pixels, ModalityLUTSequence=[lut([100, 200, 400, 500], 1, 16)], **window)
    units = np.array([100, 100, 200, 400, 500, 500])
    np.testing.assert_allclose(decoded(file)[0], (units + 100) / 800 * 255, atol=1e-3)
    np.testing.assert_allclose(decoded(file, "minmax")[0], (units - 100) / 400 * 255, atol=1e-3)


def test_a_lut_may_count_from_a_negative_value_that_the_header_holds_unsigned(tmp_path):
    pixels = np.array([[-3, -2, -1, 5]], "int16")
    item = lut([0, 100, 255], 65534, 8)
    file = write(tmp_path / "a.dcm", pixels, VOILUTSequence=[item])
    np.testing.assert_allclose(decoded(file)[0], [0, 0, 100, 255], atol=1e-3)


def refusal(data, file, window="auto"):
    with pytest.raises(BadImageError) as error:
        decode_dicom(save(file, data), window)
    return error.value.reason


def test_a_window_of_an_unknown_kind_is_refused_and_small_letters_are_not(tmp_path):
    options = {"WindowCenter": 2000, "WindowWidth": 1000}
    upper, lower = (dicom(blob(), VOILUTFunction=name, **options) for name in ("SIGMOID", "SIGMOI_"))
    lower["VOILUTFunction"]._value = "sigmoid"
    np.testing.assert_array_equal(decoded(save(tmp_path / "a.dcm", upper)), decoded(save(tmp_path / "b.dcm", lower)))
    unknown = dicom(blob(), VOILUTFunction="GAMMA", **options)
    assert "unknown kind GAMMA; use --window minmax or CENTRE,WIDTH" in refusal(unknown, tmp_path / "c.dcm")
    assert decoded(tmp_path / "c.dcm", "minmax").max() == 255


def test_a_slope_of_0_is_refused(tmp_path):
    data = dicom(blob(), RescaleSlope=0, RescaleIntercept=5)
    assert refusal(data, tmp_path / "a.dcm", "minmax").startswith("its header says RescaleSlope 0")


@pytest.mark.parametrize(("slope", "intercept"), [(2, None), (None, -1024), (-1, 0), (0.001, 7)])
def test_a_slope_or_an_intercept_alone_counts(tmp_path, slope, intercept):
    options = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    data = dicom(blob().clip(40), **{name: value for name, value in options.items() if value is not None})
    values = blob().clip(40).astype("float64") * (1.0 if slope is None else slope) + (intercept or 0)
    image = decoded(save(tmp_path / "a.dcm", data), "200,3000")
    np.testing.assert_allclose(image, np.clip((values - 200) / 3000 + 0.5, 0, 1) * 255, atol=1e-3)


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    ("entries", "descriptor"),
    [(200, [256, 0, 12]), (200, [100, 0, 12]), (200, [200, 0, 8]), (200, [200, 0, 0]), (200, None)],
)
def test_a_lut_that_is_not_what_it_says_is_refused(tmp_path, sequence, entries, descriptor):
    for kind in ("US", "OW"):
        item = lut(list(range(100, 100 + 2 * entries, 2)), 0, 12, kind=kind)
        if descriptor is None:
            del item.LUTDescriptor
        else:
            item.LUTDescriptor = descriptor
        words = refusal(dicom(blob(), **{sequence: [item]}), tmp_path / "a.dcm")
        assert "a LUT" in words
        assert words.startswith("its header")


@pytest.mark.parametrize("window", ["auto", "minmax", "600,900"])
def test_an_inverse_presentation_is_honoured_and_not_twice(tmp_path, window):
    options = {"WindowCenter": 1500, "WindowWidth": 2000}
    plain = decoded(write(tmp_path / "a.dcm", blob(), **options), window)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        names = {"PhotometricInterpretation": photometric, "PresentationLUTShape": "INVERSE"}
        file = write(tmp_path / "b.dcm", blob(), **names, **options)
        np.testing.assert_allclose(decoded(file, window), 255 - plain, atol=1e-4)
    identity = write(tmp_path / "c.dcm", blob(), PresentationLUTShape="IDENTITY", **options)
    np.testing.assert_array_equal(decoded(identity, window), plain)


def test_what_a_header_says_twice_and_otherwise_is_noted(tmp_path):
    notes = []
    options = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"}
    file = write(tmp_path / "a.dcm", blob(), WindowCenter=1, WindowWidth=0, **options)
    decode_dicom(file, "auto", notes=notes)
    assert len(notes) == 2
    assert any("MONOCHROME1" in note for note in notes)


# Without a window in the header


def test_deep_images_without_a_window_reach_from_their_smallest_to_their_largest_value(tmp_path):
    pixels = np.array([[500, 600, 1500]], "uint16")
    np.testing.assert_allclose(decoded(write(tmp_path / "a.dcm", pixels))[0], [0, 25.5, 255], atol=1e-3)


def test_images_of_8_bits_without_a_window_are_shown_as_they_are_stored(tmp_path):
    pixels = np.array([[50, 60, 150]], "uint8")
    assert decoded(write(tmp_path / "a.dcm", pixels))[0].tolist() == [50, 60, 150]
    rescaled = write(tmp_path / "b.dcm", pixels, RescaleSlope=1, RescaleIntercept=-50)
    assert decoded(rescaled)[0].tolist() == [0, 26, 255]


def test_images_of_8_bits_have_whole_numbers_and_deeper_ones_are_not_rounded(tmp_path):
    window = {"WindowCenter": 100, "WindowWidth": 90}
    shallow = decoded(write(tmp_path / "a.dcm", (blob() // 16).astype("uint8"), **window))
    deep = decoded(write(tmp_path / "b.dcm", blob(), WindowCenter=2000, WindowWidth=4096))
    assert (shallow % 1 == 0).all()
    assert (deep % 1 != 0).any()
    assert len(np.unique(deep)) > 256


@pytest.mark.parametrize("window", ["auto", "minmax", "40,400"])
def test_an_image_of_one_value_has_no_division_by_zero(tmp_path, window):
    image = decoded(write(tmp_path / "a.dcm", np.full((4, 5), 40, "uint16")), window)
    np.testing.assert_array_equal(image, 127.5 if window == "40,400" else 0)


# The setting


def test_minmax_and_a_given_window_pass_over_the_header(tmp_path):
    file = write(tmp_path / "a.dcm", CT, WindowCenter=2000, WindowWidth=10, RescaleSlope=2, RescaleIntercept=-10)
    hounsfield = CT * 2.0 - 10
    np.testing.assert_allclose(decoded(file, "minmax"), (hounsfield + 2058) / 8190 * 255, atol=1e-3)
    np.testing.assert_allclose(decoded(file, "40,400"), np.clip((hounsfield + 160) / 400, 0, 1) * 255, atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "padding", "limit"),
    [
        (np.array([[-2000, 0, 100]], "int16"), -2000, None),
        (np.array([[-2000, -1990, 0, 100]], "int16"), -2000, -1980),
        (np.array([[-2000, 0, 100]], "int16"), 63536, None),
        (np.array([[63536, 0, 100]], "uint16"), -2000, None),
    ],
)
def test_padding_does_not_count(tmp_path, pixels, padding, limit):
    data = dicom(pixels)
    data.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    if limit is not None:
        data.add_new("PixelPaddingRangeLimit", "SS", limit)
    image = decoded(save(tmp_path / "a.dcm", data), "minmax")[0]
    assert image[-2:].tolist() == [0, 255]
    np.testing.assert_array_equal(decoded(tmp_path / "a.dcm")[0], image)


def test_an_image_of_padding_alone_is_read(tmp_path):
    file = write(tmp_path / "a.dcm", np.zeros((3, 3), "uint16"), PixelPaddingValue=0)
    assert not decoded(file).any()


# How values are stored


@pytest.mark.parametrize("window", ["auto", "minmax", "600,900"])
def test_monochrome1_is_inverted_after_the_window(tmp_path, window):
    options = {"WindowCenter": 1500, "WindowWidth": 2000}
    dark = write(tmp_path / "dark.dcm", blob(), PhotometricInterpretation="MONOCHROME1", **options)
    bright = write(tmp_path / "bright.dcm", blob(), **options)
    np.testing.assert_allclose(decoded(dark, window), 255 - decoded(bright, window), atol=1e-4)


def test_bits_that_are_not_stored_do_not_count(tmp_path):
    clean = write(tmp_path / "clean.dcm", blob(), BitsStored=12)
    dirty = write(tmp_path / "dirty.dcm", blob() | 0x5000, BitsStored=12)
    np.testing.assert_array_equal(decoded(dirty), decoded(clean))


def test_signed_values_of_12_bits_keep_their_sign(tmp_path):
    values = np.array([[-2048, -1, 0, 2047]], "int16")
    unsigned_above = (values.astype("uint16") & 0x0FFF).astype("int16")
    file = write(tmp_path / "a.dcm", unsigned_above, BitsStored=12)
    np.testing.assert_allclose(decoded(file)[0], (values[0] + 2048) / 4095 * 255, atol=1e-3)


# Frames with values of their own


def enhanced(pixels):
    """Two frames, each with its own rescaling and window; what is shared has another, which does not count."""
    data = dicom(pixels, NumberOfFrames=2, RescaleSlope=100, WindowCenter=1, WindowWidth=2)

    def group(slope, centre):
        rescale, window, item = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, 0
        window.WindowCenter, window.WindowWidth = centre, 1000
        window.VOILUTFunction = "LINEAR_EXACT"
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = [rescale], [window]
        return item

    data.PerFrameFunctionalGroupsSequence = [group(1, 500), group(2, 1500)]
    return data


def test_each_frame_has_its_own_rescaling_and_window(tmp_path):
    pixels = np.array([[[0, 250, 900]], [[500, 600, 900]]], "uint16")
    file = save(tmp_path / "a.dcm", enhanced(pixels))
    np.testing.assert_allclose(decoded(file)[0], [0, 63.75, 229.5], atol=1e-3)
    np.testing.assert_allclose(decoded(FilePart(file, frame=1))[0], [0, 51, 204], atol=1e-3)


def test_what_all_frames_share_counts_where_a_frame_has_none(tmp_path):
    data = enhanced(np.array([[[0, 250, 900]], [[500, 600, 900]]], "uint16"))
    data.SharedFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:1]
    del data.PerFrameFunctionalGroupsSequence
    np.testing.assert_allclose(
        decoded(FilePart(save(tmp_path / "a.dcm", data), frame=1))[0], [127.5, 153, 229.5], atol=1e-3
    )
