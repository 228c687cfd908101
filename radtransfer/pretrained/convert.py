"""Converts, verifies and inspects one weights file, for `radtransfer weights`."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from radtransfer.errors import ConfigError, WeightsError
from radtransfer.files import atomic_write
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.vit import POSITIONS
from radtransfer.pretrained.match import (
    Match,
    assign,
    match_layers,
    match_network,
    read_weights,
    recognize,
    weighted_layers,
)
from radtransfer.pretrained.read import WeightFile, read_weight_file, record_network, sha256_of
from radtransfer.pretrained.saved_model import is_saved_model, read_saved_model
from radtransfer.pretrained.source import WeightSource, known_weights, spec_of_file
from radtransfer.pretrained.torch_file import is_pytorch, read_pytorch
from radtransfer.process import keras_defaults, require_keras

_SUFFIX = ".weights.h5"

_REASONS = {
    "run": "Recorded by the run that wrote the file.",
    "assumed": "The file is not in the manifest, so the backbone's own mode is assumed. --preprocessing overrides it.",
}


def convert_weights(
    source: Path, out: Path, *, backbone: str | None = None, overwrite: bool = False, ignore_lambda: bool = False
) -> dict[str, Any]:
    """Write the weights of `source` to `out`, a `.weights.h5` file, read them back, and return the JSON of the command.

    `source` is a PyTorch state dict (`.pt`, `.pth`, `.safetensors`), a SavedModel folder, or any Keras file; without
    `backbone` its network is recognized. Raises ConfigError for `out`, WeightsError for `source` or a written file that
    differs, WeightsMismatchError for an unknown network or another one than `backbone`.
    """
    if not out.name.endswith(_SUFFIX):
        raise ConfigError(f"The output is a Keras file: expected a name that ends in {_SUFFIX}. Received: {out}.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Use --overwrite to replace it, or another name.")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent}. Create it, or use another name.")
    if backbone is not None:
        BACKBONES.check(backbone)
    if source.is_dir():
        if not is_saved_model(source):
            raise WeightsError(f"{source} is not a SavedModel: expected saved_model.pb and variables/ in the folder.")
        require_keras()
        file = read_saved_model(source)
    else:
        file = read_weights(source, backbone, ignore_lambda=ignore_lambda)
    with keras_defaults():
        from radtransfer.models.architecture import build_architecture

        name, match = match_network(file, backbone)
        spec = BACKBONES[name].with_options(**file.options)
        size = None
        if POSITIONS in match.arrays:
            # The size that the weights were trained with; they are resized where they are used at another.
            rows = len(match.arrays[POSITIONS][0]) - 1 - file.options.get("registers", 0)
            size = round(rows**0.5) * spec.patch
        model = build_architecture(spec, image_size=size, pooling=None)
        assign(model, match.arrays)
        with atomic_write(out) as part:
            model.save_weights(part)
            if file.options or file.preprocessing:
                record_network(part, name, file.options, file.preprocessing)
            written = match_layers(read_weight_file(part), weighted_layers(model))
            if written.missing or not all(
                all(map(np.array_equal, written.arrays[name], arrays)) for name, arrays in match.arrays.items()
            ):
                raise WeightsError("The written file differs from the source and was deleted. Is the disk full?")
    return {
        "source": str(source),
        "out": str(out),
        "backbone": name,
        "layers": len(match.arrays),
        "parameters": model.count_params(),
        "notes": file.notes + ((file.lambda_note,) if file.lambdas else ()),
        "left_out": match.extra + file.left_out,
        "sha256": sha256_of(out),
    }


def verify_file(path: Path, *, ignore_lambda: bool = False) -> dict[str, Any]:
    """Read all of `path`, compare its hash with those in the manifest, and return the JSON of the command.

    "card" is the name of the file in the manifest, found "by" its "hash", or by its "name" if no hash is published.
    Raises WeightsError if it cannot be read, has NaN or infinite values, or the name of a published file but another
    hash.
    """
    if path.is_file() and is_pytorch(path):
        arrays = {name: array for name, array in read_pytorch(path).items() if array.dtype.kind == "f"}
    else:
        layers = read_weight_file(path, ignore_lambda=ignore_lambda).layers
        arrays = {f"{layer.label}/{leaf}": array for layer in layers for leaf, array in layer.arrays.items()}
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(
            f"{path} contains NaN or infinite values in {len(bad)} arrays (first: {bad[0]}). Use another checkpoint."
        )
    sha256, named = sha256_of(path), spec_of_file(path)
    with path.open("rb") as handle:
        md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    known = next((spec for spec in known_weights().values() if {md5, sha256} & set(spec.hashes)), None)
    if known is None and named is not None and named.hashes:
        raise WeightsError(
            f"{path} has the name of {named.name}, but another hash than the published file: it was changed or "
            f"damaged. Get it again from {named.origin}, or rename it if it is your own."
        )
    spec = known or named
    return {
        "file": str(path),
        "size": path.stat().st_size,
        "sha256": sha256,
        "arrays": len(arrays),
        "parameters": sum(array.size for array in arrays.values()),
        "card": spec.name if spec else None,
        "by": "hash" if known else "name" if named else None,
        "verdict": "published" if known else "unknown",
    }


def inspect_weights(source: WeightSource, file: WeightFile) -> dict[str, Any]:
    """The content of `file`, which was read from `source`, as JSON; builds networks for comparison.

    "backbone" is the network of which the file has all layers, or None; "not_finite" lists variables with the number
    of NaN and infinite values.
    """
    not_finite = []
    for layer in file.layers:
        # The variable names that numbered arrays have in Keras, if the kind of the layer is known.
        names = ()
        if layer.kind == "batch_normalization" and len(layer.arrays) == 4:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
        elif layer.kind is not None and re.search("conv.*d$|dense$", layer.kind) and "separable" not in layer.kind:
            names = ("kernel", "bias")
        for leaf, array in layer.arrays.items():
            nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            if nan or infinite:
                name = f"{layer.label}/{names[int(leaf)] if leaf.isdigit() and int(leaf) < len(names) else leaf}"
                not_finite.append({"variable": name, "nan": nan, "infinite": infinite})
    found = recognize(file)
    backbone, match = found or (None, Match({}, (), (), None))
    mode, sure = source.preprocessing_for(backbone) if found else (None, None)
    spec = source.spec if sure == "card" else None
    return {
        "file": str(file.path),
        "format": file.format,
        "keras_version": file.keras_version,
        "model_name": file.model_name,
        "layers": len(file.layers),
        "parameters": file.parameters,
        "sha256": sha256_of(file.path),
        "not_finite": not_finite,
        "lambdas": file.lambdas,
        "backbone": backbone,
        "backbone_layers": len(match.arrays) if found else None,
        "channels": match.channels if found else None,
        "matched_by": match.by,
        "matched": len(match.arrays) if found else None,
        "missing": match.missing,
        "extra": match.extra,
        "card": spec and spec.name,
        "preprocessing": mode,
        "preprocessing_sure": sure,
        "preprocessing_certainty": spec and spec.certainty,
        "reason": spec.reason if spec else _REASONS.get(sure),
        "terms": spec and spec.terms,
    }
