"""What each part of a network starts from.

Every weight is drawn from its own stream, derived from the seed and the layer's name: the same seed gives the
same network, whatever was built before it, and the head is the same whatever the backbone starts from.
"""

import keras

from radtransfer.pretrained import PretrainedWeights, assign
from radtransfer.seeds import derive_seed


def start(model: keras.Model, pretrained: PretrainedWeights | None, *, seed: int) -> None:
    """Give every weight of `model` its value before the first step.

    All layers are drawn at random; those that `pretrained` holds are then set from it.
    """
    draw_random(model, seed=seed)
    if pretrained is not None:
        assign(model, pretrained)


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
