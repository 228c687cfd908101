"""Gives every weight of a network its value before the first step, as the transfer plan says.

Every tensor is drawn from its own stream, derived from the seed, the layer's name and the tensor's: the same seed
gives the same network, whatever was built before it, and the head is the same whatever the backbone starts from.
"""

from collections.abc import Mapping

import keras
import numpy as np

from radtransfer.initializers import Gabor, MeanVar, Sampled, Shuffled, batch_norm_initializers
from radtransfer.seeds import derive_seed
from radtransfer.transfer import TransferPlan

NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
"""Layers that follow the plan's batch-norm policy."""

_FROM_VALUES = {"mean_var": MeanVar.like, "sampled": Sampled, "shuffled": Shuffled}


def start(
    model: keras.Model,
    plan: TransferPlan | None,
    pretrained: Mapping[str, tuple[np.ndarray, ...]] | None,
    *,
    seed: int,
) -> None:
    """Give every weight of `model` its value before the first step.

    Args:
        model: Holds the backbone's layers, alone or within a classifier. All of it is drawn at random first.
        plan: What the backbone's layers start from; None leaves them random.
        pretrained: Layer name to its arrays, for the whole backbone at full width; None where there are none.
        seed: Everything drawn follows from it.
    """
    draw_random(model, seed=seed)
    if plan is None:
        return
    for name, origin in plan.starts.items():
        layer, arrays = model.get_layer(name), (pretrained or {}).get(name)
        if not layer.weights:
            continue
        if origin == "pretrained":
            layer.set_weights(arrays)
        elif isinstance(layer, NORMALIZATIONS):
            _start_normalization(layer, arrays, plan.batch_norm, seed=seed)
        elif origin in _FROM_VALUES:
            _draw_like(layer, arrays, origin, seed=seed)
    if "gabor" in plan.starts.values():
        _set_gabor(_first_convolution(model, plan), pretrained)


def draw_random(model: keras.Model, *, seed: int) -> None:
    """Set every weight from its layer's own initializer, seeded by `seed`, layer name and weight name."""
    for layer in model.layers:
        for variable in layer.weights:
            initializer = getattr(layer, f"{variable.name}_initializer", None) or _initializer_by_role(
                layer, variable.name
            )
            if initializer is not None:
                stream = derive_seed(seed, layer.name, variable.name)
                variable.assign(reseeded(initializer, stream)(variable.shape, dtype=variable.dtype))


def reseeded(initializer: keras.initializers.Initializer, seed: int) -> keras.initializers.Initializer:
    """The same initializer with another seed; constants have none and come back as they are."""
    config = initializer.get_config()
    return type(initializer).from_config({**config, "seed": seed}) if "seed" in config else initializer


def _initializer_by_role(layer: keras.Layer, name: str) -> keras.initializers.Initializer | None:
    """Depthwise convolutions call their kernel's initializer by another name."""
    return getattr(layer, "depthwise_initializer", None) if name == "kernel" else None


def _start_normalization(layer: keras.Layer, arrays: tuple[np.ndarray, ...] | None, policy: str, *, seed: int) -> None:
    """The layer's own initial values are the policy `identity`."""
    if policy == "identity" or arrays is None:
        return
    vectors = {variable.name: array for variable, array in zip(layer.weights, arrays, strict=True)}
    initializers = batch_norm_initializers(policy, vectors, seed=derive_seed(seed, layer.name))
    for variable in layer.weights:
        variable.assign(initializers[f"{variable.name}_initializer"](tuple(variable.shape)))


def _draw_like(layer: keras.Layer, arrays: tuple[np.ndarray, ...], origin: str, *, seed: int) -> None:
    """Each tensor from the values of the pretrained one, by the initializer called `origin`."""
    for variable, array in zip(layer.weights, arrays, strict=True):
        stream = derive_seed(seed, layer.name, variable.name)
        variable.assign(_FROM_VALUES[origin](array, seed=stream)(tuple(variable.shape)))


def _first_convolution(model: keras.Model, plan: TransferPlan) -> keras.layers.Conv2D:
    """The convolution that sees the image."""
    layers = (layer for layer in model.layers if layer.name in plan.starts)
    return next(layer for layer in layers if isinstance(layer, keras.layers.Conv2D))


def _set_gabor(layer: keras.layers.Conv2D, pretrained: Mapping[str, tuple[np.ndarray, ...]] | None) -> None:
    """Filters of the magnitude of the pretrained ones, or of He-normal ones where there are none."""
    scale = None if pretrained is None else float(np.std(pretrained[layer.name][0]))
    layer.kernel.assign(Gabor(scale=scale)(tuple(layer.kernel.shape)))
