"""What a file is that users take for a weights file, told from its content."""

import re
import zipfile
from pathlib import Path

import h5py

from radtransfer.errors import WeightsError, WeightsNotFoundError

_AGAIN = "Download it again."
_CONVERT = "Make a Keras file of it: radtransfer weights convert FILE OUT.weights.h5"
_SAVE_AGAIN = "Where it is trusted, load it in PyTorch and torch.save its state dict again, then convert that"

# The first bytes of files that are not weights, and what to say.
_BEGINNINGS = (
    (
        rb"(?i)\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|\?xml)",
        "is an HTML page, not HDF5: {file}. Google Drive returns its virus-scan page for large files; "
        "download it in a browser or with gdown.",
    ),
    (rb"version https://git-lfs", 'is a Git LFS pointer, not the file itself: {file}. Run "git lfs pull".'),
    (rb"\x80[\x02-\x05]", "is a pickle or old PyTorch file, never opened: {file}. " + _SAVE_AGAIN + "."),
    (rb".{257}ustar", "is a tar, as PyTorch wrote before 0.2, never opened: {file}. " + _SAVE_AGAIN + "."),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "is compressed: {file}. Unpack it first."),
    (rb"Rar!|7z\xbc\xaf", "is a packed archive: {file}. Unpack it and pass the .h5 file in it."),
    (rb"\x93NUMPY", "is a NumPy array: {file}. Pass a Keras file (.h5, .weights.h5, .keras)."),
)


def check_content(path: Path) -> None:
    """Raises WeightsError if the first bytes show that `path` is no weights file."""
    try:
        with path.open("rb") as handle:
            head = handle.read(1024)
    except FileNotFoundError:
        raise WeightsNotFoundError(f"no weights file at {path}.") from None
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}.") from None
    if not head:
        raise WeightsError(f"weights file is empty (0 bytes): {path}. {_AGAIN}")
    for beginning, message in _BEGINNINGS:
        if re.match(beginning, head, flags=re.DOTALL):
            raise WeightsError("weights file " + message.format(file=f"{path} ({_size(path)})"))
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise WeightsError(f"weights file is truncated: {path} ({_size(path)}, a zip without end). {_AGAIN}")


def damage(path: Path, error: Exception) -> str:
    """What an exception raised while reading tells the user."""
    sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", str(error))
    if sizes:
        found, whole = (int(size) / 1e6 for size in sizes.groups())
        return f"weights file is truncated ({found:.1f} of {whole:.1f} MB): {path}. {_AGAIN}"
    reason = str(error).strip("'\"") or type(error).__name__
    return f"weights file is damaged: {path} ({_size(path)}; {reason}). {_AGAIN}"


def no_weights(path: Path) -> str:
    """What to say about a file that no format recognizes."""
    if zipfile.is_zipfile(path):
        return _no_weights_in_zip(path)
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            held = ", ".join(sorted(map(str, file))[:5]) or "nothing"
        return (
            f"{path} is HDF5 but holds no Keras weights (it holds {held}). "
            "Expected a file that Keras wrote with save or save_weights."
        )
    with path.open("rb") as handle:
        head = handle.read(16)
    return (
        f"{path} ({_size(path)}) is not a weights file: it begins with {str(head)[1:]}. "
        "Expected a Keras file (.h5, .weights.h5, .keras)."
    )


def _no_weights_in_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return f"weights file is a PyTorch file: {path} ({_size(path)}). {_CONVERT}."
    inside = [name for name in names if name.endswith((".h5", ".keras", ".hdf5"))]
    if inside:
        return f"{path} is a zip that holds {', '.join(inside[:5])}. Unpack it and pass one of them."
    return (
        f"{path} is a zip but not a .keras file (it holds {', '.join(names[:5]) or 'nothing'}). "
        "Expected config.json and model.weights.h5 in it."
    )


def _size(path: Path) -> str:
    size = path.stat().st_size
    if size >= 1e6:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e3:.0f} kB" if size >= 1e3 else f"{size} bytes"
