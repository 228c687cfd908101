"""Initializes every weight of a network as the transfer plan says.

Every tensor has its own random stream, derived from the seed, the name of its layer and its path in the layer. The
same seed therefore gives the same network, whatever was built before, and the same head for every initialization of
the backbone. No tensor keeps its previous value.
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

_FROM_PRETRAINED = {"mean_var": MeanVar.like, "sampled": Sampled, "shuffled": Shuffled}

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
"""Initializers of Keras layers that are not accessible as an attribute."""

_NEVER_DRAWN = ("Normalization", "STFTSpectrogram")
"""Keras layers whose weights are measured on data or computed, not trained."""


def initialize_weights(
    model: keras.Model,
    plan: TransferPlan | None,
    pretrained: Mapping[str, tuple[np.ndarray, ...]] | None,
    *,
    seed: int,
) -> None:
    """Set every weight of `model`, a backbone or a classifier that contains it.

    `plan` gives the initialization of the backbone's layers; None makes all weights random. `pretrained` maps layer
    names to arrays, for the whole backbone at full width.
    """
    draw_random(model, seed=seed)
    if plan is None:
        return
    for name, init in plan.inits.items():
        layer, arrays = model.get_layer(name), (pretrained or {}).get(name)
        if init == "pretrained":
            layer.set_weights(arrays or ())
        elif arrays is not None:
            _initialize_layer(layer, arrays, init, plan.batch_norm, seed=seed)
    if "gabor" in plan.inits.values():
        found = next((found for found in convolution_kernels(model) if found[0] in plan.inits), None)
        if found is None:
            raise ConfigError(
                f"Scheme gabor: expected a network with a 2-D convolution. Received: {model.name}, which has none. "
                "Use another scheme."
            )
        name, index, kernel = found
        # The scale of the pretrained filters, or that of He-normal ones without pretrained weights.
        scale = None if pretrained is None else float(np.std(pretrained[name][index]))
        kernel.assign(Gabor(scale=scale)(tuple(kernel.shape)))


def draw_random(model: keras.Model, *, seed: int) -> None:
    """Draw every weight from the initializer of its layer, seeded by `seed`, layer name and path.

    Raises ConfigError for a weight without an initializer, which would keep its previous value.
    """
    for layer, variables in model_variables(model).items():
        for path, item in variables.items():
            if type(item.owner).__name__ not in _NEVER_DRAWN:
                item.variable.assign(_drawn(item, layer, path, seed=derive_seed(seed, layer, path)))


def _drawn(item: LayerVariable, layer: str, path: str, *, seed: int) -> Any:
    variable, initializer = item.variable, _find_initializer(item)
    if not hasattr(initializer, "get_config"):
        found = "none" if initializer is None else "a function, which takes no seed"
        raise ConfigError(
            f"Variable {path} of layer {layer} ({type(item.owner).__name__}): expected an initializer, found {found}. "
            f"Give the layer that creates it an attribute {variable.name}_initializer."
        )
    config = initializer.get_config()
    if "seed" in config:  # constants have none
        initializer = type(initializer).from_config({**config, "seed": seed})
    value = initializer(variable.shape, dtype=variable.dtype)
    if variable.name == "bias" and getattr(item.owner, "unit_forget_bias", False):
        # The second of the four gates of an LSTM cell is the forget gate; Keras sets its bias in `build`.
        value = np.array(value)
        value[len(value) // 4 : len(value) // 2] = 1
    return value


def _find_initializer(item: LayerVariable) -> keras.initializers.Initializer | None:
    """Found by attribute name: `kernel_initializer` of a `kernel`, `recurrent_initializer` of a `recurrent_kernel`."""
    owner, name = item.owner, item.variable.name
    attributes = [name, *(attribute for attribute, value in vars(owner).items() if value is item.variable)]
    attributes += [attribute.removesuffix("_kernel") for attribute in attributes]
    attributes += ["depthwise"] if name == "kernel" else []  # DepthwiseConv
    named = (getattr(owner, f"{attribute}_initializer", None) for attribute in attributes)
    hidden = (_HIDDEN.get(f"{kind.__name__}/{name}") for kind in type(owner).__mro__)
    return next((found for found in named if found is not None), None) or next(
        (keras.initializers.get(found(owner)) for found in hidden if found is not None), None
    )


def _initialize_layer(layer: keras.Layer, arrays: tuple[np.ndarray, ...], init: str, policy: str, *, seed: int) -> None:
    """Initialize from the pretrained `arrays`: normalizations by the batch-norm `policy`, other tensors by `init`."""
    normalizations: dict[str, dict[str, tuple[LayerVariable, np.ndarray]]] = {}  # by path, also inside the layer
    for (path, item), array in zip(layer_variables(layer).items(), arrays, strict=True):
        if isinstance(item.owner, NORMALIZATIONS):
            normalizations.setdefault(path.rpartition("/")[0], {})[item.variable.name] = item, array
        elif init in _FROM_PRETRAINED and type(item.owner).__name__ not in _NEVER_DRAWN:
            tensor_seed = derive_seed(seed, layer.name, path)
            item.variable.assign(_FROM_PRETRAINED[init](array, seed=tensor_seed)(tuple(item.variable.shape)))
    if policy == "identity":  # the values that `draw_random` has set
        return
    for path, vectors in normalizations.items():
        values = {name: array for name, (_, array) in vectors.items()}
        layer_seed = derive_seed(seed, layer.name, *filter(None, [path]))
        initializers = batch_norm_initializers(policy, values, seed=layer_seed)
        for name, (item, _) in vectors.items():
            item.variable.assign(initializers[f"{name}_initializer"](tuple(item.variable.shape)))
