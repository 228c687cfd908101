"""A classifier that also outputs the feature map of a layer and its logits."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from radtransfer.errors import ConfigError, UnknownNameError, WeightsError
from radtransfer.evaluation.heat_maps import Decision
from radtransfer.models.activations import flat_model
from radtransfer.models.backbone import Backbone, resolve_layer
from radtransfer.models.vit import patch_grid, tokens_before_patches


class ScoredNetwork:
    """Computes logits, and the gradient of a decision's score at one layer.

    The score is the log odds of the decision, log p/(1 - p): for a sigmoid its logit, for a softmax the logit minus the
    log of the summed exponentials of the others. It has the same meaning for any number of outputs and, unlike the
    logit of a softmax, depends on the probabilities only.

    Args:
        model: RGB images 0–255, float32 (batch, size, size, 3) → probabilities (batch, outputs).
        spec: Its backbone, if known.
        layer: A stage or layer; None for the last stage (layer, without a backbone) whose map has several positions.
    """

    def __init__(self, model: keras.Model, spec: Backbone | None, layer: str | None = None):
        model = flat_model(model)
        logits, self.activation = _before_activation(model)
        self.spec, self.layer = spec, _layer_name(model, spec, layer)
        output = model.get_layer(self.layer).output
        self.grid: tuple[int, int] | None = _grid(model, output)
        if self.grid is None:
            raise ConfigError(
                f"--layer {self.layer}: expected a layer with a map of several positions, received an output of "
                f"{tuple(output.shape[1:])}. Choose an earlier stage, or a model of larger images."
            )
        self.model = keras.Model(model.inputs, [output, logits])
        self._before = tokens_before_patches(model) or 0 if len(output.shape) == 3 else 0
        stages = spec.stages if spec else {}
        self.stage: str | None = {end: stage for stage, end in stages.items()}.get(self.layer)  # that the layer ends
        grids = {stage: _grid(model, model.get_layer(end).output, least=1) for stage, end in stages.items()}
        self.stage_grids: dict[str, tuple[int, int]] = {stage: grid for stage, grid in grids.items() if grid}
        self.image_size: int = model.inputs[0].shape[1]
        self.outputs: int = logits.shape[-1]
        images = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
        numbers = tf.TensorSpec((None,), tf.int32)
        self._logits = tf.function(lambda x: self.model(x, training=False)[1], input_signature=[images])
        self._traced = tf.function(self._trace, input_signature=[images, numbers, tf.TensorSpec((None,), tf.float32)])

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 (images, outputs)."""
        return self._logits(tf.constant(images, tf.float32)).numpy()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 (images, outputs)."""
        logits = logits.astype(np.float64)
        if self.activation == "sigmoid":
            return 1 / (1 + np.exp(-logits))
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def scores(self, logits: np.ndarray, decisions: Sequence[Decision]) -> np.ndarray:
        """The log odds of each image's decision, float32 (images,)."""
        return self._score(tf.constant(logits), *_arrays(decisions)).numpy()

    def gradients(self, images: np.ndarray, decisions: Sequence[Decision]) -> tuple[np.ndarray, np.ndarray]:
        """The layer's map and the score's gradient there, float32 (images, height, width, channels) each."""
        maps, gradients = self._traced(tf.constant(images, tf.float32), *_arrays(decisions))
        return tuple(x.numpy()[:, self._before :].reshape(len(x), *self.grid, -1) for x in (maps, gradients))

    def _trace(self, images: tf.Tensor, outputs: tf.Tensor, signs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)  # otherwise no gradient passes a frozen layer
            maps, logits = self.model(images, training=False)
            score = self._score(logits, outputs, signs)
        return maps, tape.gradient(score, maps)

    def _score(self, logits: tf.Tensor, outputs: tf.Tensor, signs: tf.Tensor) -> tf.Tensor:
        own = tf.one_hot(outputs, self.outputs, dtype=tf.float32)
        score = tf.reduce_sum(logits * own, axis=1)
        if self.activation == "softmax":
            score -= tf.reduce_logsumexp(tf.where(own > 0, -np.inf, logits), axis=1)
        return signs * score


def _arrays(decisions: Sequence[Decision]) -> tuple[tf.Tensor, tf.Tensor]:
    outputs = tf.constant([decision.output for decision in decisions], tf.int32)
    return outputs, tf.constant([1.0 if decision.present else -1.0 for decision in decisions], tf.float32)


def _before_activation(model: keras.Model) -> tuple[keras.KerasTensor, str]:
    """The logits, and the activation behind them."""
    last = model.layers[-1]
    activation = "softmax" if isinstance(last, keras.layers.Softmax) else None
    activation = activation or getattr(getattr(last, "activation", None), "__name__", None)
    outputs = model.outputs[0].shape
    if activation not in ("softmax", "sigmoid") or len(outputs) != 2 or (activation == "softmax" and outputs[1] < 2):
        raise WeightsError(
            f"Expected a model that ends in a softmax or sigmoid over its classes. Received: {model.name}, which ends "
            f"in {last.name}, {type(last).__name__} with {activation or 'no activation'}, of outputs {outputs[1:]}."
        )
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation):
        return last.input, activation
    linear = type(last).from_config(last.get_config() | {"activation": "linear"})
    logits = linear(last.input)
    linear.set_weights(last.get_weights())
    return logits, activation


def _layer_name(model: keras.Model, spec: Backbone | None, given: str | None) -> str:
    names = [layer.name for layer in model.layers]
    if given is None:
        ends = list(spec.stages.values()) if spec else names
        if tokens_before_patches(model) is not None:
            # After the last attention no patch token changes the class token any more.
            ends = [name for name in names if name.endswith("_norm1")]
        with_map = [name for name in ends if _grid(model, model.get_layer(name).output)]
        return (with_map or ends)[-1]
    if spec is not None:
        return resolve_layer(model, spec, given)
    if given not in names:
        raise UnknownNameError("layer", given, names)
    return given


def _grid(model: keras.Model, output: keras.KerasTensor, *, least: int = 2) -> tuple[int, int] | None:
    """Height and width of a map, or of the patches of tokens, of `least` positions or more; None if it is none."""
    shape = getattr(output, "shape", ())
    grid = tuple(shape[1:3]) if len(shape) == 4 else patch_grid(model, output)
    return grid if grid and grid[0] * grid[1] >= least else None
