"""The network that is trained and taken home: RGB images 0–255 in, a probability per class out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import keras

from radtransfer.backbones.architecture import build_architecture
from radtransfer.backbones.backbone import Backbone
from radtransfer.environment import keras_defaults
from radtransfer.fast_layers import use_fast_operations
from radtransfer.preprocessing import preprocess


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
    card: Backbone,
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
    and head are float32 whatever the precision.

    Args:
        card: The backbone.
        classes: Outputs.
        image_size: In pixels.
        activation: "softmax" or "sigmoid".
        dropout: Fraction.
        preprocessing: Key of `preprocessing.MODES`.
        precision: Dtype policy of the layers between.
        widths: Stage to the fraction of its channels; those not named have all.

    Raises:
        ConfigError: The images are too small for the network.
        UnknownNameError: No such preprocessing.
    """
    features = build_architecture(
        card,
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
        model=keras.Model(features.input, probabilities, name=card.name),
        logits=keras.Model(features.input, logits, name=f"{card.name}_logits"),
        backbone=features,
        activation=activation,
    )
