"""Reads a weights file of any format in the table, or says what the file is instead."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import h5py

from radtransfer.errors import WeightsError
from radtransfer.weight_formats import FORMATS
from radtransfer.weight_formats.carried_code import check_carries_no_code
from radtransfer.weight_formats.diagnosis import check_content, damage, no_weights
from radtransfer.weight_formats.hdf5_heaps import check_attributes, check_file_heaps
from radtransfer.weight_formats.weight_file import WeightFile

# What h5py, zipfile and json raise on damaged or hostile files.
_DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    NotImplementedError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_weight_file(path: Path) -> WeightFile:
    """All weights in `path`. Nothing in it is executed or unpickled.

    Raises:
        WeightsError: Not a weights file, damaged, or of a format that is not supported; says which.
    """
    check_content(path)
    try:
        if h5py.is_hdf5(path):
            check_file_heaps(path)
            with h5py.File(path) as file:
                check_attributes(file)
        for card in FORMATS.values():
            if card.recognizes(path):
                check_carries_no_code(path)
                return _with_layers(card.read(path))
        raise WeightsError(no_weights(path))
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except _DAMAGED as error:
        raise WeightsError(damage(path, error)) from None


def check_is_weights(path: Path) -> None:
    """Raises WeightsError if `path` is no weights file of any format, as far as its first bytes tell."""
    try:
        check_content(path)
        if not any(card.recognizes(path) for card in FORMATS.values()):
            raise WeightsError(no_weights(path))
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except _DAMAGED as error:
        raise WeightsError(damage(path, error)) from None


def sha256_of(path: Path) -> str:
    """The file's SHA-256, streamed."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _with_layers(file: WeightFile) -> WeightFile:
    if not file.layers:
        raise WeightsError("holds a model without any weights. Save it again with its weights.")
    return file
