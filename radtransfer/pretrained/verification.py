"""Whether a file is whole and the one that was published, and what it is."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from radtransfer.errors import WeightsError
from radtransfer.pretrained.manifest import WeightsCard, card_of_file, weights_cards
from radtransfer.weight_formats.pytorch import is_pytorch, read_pytorch
from radtransfer.weight_formats.reading import read_weight_file, sha256_of


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        file: Its path.
        size: Bytes.
        sha256: Of the file.
        arrays: Float arrays in it, all read and all finite.
        parameters: Numbers in them.
        card: Name of the card that it is, by its hash; by its name only where no hash is known.
        by: What the card was found by.
        verdict: "published": a published hash is the file's; "unknown": no hash is known that could be compared.
    """

    file: str
    size: int
    sha256: str
    arrays: int
    parameters: int
    card: str | None
    by: Literal["hash", "name"] | None
    verdict: Literal["published", "unknown"]


def verify_file(path: Path, *, ignore_lambda: bool = False) -> Verification:
    """Read all of `path` and compare its hash with those in the manifest.

    Args:
        path: The file.
        ignore_lambda: Read the weights of a file with Lambda layers too.

    Raises:
        WeightsError: It cannot be read, holds numbers that are not finite, or has the name of a published file but
            not its hash.
    """
    arrays = _arrays(path, ignore_lambda)
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"{path} holds values that are not finite in {len(bad)} arrays (first: {bad[0]}).")
    sha256, named = sha256_of(path), card_of_file(path)
    known = _card_of_hash(path, sha256)
    if known is None and named is not None and named.hashes:
        raise WeightsError(
            f"{path} has the name of {named.name}, but not its published hash: it was changed or damaged. "
            f"Get it again from {named.origin}, or rename it if it is your own."
        )
    card = known or named
    return Verification(
        file=str(path),
        size=path.stat().st_size,
        sha256=sha256,
        arrays=len(arrays),
        parameters=sum(array.size for array in arrays.values()),
        card=card.name if card else None,
        by="hash" if known else "name" if named else None,
        verdict="published" if known else "unknown",
    )


def _arrays(path: Path, ignore_lambda: bool) -> dict[str, np.ndarray]:
    if path.is_file() and is_pytorch(path):
        return {name: array for name, array in read_pytorch(path).tensors.items() if array.dtype.kind == "f"}
    layers = read_weight_file(path, ignore_lambda=ignore_lambda).layers
    return {f"{layer.label}/{leaf}": array for layer in layers for leaf, array in layer.arrays.items()}


def _card_of_hash(path: Path, sha256: str) -> WeightsCard | None:
    with path.open("rb") as handle:
        md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return next((card for card in weights_cards().values() if {md5, sha256} & set(card.hashes)), None)
