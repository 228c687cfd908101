"""Moving statistics of batch norm: measured anew after brief training, or taken over from another network.

After s steps at momentum m, a share m^s of the initial moving mean and variance is still there: at Keras' 0.99 and
85 steps 43 %, which made a network of AUC 0.988 look like one of 0.655. Until 5/(1 − m) steps, when less than 1 % is
left, the statistics are therefore measured over training images before they are used.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from radtransfer.errors import ConfigError
from radtransfer.models.layers import sub_layers
from radtransfer.training.step import Learner

IMAGES = 512
"""Training images, at most, that the statistics are measured on."""


def settled_after(momentum: float | None) -> int:
    """Steps after which moving statistics can be trusted; 0 for networks without batch norm."""
    return 0 if momentum is None else round(5 / (1 - momentum))


def reestimate_statistics(learner: Learner, batches: Iterable[tuple[tf.Tensor, ...]]) -> None:
    """Set the moving statistics of every trainable batch-norm layer from `batches` of training images.

    The variance is that of all images: mean of the batch variances plus variance of the batch means. Frozen layers
    keep theirs.
    """
    layers = trainable_batch_norms(learner.classifier.model)
    if not layers:
        return
    means, variances = [], []
    for images, *_ in batches:
        # From zero, one update leaves (1 − momentum) times the statistics of the batch.
        _set(layers, [(0.0 * layer.moving_mean, 0.0 * layer.moving_variance) for layer in layers])
        learner.observe(images)
        means.append([np.array(layer.moving_mean, np.float64) / (1 - layer.momentum) for layer in layers])
        variances.append([np.array(layer.moving_variance, np.float64) / (1 - layer.momentum) for layer in layers])
    for i, layer in enumerate(layers):
        of_layer = np.stack([batch[i] for batch in means])
        layer.moving_mean.assign(of_layer.mean(axis=0))
        layer.moving_variance.assign(np.mean([batch[i] for batch in variances], axis=0) + of_layer.var(axis=0))


@contextmanager
def evaluation_mode(learner: Learner, batches: Iterable[tuple[tf.Tensor, ...]] | None) -> Iterator[None]:
    """Inside the block averaged weights, if there are any, and statistics from `batches`; after it those of before.

    None leaves the statistics. Averaged weights need their own: those that training gathers are of other weights.
    Measuring them draws dropout, too: its generators are put back as well.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima (arXiv 1803.05407), section 3.2.
    """
    with learner.averaged():
        if batches is None:
            yield
            return
        layers, seeds = trainable_batch_norms(learner.classifier.model), learner.seeds()
        before = [(np.array(layer.moving_mean), np.array(layer.moving_variance)) for layer in layers]
        reestimate_statistics(learner, batches)
        yield
        _set(layers, before)
        learner.set_seeds(seeds)


def share_statistics(source: keras.Model, target: keras.Model) -> int:
    """Set the moving mean and variance of the batch-norm layers of `target` from those of the same name in `source`.

    A comparison then sees what weights changed: fine-tuning on other images changes the statistics at once, whatever
    the learning rate, and with them which rectified channels are constant.

    Returns:
        How many layers were set.

    Raises:
        ConfigError: None has a counterpart of its name and width.
    """
    theirs, count = batch_norms(source), 0
    for name, layer in batch_norms(target).items():
        other = theirs.get(name)
        if other is not None and other.moving_mean.shape == layer.moving_mean.shape:
            layer.moving_mean.assign(other.moving_mean)
            layer.moving_variance.assign(other.moving_variance)
            count += 1
    if not count:
        raise ConfigError("--batch-norm shared: the networks have no batch-norm layer of one name and width in common.")
    return count


def batch_norms(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """The batch-norm layers of a model by name, those within other layers (`outer/inner`) as well."""
    return {
        f"{layer.name}/{path}".rstrip("/"): part
        for layer in model.layers
        for path, part in sub_layers(layer).items()
        if isinstance(part, keras.layers.BatchNormalization)
    }


def trainable_batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Those whose statistics move."""
    return [layer for layer in batch_norms(model).values() if layer.trainable]


def _set(layers: list[keras.layers.BatchNormalization], values: list[tuple]) -> None:
    for layer, (mean, variance) in zip(layers, values, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
