"""Files that are no images we read are called what they are."""

import io
import zipfile

import numpy as np
import pytest

from radtransfer.data.checks import survey_image
from radtransfer.errors import BadImageError
from radtransfer.images.files import format_by_name
from radtransfer.images.formats import inspect_image


def zipped(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            file.writestr(name, "content")
    return data.getvalue()


def numpy_file(**arrays):
    data = io.BytesIO()
    np.savez(data, **arrays) if arrays else np.save(data, np.zeros(3))
    return data.getvalue()


def nifti(order):
    return (348).to_bytes(4, order) + bytes(340) + b"n+1\0" + bytes(100)


CONTENTS = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90),
    "HEIC of several kinds": b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf" + bytes(90),
    "AVIF": b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiafMA1B" + bytes(90),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90),
    "JPEG 2000 codestream": b"\xff\x4f\xff\x51" + bytes(90),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90),
    "JPEG XL codestream": b"\xff\x0a" + bytes(90),
    "NIfTI": nifti("little"),
    "NIfTI big-endian": nifti("big"),
    "NIfTI 2": (540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + bytes(600),
    "FITS": b"SIMPLE  =                    T" + bytes(100),
    "BPG": b"BPG\xfb" + bytes(90),
    "DDS": b"DDS " + bytes(120),
    "PAM": b"P7\nWIDTH 2\n",
    "PFM": b"Pf\n2 2\n-1.0\n" + bytes(16),
    "MetaImage": b"ObjectType = Image\nNDims = 3\n",
    "NRRD": b"NRRD0004\ntype: short\n",
    "NumPy": numpy_file(),
    "NumPy archive": numpy_file(a=np.zeros(3)),
    "ZIP": zipped("a.png"),
    "gzip": b"\x1f\x8b\x08" + bytes(90),
    "SVG": b'<?xml version="1.0"?>\n<svg width="4"></svg>',
    "PDF": b"%PDF-1.7\n",
    "video": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(90),
    "video in RIFF": b"RIFF\0\0\0\0AVI LIST" + bytes(90),
    "Excel workbook": zipped("[Content_Types].xml", "xl/workbook.xml"),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".dcm", ""])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_of_another_format_is_named_by_its_content_whatever_it_is_called(tmp_path, kind, suffix):
    file = tmp_path / f"image{suffix}"
    file.write_bytes(CONTENTS[kind])
    name = next(name for name in CONTENTS if kind.startswith(name))
    with pytest.raises(BadImageError) as caught:
        inspect_image(file)
    assert caught.value.reason.startswith(f"{name}, which is not read; ")
    assert survey_image(file).problem == "unreadable"


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *[("a.HEIC", "HEIC"), ("1.2.840.nii.gz", "NIfTI"), ("x.nii", "NIfTI"), ("s.mhd", "MetaImage")],
        *[("s.svs", "whole slide"), ("a.tar.gz", "TAR"), ("b.gz", "gzip"), ("c.czi", "microscopy")],
        *[("a.png", None), (".a.heic", None), ("heic", None), ("a.txt", None), ("nii.gz", "gzip"), ("", None)],
    ],
)
def test_a_format_is_known_by_the_end_of_a_name(name, format):
    assert format_by_name(name) == format


def test_a_name_says_more_than_a_container(tmp_path):
    (tmp_path / "volume.nii.gz").write_bytes(CONTENTS["gzip"])
    with pytest.raises(BadImageError, match="NIfTI, which is not read; write its slices as PNG"):
        inspect_image(tmp_path / "volume.nii.gz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
        (b"/annex/objects/MD5E-s12345--d41d8cd98f00b204.png\n", "a git-annex pointer.*datalad get"),
        (b".git/annex/objects/Xk/9w/MD5E-s1--1.png/MD5E-s1--1.png", "a git-annex pointer"),
        (b"../../.git/annex/objects/Xk/9w/MD5E-s1--1.png/MD5E-s1--1.png", "the path of a link, not an image"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.dcm"])
def test_a_pointer_in_place_of_an_image_is_called_one(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadImageError, match=reason):
        inspect_image(tmp_path / name)
    assert survey_image(tmp_path / name).problem == "not_an_image"
