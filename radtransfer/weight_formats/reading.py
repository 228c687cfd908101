"""Reads a weights file of any format in the table, or says what the file is instead."""

import hashlib
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from radtransfer.errors import WeightsError
from radtransfer.weight_formats import FORMATS
from radtransfer.weight_formats.carried_code import lambdas_in
from radtransfer.weight_formats.container import container_of, open_hdf5
from radtransfer.weight_formats.diagnosis import check_content, damage, no_weights
from radtransfer.weight_formats.weight_file import WeightFile

DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    SystemError,
    EOFError,
    NotImplementedError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What h5py, zipfile and json raise on damaged or hostile files."""


def read_weight_file(path: Path, *, ignore_lambda: bool = False) -> WeightFile:
    """All weights in `path`. Nothing in it is executed or unpickled.

    Args:
        path: The file.
        ignore_lambda: Read the weights of a model with Lambda layers too, whose effect nobody knows then.

    Raises:
        WeightsError: Not a weights file, damaged, or of a format that is not supported; says which.
    """
    check_content(path)
    try:
        if container_of(path) == "hdf5":
            open_hdf5(path).close()
        for card in FORMATS.values():
            if card.recognizes(path):
                lambdas = lambdas_in(path, allowed=ignore_lambda)
                return replace(_with_layers(card.read(path)), lambdas=lambdas)
        raise WeightsError(no_weights(path))
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if str(path) in told else f"weights file {path} {told}") from None
    except DAMAGED as error:
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
    except DAMAGED as error:
        raise WeightsError(damage(path, error)) from None


def sha256_of(path: Path) -> str:
    """The file's SHA-256, streamed."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _with_layers(file: WeightFile) -> WeightFile:
    if not file.layers:
        raise WeightsError("holds a model without any weights. Save it again with its weights.")
    return file
