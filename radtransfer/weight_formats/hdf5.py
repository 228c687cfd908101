"""Arrays out of HDF5 files that are not trusted: bounded in size, and from this file only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.weight_formats.weight_file import SavedLayer

_MOST_COMPRESSED = 64
"""How many times larger than its file the declared content may be; float weights compress to half."""

Entry = tuple[SavedLayer, Mapping[str, Any]]
"""A saved layer without arrays, and its datasets by leaf name."""


def read_layers(entries: Sequence[Entry]) -> tuple[SavedLayer, ...]:
    """The layers whose datasets hold floats, of a file that `check_self_contained` has passed.

    Integer datasets are no weights (states of random generators, step counts) and are left out.
    """
    floats = [
        (layer, {leaf: dataset for leaf, dataset in leaves.items() if _is_float(dataset)}) for layer, leaves in entries
    ]
    return tuple(
        replace(layer, arrays={leaf: _array(dataset) for leaf, dataset in leaves.items()})
        for layer, leaves in floats
        if leaves
    )


def check_self_contained(file: h5py.File, *, file_size: int) -> None:
    """See that all of a file lies in it, once, and is no larger than its `file_size` bytes can hold. Nothing is read.

    Raises:
        WeightsError: A link or a dataset refers to another place, or more is declared than the file holds.
    """
    declared, links = 0, []
    file.visititems_links(lambda name, link: links.append((name, link)))  # h5py cannot stand an exception in there
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            where = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise WeightsError(f"holds a link, {name}, that refers to {where}; only self-contained files are read.")
        item = file[name]
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            continue
        # A dataset can name any file of the machine as its storage.
        if item.external or item.is_virtual:
            raise WeightsError(f"refers to another file for {item.name}; only self-contained files are read.")
        declared += item.nbytes
    if declared > _MOST_COMPRESSED * file_size + 2**20:
        raise WeightsError(
            f"declares {declared / 1e6:,.0f} MB of weights in {file_size / 1e6:,.1f} MB, which cannot be. "
            "Nothing was read. Download it again."
        )


def text(value: Any) -> str:
    """An attribute of either of HDF5's two kinds of string."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def _is_float(dataset: Any) -> bool:
    if not isinstance(dataset, h5py.Dataset):
        raise WeightsError(f"holds {type(dataset).__name__.lower()} where an array should be.")
    return dataset.dtype.kind == "f" or _is_bfloat16(dataset)


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16"


def _array(dataset: h5py.Dataset) -> np.ndarray:
    if _is_bfloat16(dataset):
        # The upper half of a float32; NumPy has no such type.
        return (dataset[()].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, which is told
        return np.asarray(dataset[()], dtype=np.float32)
