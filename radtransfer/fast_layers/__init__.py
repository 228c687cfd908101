"""Layers of Keras computed by faster operations of TensorFlow.

The layers stay what they are: the same weights, the same saved model, the same results but for rounding.
"""

import keras

from radtransfer.fast_layers.batch_norm import fuse_batch_norms
from radtransfer.fast_layers.depthwise import compute_depthwise


def use_fast_operations(model: keras.Model) -> None:
    """Let the layers of `model` that can compute by faster operations, from its next trace on."""
    fuse_batch_norms(model)
    compute_depthwise(model)
