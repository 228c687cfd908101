"""The network that is trained and exported, from RGB images 0–255 to a probability per class.

If layers are frozen, it is cut into a trunk and the rest, which is trained. No trained layer comes before a layer of
the trunk: it runs in inference mode without gradients, and its output for an image never changes and can be cached.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import tensorflow as tf

from radtransfer.images.preprocessing import preprocess
from radtransfer.models.architecture import build_architecture, use_fast_operations
from radtransfer.models.backbone import Backbone, layer_sources
from radtransfer.process import keras_defaults


@dataclass(frozen=True)
class Classifier:
    """Three models of one flat functional graph."""

    model: keras.Model  # float32 RGB images 0–255, (batch, height, width, 3) → float32 probabilities (batch, classes)
    logits: keras.Model  # the same up to the logits
    backbone: keras.Model  # the same up to the pooled features
    activation: str  # "softmax" or "sigmoid"


@keras_defaults()
def build_classifier(
    spec: Backbone,
    *,
    classes: int,
    image_size: int,
    activation: str,
    dropout: float,
    preprocessing: str,
    precision: str = "float32",
    widths: Mapping[str, float] | None = None,
) -> Classifier:
    """Preprocessing, backbone, dropout and a dense layer in one graph.

    The graph is flat, as Grad-CAM, freezing and weight files of other tools expect, and has only plain Keras layers, so
    that `keras.models.load_model` opens the saved model without this package. Preprocessing and head are float32
    whatever the `precision` of the backbone; `widths` is that of `build_architecture`. Raises ConfigError if the images
    are too small, UnknownNameError for an unknown preprocessing.
    """
    features = build_architecture(
        spec,
        image_size=image_size,
        precision=precision,
        widths=widths,
        prepare=partial(preprocess, mode=preprocessing),
    )
    use_fast_operations(features)
    dropped = keras.layers.Dropout(dropout, name="head_dropout", dtype=precision)(features.output)
    logits = keras.layers.Dense(classes, name="head", dtype="float32")(dropped)
    probabilities = keras.layers.Activation(activation, name="probabilities", dtype="float32")(logits)
    return Classifier(
        model=keras.Model(features.input, probabilities, name=spec.name),
        logits=keras.Model(features.input, logits, name=f"{spec.name}_logits"),
        backbone=features,
        activation=activation,
    )


@dataclass(frozen=True)
class Cut:
    """The network up to its logits as two models: `trunk` from images to features, `rest` from features to logits."""

    trunk: keras.Model
    rest: keras.Model

    def features(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The tensors at the cut, each (batch, …), in inference mode."""
        features = self.trunk(images, training=False)
        return features if isinstance(features, list) else [features]  # Keras unpacks a list of one

    @cached_property
    def traced_features(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        """`features`, traced once per batch size."""
        return tf.function(self.features)

    def logits(self, features: list[tf.Tensor], *, training: bool) -> tf.Tensor:
        return self.rest(features if len(features) > 1 else features[0], training=training)


def cut_network(classifier: Classifier, frozen: Set[str]) -> Cut | None:
    """Cut the network where freezing ends; None if no layer before the first trained one has weights.

    `frozen` names the layers that do not train; those after a trained layer do not belong to the trunk.
    """
    sources, backbone = layer_sources(classifier.logits), {layer.name: layer for layer in classifier.backbone.layers}
    # The trunk: frozen layers and operations before them that do not depend on a trained layer.
    trained = {layer.name for layer in classifier.logits.layers if layer.weights and layer.name not in frozen}
    wanted, trunk = set(frozen), set()
    for name in reversed(sources):  # every operation comes after those it takes from
        if name in wanted:
            wanted |= set(sources[name])
    for name, before in sources.items():
        if name in wanted and name not in trained and trunk.issuperset(before):
            trunk.add(name)
    if not any(backbone[name].weights for name in trunk & backbone.keys()):
        return None
    # Add following layers without variables, such as pooling, which make the features smaller.
    while len(users := _users(trunk, sources)) == 1 and users <= backbone.keys():
        (user,) = users
        if backbone[user].variables:
            break
        trunk.add(user)
    crossing = [name for name in sources if name in trunk and _users({name}, sources) - trunk]
    outputs = {operation.name: operation.output for operation in classifier.logits.operations}
    tensors, name = [outputs[name] for name in crossing], classifier.model.name
    return Cut(
        trunk=keras.Model(classifier.logits.input, tensors, name=f"{name}_trunk"),
        rest=keras.Model(tensors, classifier.logits.output, name=f"{name}_rest"),
    )


def _users(names: set[str], sources: dict[str, list[str]]) -> set[str]:
    """The operations outside `names` that take an output of one of them."""
    return {user for user, before in sources.items() if not names.isdisjoint(before)} - names
