"""The network that is trained and taken home: RGB images 0–255 in, a probability per class out."""

from dataclasses import dataclass

import keras

from radtransfer.preprocessing import preprocess


@dataclass(frozen=True)
class Classifier:
    """One flat functional graph, seen from three places.

    Attributes:
        model: float32 RGB images 0–255, (batch, height, width, 3) → float32 probabilities (batch, classes).
        logits: The same graph, ending before the activation.
        backbone: The same layers, from preprocessed images to pooled features.
        activation: "softmax" or "sigmoid".
    """

    model: keras.Model
    logits: keras.Model
    backbone: keras.Model
    activation: str


def build_classifier(
    backbone: keras.Model,
    *,
    classes: int,
    activation: str,
    dropout: float,
    preprocessing: str,
    precision: str = "float32",
) -> Classifier:
    """Preprocessing, backbone, dropout and a dense layer, in one graph.

    The graph holds plain Keras layers only, so that `keras.models.load_model` opens the saved model where this
    package is not installed. Preprocessing, activation and probabilities are float32 whatever the precision.

    Args:
        backbone: From `build_architecture`, pooled; its layers become part of the graph.
        classes: Outputs.
        activation: "softmax" or "sigmoid".
        dropout: Fraction.
        preprocessing: Key of `preprocessing.MODES`.
        precision: Dtype policy of dropout and dense layer.

    Raises:
        UnknownNameError: No such preprocessing.
    """
    images = keras.Input(backbone.input_shape[1:], dtype="float32", name="image")
    # `call` applies the backbone's own layers one by one: the graph stays flat, as Grad-CAM, freezing
    # and weight files of other tools expect it.
    features = backbone.call(preprocess(images, preprocessing))
    dropped = keras.layers.Dropout(dropout, name="head_dropout", dtype=precision)(features)
    logits = keras.layers.Dense(classes, name="head", dtype=precision)(dropped)
    probabilities = keras.layers.Activation(activation, name="probabilities", dtype="float32")(logits)
    return Classifier(
        model=keras.Model(images, probabilities, name=backbone.name),
        logits=keras.Model(images, logits, name=f"{backbone.name}_logits"),
        backbone=backbone,
        activation=activation,
    )
