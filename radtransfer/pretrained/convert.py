"""What `radtransfer weights` does with one file: convert it, verify it, say what it holds."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtransfer.errors import ConfigError, WeightsError
from radtransfer.files import whole_file
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.match import assign, match_layers, match_network, recognize, weighted_layers
from radtransfer.pretrained.read import SavedLayer, WeightFile, read_weight_file, sha256_of
from radtransfer.pretrained.saved_model import is_saved_model, read_saved_model
from radtransfer.pretrained.source import Certainty, WeightSource, card_of_file, weights_cards
from radtransfer.pretrained.torch import convert_torch, torch_backbone
from radtransfer.pretrained.torch_file import is_pytorch, read_pytorch
from radtransfer.process import keras_defaults, require_keras

_SUFFIX = ".weights.h5"

_REASONS = {
    "run": "The run that made the file recorded it.",
    "assumed": "No card in the manifest; it is the backbone's own mode. --preprocessing overrides it.",
}


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        source: The file or folder that was read.
        out: The Keras file.
        backbone: Network it is for.
        layers: With weights, all of them read back and found equal.
        parameters: All numbers in them.
        notes: What differs from the source, one sentence each.
        left_out: Parts of the source that are not the backbone's.
        sha256: Of the file that was written.
    """

    source: str
    out: str
    backbone: str
    layers: int
    parameters: int
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    sha256: str


def convert_weights(
    source: Path, out: Path, *, backbone: str | None = None, overwrite: bool = False, ignore_lambda: bool = False
) -> Conversion:
    """Write the weights of `source` to `out`, a `.weights.h5` file, and read them back.

    Args:
        source: A PyTorch state dict (`.pt`, `.pth`, `.safetensors`), a SavedModel folder, or any Keras file.
        out: Its name ends with `.weights.h5`.
        backbone: Network; None to recognize it.
        overwrite: Replace `out` if it exists.
        ignore_lambda: Take the weights of a file with Lambda layers too.

    Raises:
        ConfigError: `out` exists or is called otherwise.
        WeightsError: `source` cannot be read, or what was written differs.
        WeightsMismatchError: It is of no known network, or of another than `backbone`.
    """
    if not out.name.endswith(_SUFFIX):
        raise ConfigError(
            f"The converted weights are a Keras file: expected a name that ends with {_SUFFIX}. Received: {out}."
        )
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another name.")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent}.")
    if backbone is not None:
        BACKBONES.check(backbone)
    tensors = read_pytorch(source) if source.is_file() and is_pytorch(source) else None
    file = _read(source, ignore_lambda) if tensors is None else None
    with keras_defaults():
        from keras.layers import BatchNormalization

        from radtransfer.models.architecture import build_architecture

        if file is not None:
            name, match = match_network(file, backbone)
            layers, notes, left_out = match.arrays, (file.lambda_note,) if file.lambdas else (), match.extra
        else:
            name = torch_backbone(source, tensors, backbone)
        model = build_architecture(name, image_size=None, pooling=None)
        targets = weighted_layers(model)
        if tensors is not None:
            epsilon = next(layer.epsilon for layer in model.layers if isinstance(layer, BatchNormalization))
            layers, notes, left_out = convert_torch(source, tensors, name, targets, epsilon)
        assign(model, layers)
        with whole_file(out) as part:
            model.save_weights(part)
            written = match_layers(read_weight_file(part), targets)
            if written.missing or not all(
                all(map(np.array_equal, written.arrays[name], arrays)) for name, arrays in layers.items()
            ):
                raise WeightsError("The written file does not hold what was read. Nothing was kept; is the disk full?")
    return Conversion(
        source=str(source),
        out=str(out),
        backbone=name,
        layers=len(layers),
        parameters=model.count_params(),
        notes=notes,
        left_out=left_out,
        sha256=sha256_of(out),
    )


