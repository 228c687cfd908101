"""The network that is trained and exported: RGB images 0–255 in, a probability per class out.

Where layers are frozen it is cut in two parts, of which only the second is trained. The trunk is what no trained weight
comes before: it always runs in inference mode, no gradient enters it, and its output for an image never changes, so
that it can be computed once and cached.
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
    """One flat functional graph, seen from three places.

    Attributes:
        model: float32 RGB images 0–255, (batch, height, width, 3) → float32 probabilities (batch, classes).
        logits: The same graph, ending before the activation.
        backbone: The same graph, ending before the head: pooled features.
        activation: "softmax" or "sigmoid".
    """

    model: keras.Model
    logits: keras.Model
    backbone: keras.Model
    activation: str


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
    """Preprocessing, backbone, dropout and a dense layer, in one graph.

    The graph is flat, as Grad-CAM, freezing and weight files of other tools expect it, and holds plain Keras layers
    only, so that `keras.models.load_model` opens the saved model where this package is not installed. Preprocessing
    and head are float32 whatever the `precision` of the layers between. `widths` is as of `build_architecture`.

    Raises:
        ConfigError: The images are too small for the network.
        UnknownNameError: No such preprocessing.
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
    """The network up to its logits as two models that share its layers.

    `trunk` takes images to the tensors that cross the cut, `rest` these tensors to logits.
    """

    trunk: keras.Model
    rest: keras.Model

    def features(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The tensors that cross the cut, (batch, …) each, in inference mode."""
        features = self.trunk(images, training=False)
        return features if isinstance(features, list) else [features]  # Keras unpacks a list of one

    @cached_property
    def traced_features(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        """`features`, traced once for all batches of a size."""
        return tf.function(self.features)

    def logits(self, features: list[tf.Tensor], *, training: bool) -> tf.Tensor:
        return self.rest(features if len(features) > 1 else features[0], training=training)


def cut_network(classifier: Classifier, frozen: Set[str]) -> Cut | None:
    """The network cut where freezing ends; None if no layer before the first trained one has weights.

    `frozen` names the layers that do not train. Those behind a trained layer are frozen, but not in the trunk.
    """
    sources, backbone = layer_sources(classifier.logits), {layer.name: layer for layer in classifier.backbone.layers}
    # Frozen layers, and operations before them, that no trained weight comes before.
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
    # Pooling and the like, which neither learn nor draw random numbers, join the trunk: what crosses the cut shrinks.
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
    """The operations, other than `names` themselves, that take what one of these gives."""
    return {user for user, before in sources.items() if not names.isdisjoint(before)} - names
