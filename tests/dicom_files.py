"""DICOM files for tests, written with pydicom."""

import io

import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)


def dicom(pixels, *, syntax=ExplicitVRLittleEndian, patient="P1", **attributes):
    """A data set around `pixels`: (height, width), with 3 colours last, and frames first if NumberOfFrames is given."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID = "OT", patient
    rows = 1 if "NumberOfFrames" in attributes else 0
    data.Rows, data.Columns = pixels.shape[rows : rows + 2]
    data.SamplesPerPixel = 3 if pixels.ndim == rows + 3 else 1
    data.PhotometricInterpretation = "RGB" if data.SamplesPerPixel == 3 else "MONOCHROME2"
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(data, name, value)
    data.HighBit = attributes.get("HighBit", data.BitsStored - 1)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    contents = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data.PixelData = contents + b"\0" * (len(contents) % 2)
    data["PixelData"].VR = "OW" if data.BitsAllocated > 8 else "OB"
    return data


def save(file, data):
    """Write `data` to `file` as a whole DICOM file."""
    data.save_as(file, enforce_file_format=True)
    return file


def write(file, pixels, **options):
    """`dicom` in a file."""
    return save(file, dicom(pixels, **options))


def as_jpeg(data, pixels):
    """`data` with its pixels, (height, width, 3) RGB of 8 bits, as a JPEG."""
    contents = io.BytesIO()
    Image.fromarray(pixels).save(contents, "JPEG", quality=95)
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.PixelData = encapsulate([contents.getvalue()])
    data["PixelData"].is_undefined_length = True
    return data


def lut(entries, first, bits, *, kind="US"):
    """An item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", kind, entries if kind == "US" else np.asarray(entries, "<u2").tobytes())
    return item


def blob(height=32, width=40, *, peak=4000, seed=0):
    """A smooth grey image, uint16, 0 to `peak`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    bright = np.exp(-((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / (height * 4))
    image = peak * bright + rng.uniform(0, peak / 20, bright.shape)
    return np.clip(image, 0, peak).astype("uint16")