def _read(source: Path, ignore_lambda: bool) -> WeightFile:
    if not source.is_dir():
        return read_weight_file(source, ignore_lambda=ignore_lambda)
    if not is_saved_model(source):
        raise WeightsError(f"{source} is a folder without saved_model.pb and variables/: no SavedModel.")
    require_keras()
    return read_saved_model(source)


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
    if path.is_file() and is_pytorch(path):
        arrays = {name: array for name, array in read_pytorch(path).items() if array.dtype.kind == "f"}
    else:
        layers = read_weight_file(path, ignore_lambda=ignore_lambda).layers
        arrays = {f"{layer.label}/{leaf}": array for layer in layers for leaf, array in layer.arrays.items()}
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"{path} holds values that are not finite in {len(bad)} arrays (first: {bad[0]}).")
    sha256, named = sha256_of(path), card_of_file(path)
    with path.open("rb") as handle:
        md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    known = next((card for card in weights_cards().values() if {md5, sha256} & set(card.hashes)), None)
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


@dataclass(frozen=True)
class Inspection:
    """What a weights file holds.

    Attributes:
        file: Its path.
        format: As of `WeightFile`.
        keras_version: Of the writer, where recorded.
        model_name: Of the saved model, where recorded.
        layers: With weights.
        parameters: All numbers in them.
        sha256: Of the file.
        not_finite: Of each variable with such values: its name, how many are NaN and how many infinite.
        lambdas: Names of its Lambda layers, whose effect on the images is unknown.
        backbone: The network whose every layer finds its weights here; None if it is none of ours.
        backbone_layers: With weights, without a head.
        channels: Of the images it takes.
        matched_by: What the layers were matched by.
        matched: Layers of the backbone that find their weights.
        missing: Layers of the backbone that do not.
        extra: Layers that are not the backbone's: a head, or another sub-model.
        card: Name in the manifest, if the file's name and network are known there.
        preprocessing: Mode it was trained with.
        preprocessing_sure: How that is known.
        preprocessing_certainty: Of the card.
        reason: Why that mode.
        terms: Of use.
    """

    file: str
    format: str
    keras_version: str | None
    model_name: str | None
    layers: int
    parameters: int
    sha256: str
    not_finite: tuple[dict[str, Any], ...] = ()
    lambdas: tuple[str, ...] = ()
    backbone: str | None = None
    backbone_layers: int | None = None
    channels: int | None = None
    matched_by: Literal["name", "order"] | None = None
    matched: int | None = None
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    card: str | None = None
    preprocessing: str | None = None
    preprocessing_sure: Certainty | None = None
    preprocessing_certainty: str | None = None
    reason: str | None = None
    terms: str | None = None


def inspect_weights(source: WeightSource, file: WeightFile) -> Inspection:
    """What `file`, which was read from `source`, holds. Builds networks to compare it with."""
    not_finite = []
    for layer in file.layers:
        for leaf, array in layer.arrays.items():
            nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            if nan or infinite:
                name = f"{layer.label}/{_leaf_name(layer, leaf)}"
                not_finite.append({"variable": name, "nan": nan, "infinite": infinite})
    facts: dict[str, Any] = {}
    found = recognize(file)
    if found is not None:
        backbone, match = found
        mode, sure = source.preprocessing_for(backbone)
        facts = {
            "backbone": backbone,
            "backbone_layers": len(match.arrays),
            "channels": match.channels,
            "matched_by": match.by,
            "matched": len(match.arrays),
            "missing": match.missing,
            "extra": match.extra,
            "preprocessing": mode,
            "preprocessing_sure": sure,
            "reason": _REASONS.get(sure),
        }
        if sure == "card":
            card = source.card
            facts |= {"card": card.name, "preprocessing_certainty": card.certainty}
            facts |= {"reason": card.reason, "terms": card.terms}
    return Inspection(
        file=str(file.path),
        format=file.format,
        keras_version=file.keras_version,
        model_name=file.model_name,
        layers=len(file.layers),
        parameters=file.parameters,
        sha256=sha256_of(file.path),
        not_finite=tuple(not_finite),
        lambdas=file.lambdas,
        **facts,
    )


def _leaf_name(layer: SavedLayer, leaf: str) -> str:
    """What Keras calls an array that the file only numbers, where the layer's kind tells; else `leaf`."""
    names = ()
    if layer.kind == "batch_normalization" and len(layer.arrays) == 4:
        names = ("gamma", "beta", "moving_mean", "moving_variance")
    elif layer.kind is not None and re.search("conv.*d$|dense$", layer.kind) and "separable" not in layer.kind:
        names = ("kernel", "bias")
    return names[int(leaf)] if leaf.isdigit() and int(leaf) < len(names) else leaf
