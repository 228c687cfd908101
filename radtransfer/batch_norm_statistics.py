"""Gives a network the batch-norm statistics of another, so that a comparison sees what weights changed, not they."""

import keras

from radtransfer.errors import ConfigError


def share_statistics(source: keras.Model, target: keras.Model) -> int:
    """Set the moving mean and variance of the batch-norm layers of `target` from those of the same name in `source`.

    Fine-tuning on other images changes them at once, whatever the learning rate, and with them which rectified
    channels live.

    Returns:
        How many layers were set.

    Raises:
        ConfigError: None has a counterpart of its name and width.
    """
    theirs = {layer.name: layer for layer in _layers(source)}
    count = 0
    for layer in _layers(target):
        other = theirs.get(layer.name)
        if other is not None and other.moving_mean.shape == layer.moving_mean.shape:
            layer.moving_mean.assign(other.moving_mean)
            layer.moving_variance.assign(other.moving_variance)
            count += 1
    if not count:
        raise ConfigError("--batch-norm shared: the networks have no batch-norm layer of one name and width in common.")
    return count


def _layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
