"""Where freezing ends: the network in two parts, of which only the second is trained.

The trunk is what no trained weight comes before. It always runs in inference mode, no gradient enters it, and its
output for an image never changes, so that it can be computed once and kept.
"""

from collections.abc import Set
from dataclasses import dataclass

import keras

from radtransfer.backbones.stages import layer_sources
from radtransfer.classifier import Classifier


@dataclass(frozen=True)
class Cut:
    """`rest(trunk(images))` is the network up to its logits; the layers are the network's own.

    Attributes:
        trunk: Images to a list of the tensors that cross the cut.
        rest: These tensors to logits (batch, classes).
    """

    trunk: keras.Model
    rest: keras.Model


def cut_network(classifier: Classifier, frozen: Set[str]) -> Cut | None:
    """The network cut where freezing ends; None if no layer before the first trained one has weights.

    Args:
        classifier: The network.
        frozen: Names of the layers that do not train. Those behind a trained layer are frozen, but not in the trunk.
    """
    sources = layer_sources(classifier.logits)
    trunk = _trunk(classifier, sources, frozen)
    if not any(layer.weights for layer in classifier.backbone.layers if layer.name in trunk):
        return None
    crossing = [name for name in sources if name in trunk and _is_used_outside(name, trunk, sources)]
    outputs = {operation.name: operation.output for operation in classifier.logits.operations}
    tensors = [outputs[name] for name in crossing]
    name = classifier.model.name
    return Cut(
        trunk=keras.Model(classifier.logits.input, tensors, name=f"{name}_trunk"),
        rest=keras.Model(tensors, classifier.logits.output, name=f"{name}_rest"),
    )


def _trunk(classifier: Classifier, sources: dict[str, list[str]], frozen: Set[str]) -> set[str]:
    """Operations of the backbone that no trained weight comes before. The head, with its dropout, is not in it."""
    trained = {layer.name for layer in classifier.logits.layers if layer.weights and layer.name not in frozen}
    backbone, trunk = {operation.name for operation in classifier.backbone.operations}, set()
    for name, before in sources.items():  # every operation comes after those it takes from
        if name in backbone and name not in trained and trunk.issuperset(before):
            trunk.add(name)
    return trunk


def _is_used_outside(name: str, trunk: set[str], sources: dict[str, list[str]]) -> bool:
    return any(name in before for other, before in sources.items() if other not in trunk)
