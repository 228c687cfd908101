"""Gives every weight of a network its value before the first step, as the transfer plan says.

Every tensor is drawn from its own stream, derived from the seed, the layer's name and the tensor's path in the layer:
the same seed gives the same network, whatever was built before it, and the head is the same whatever the backbone
starts from. No tensor keeps what it held.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from radtransfer.errors import ConfigError
from radtransfer.initializers import Gabor, MeanVar, Sampled, Shuffled, batch_norm_initializers
from radtransfer.models.layers import LayerVariable, convolution_kernels, layer_variables, model_variables
from radtransfer.process import derive_seed
from radtransfer.transfer.plan import TransferPlan

NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
"""Layers that follow the plan's batch-norm policy."""

_FROM_VALUES = {"mean_var": MeanVar.like, "sampled": Sampled, "shuffled": Shuffled}

_HIDDEN = {
    "AdditiveAttention/scale": lambda _: "glorot_uniform",
    "Attention/concat_score_weight": lambda _: "ones",
    "Attention/scale": lambda _: "ones",
    "BatchNormalization/moving_stddev": lambda _: "ones",
    "BatchNormalization/renorm_mean": lambda layer: layer.moving_mean_initializer,
    "BatchNormalization/renorm_stddev": lambda _: "ones",
    "LayerScale/gamma": lambda layer: keras.initializers.Constant(layer.init_values),
    "RMSNormalization/scale": lambda _: "ones",
    "ReversibleEmbedding/reverse_embeddings": lambda layer: layer.embeddings_initializer,
    "SpectralNormalization/vector_u": lambda _: keras.initializers.TruncatedNormal(stddev=0.02),
}
"""Initializers that layers of Keras have, and show in no attribute."""

_NEVER_DRAWN = ("Normalization", "STFTSpectrogram")
"""Layers of Keras whose weights were measured on data or computed; training leaves them as they are."""


def start(
    model: keras.Model,
    plan: TransferPlan | None,
    pretrained: Mapping[str, tuple[np.ndarray, ...]] | None,
    *,
    seed: int,
) -> None:
    """Give every weight of `model`, a backbone or a classifier that holds it, its value before the first step.

    `plan` says what the backbone's layers start from; None leaves them random, as all others. `pretrained` maps layer
    name to arrays, for the whole backbone at full width.
    """
    draw_random(model, seed=seed)
    if plan is None:
        return
    for name, origin in plan.starts.items():
        layer, arrays = model.get_layer(name), (pretrained or {}).get(name)
        if origin == "pretrained":
            layer.set_weights(arrays or ())
        elif arrays is not None:
            _start_anew(layer, arrays, origin, plan.batch_norm, seed=seed)
    if "gabor" in plan.starts.values():
        found = next((found for found in convolution_kernels(model) if found[0] in plan.starts), None)
        if found is None:
            raise ConfigError(f"gabor sets the first 2-D convolution; {model.name} has none. Use another scheme.")
        first, place, kernel = found
        # Of the magnitude of the pretrained filters, or of He-normal ones where there are none.
        scale = None if pretrained is None else float(np.std(pretrained[first][place]))
        kernel.assign(Gabor(scale=scale)(tuple(kernel.shape)))


def draw_random(model: keras.Model, *, seed: int) -> None:
    """Set every weight from the initializer of the layer that owns it, seeded by `seed`, layer name and path.

    ConfigError: A weight has no initializer: drawn networks would keep what it happens to hold.
    """
    for layer, variables in model_variables(model).items():
        for path, item in variables.items():
            if type(item.owner).__name__ not in _NEVER_DRAWN:
                item.variable.assign(_drawn(item, layer, path, seed=derive_seed(seed, layer, path)))


def reseeded(initializer: keras.initializers.Initializer, seed: int) -> keras.initializers.Initializer:
    """The same initializer with another seed; constants have none and come back as they are."""
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed}) if "seed" in config else initializer


def _drawn(item: LayerVariable, layer: str, path: str, *, seed: int) -> Any:
    variable, initializer = item.variable, _initializer(item)
    if not hasattr(initializer, "get_config"):
        found = "none" if initializer is None else "a function, which takes no seed"
        raise ConfigError(
            f"Variable {path} of layer {layer} ({type(item.owner).__name__}): expected an initializer to draw it by, "
            f"found {found}. Give the layer that creates it an attribute {variable.name}_initializer."
        )
    value = reseeded(initializer, seed)(variable.shape, dtype=variable.dtype)
    if variable.name == "bias" and getattr(item.owner, "unit_forget_bias", False):
        # Of the four gates of an LSTM cell, the second forgets; Keras sets it within `build`.
        value = np.array(value)
        value[len(value) // 4 : len(value) // 2] = 1
    return value


def _initializer(item: LayerVariable) -> keras.initializers.Initializer | None:
    """By the name that the owner gives it: `kernel_initializer`, `recurrent_initializer` of a `recurrent_kernel`."""
    owner, name = item.owner, item.variable.name
    attributes = [name, *(attribute for attribute, value in vars(owner).items() if value is item.variable)]
    attributes += [attribute.removesuffix("_kernel") for attribute in attributes]
    attributes += ["depthwise"] if name == "kernel" else []  # of a DepthwiseConv
    named = (getattr(owner, f"{attribute}_initializer", None) for attribute in attributes)
    hidden = (_HIDDEN.get(f"{kind.__name__}/{name}") for kind in type(owner).__mro__)
    return next((found for found in named if found is not None), None) or next(
        (keras.initializers.get(found(owner)) for found in hidden if found is not None), None
    )


def _start_anew(layer: keras.Layer, arrays: tuple[np.ndarray, ...], origin: str, policy: str, *, seed: int) -> None:
    """Each tensor as `origin` says, from the pretrained one; those of normalizations as the batch-norm policy says."""
    # Those within the layer as well; their own initial values are the policy `identity`.
    normalizations: dict[str, dict[str, tuple[LayerVariable, np.ndarray]]] = {}
    for (path, item), array in zip(layer_variables(layer).items(), arrays, strict=True):
        if isinstance(item.owner, NORMALIZATIONS):
            normalizations.setdefault(path.rpartition("/")[0], {})[item.variable.name] = item, array
        elif origin in _FROM_VALUES and type(item.owner).__name__ not in _NEVER_DRAWN:
            stream = derive_seed(seed, layer.name, path)
            item.variable.assign(_FROM_VALUES[origin](array, seed=stream)(tuple(item.variable.shape)))
    if policy == "identity":
        return
    for path, vectors in normalizations.items():
        stream = derive_seed(seed, layer.name, *filter(None, [path]))
        initializers = batch_norm_initializers(
            policy, {name: array for name, (_, array) in vectors.items()}, seed=stream
        )
        for name, (item, _) in vectors.items():
            item.variable.assign(initializers[f"{name}_initializer"](tuple(item.variable.shape)))
