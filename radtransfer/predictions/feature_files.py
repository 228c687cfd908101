"""Files of features, written batch by batch, whole or not at all: .npz for NumPy, .parquet for tables.

x.npz      paths (images,), features float32 (images, …), layer (): `numpy.load("x.npz")`
x.parquet  path, features (a list of float32, in row-major order); the shape and the layer in the metadata
"""

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.runs import whole_file

SUFFIXES = (".npz", ".parquet")

Writer = Callable[[Sequence[str], np.ndarray], None]
"""Adds the paths and features, float32 (images, …), of a batch."""


def check_feature_file(path: Path) -> None:
    """See that features can be written in the format that the name of a file asks for.

    Raises:
        ConfigError: There is no such format, or its library is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out takes a file that ends in {' or '.join(SUFFIXES)}. Received: {path}.")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                "A .parquet file needs pyarrow: pip install 'radtransfer[parquet]'. Or write a .npz file."
            ) from None


@contextlib.contextmanager
def feature_file(path: Path, *, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """A writer of `path`, which appears when the block succeeds.

    Args:
        path: Ends in one of `SUFFIXES`.
        layer: Name, kept in the file.
        shape: Of the features of one image.
    """
    make = _npz if path.suffix.lower() == ".npz" else _parquet
    with whole_file(path) as part, make(part, layer, shape) as write:
        yield write


@contextlib.contextmanager
def _npz(part: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    """The numbers go to a temporary file first: how many there are is written before them."""
    paths: list[str] = []
    with tempfile.TemporaryFile(dir=part.parent) as numbers:

        def write(names: Sequence[str], features: np.ndarray) -> None:
            paths.extend(names)
            numbers.write(np.ascontiguousarray(features, "<f4").tobytes())

        yield write
        numbers.seek(0)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, value in (("paths", np.array(paths, dtype=str)), ("layer", np.array(layer))):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), *shape)}
                np.lib.format.write_array_header_2_0(member, header)
                while block := numbers.read(1 << 24):
                    member.write(block)


@contextlib.contextmanager
def _parquet(part: Path, layer: str, shape: tuple[int, ...]) -> Iterator[Writer]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = int(np.prod(shape))
    metadata = {"layer": layer, "shape": json.dumps(list(shape))}
    schema = pa.schema([("path", pa.string()), ("features", pa.list_(pa.float32(), size))], metadata=metadata)
    with pq.ParquetWriter(part, schema) as table:

        def write(names: Sequence[str], features: np.ndarray) -> None:
            values = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1), pa.float32()), size)
            table.write_table(pa.table([pa.array(names, pa.string()), values], schema=schema))

        yield write
