"""What a backbone is: an architecture with named stages, and nothing learned."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.errors import ConfigError, UnknownNameError, near_names

if TYPE_CHECKING:
    import keras

_LAYERS = Path(__file__).with_name("layers.txt")
"""The layers of the networks, a line each, so that a name is looked up before a network is built."""

_AROUND = ("image", "preprocessing", "avg_pool", "global_average_pooling2d", "head_dropout", "head", "probabilities")
"""Layers of a classifier that are not its backbone's."""


@dataclass(frozen=True)
class Backbone:
    """The card of one network. Reading it imports no TensorFlow.

    Attributes:
        name: As in tables, files, YAML and on the command line.
        build: `build(image, pooling)` gives a functional `keras.Model` from `image`, a symbolic
            tensor of preprocessed images, float32 (batch, height, width, channels), to the last
            feature map (`pooling` None) or to its average over positions ("avg"). Sequential parts
            and auto-numbered layer names are fine: `build_architecture` flattens and renames them.
        stages: Stage name to the name of its last layer, in order from the input.
        preprocessing: Mode that the network's ImageNet weights were trained with.
        parameters: Weights with 3 input channels, without a head.
        minimum_size: Smallest image side in pixels.
        batch_norm_momentum: Momentum that its batch-norm layers are built with; decides when moving
            statistics are re-estimated. None for networks without batch norm.
        description: One line for `radtransfer backbones`.
        application: Name of the class in `keras.applications`, if it comes from there.
        paper_parameters: The parameters as the network's paper counts them, where that differs.
        tail: Layers after the last stage's end that still belong to that stage.
        build_slim: `build_slim(image, pooling, widths)` gives the same network with fewer channels;
            `widths` names every stage and its fraction of the full width, in (0, 1]. Layer names and
            their order are those of `build`, and so are the shapes up to the first narrower stage.
            None for networks that are built at full width only.
        replacements: Class name of an operation that is no public Keras layer to
            `replacement(operation, inputs, name=…, dtype=…)`, which does the same with public ones.
    """

    name: str
    build: Callable[["keras.KerasTensor", str | None], "keras.Model"]
    stages: Mapping[str, str]
    preprocessing: str
    parameters: int
    minimum_size: int
    batch_norm_momentum: float | None
    description: str
    application: str | None = None
    paper_parameters: int | None = None
    tail: tuple[str, ...] = ()
    build_slim: Callable[["keras.KerasTensor", str | None, Mapping[str, float]], "keras.Model"] | None = None
    replacements: Mapping[str, Callable[..., "keras.KerasTensor"]] = field(default_factory=dict)

    @property
    def pretrained(self) -> bool:
        """Whether ImageNet weights exist for it."""
        return self.application is not None

    def check_image_size(self, size: int) -> None:
        """Raises ConfigError if images of `size` pixels are too small."""
        if size < self.minimum_size:
            raise ConfigError(f"Image size {size} is too small for {self.name} (minimum {self.minimum_size}).")

    def check_layer(self, name: str) -> None:
        """Raises UnknownNameError if `name` is known to be neither a stage nor a layer; of other networks nothing is.

        Only a network that is not in `layers.txt` has to be built to know.
        """
        lines = (line.partition(": ") for line in _LAYERS.read_text(encoding="utf-8").splitlines())
        layers = next((names.split() for network, _, names in lines if network == self.name), None)
        if layers is None or name in (*self.stages, *layers, *_AROUND):
            return
        raise self.unknown_layer(name, layers)

    def unknown_layer(self, name: str, layers: Iterable[str]) -> UnknownNameError:
        """The error that `name` is neither a stage nor one of `layers`; it names the closest of both."""
        # Without a close name the message lists all it is given: hundreds of layers would help nobody.
        known = [*self.stages, *near_names(name, layers)]
        return UnknownNameError(f"stage or layer of {self.name}", name, known, see=f"radtransfer backbones {self.name}")

    def stage_end(self, stage: str) -> str:
        """The last layer of `stage`.

        Raises:
            UnknownNameError: This backbone has no such stage.
        """
        if stage not in self.stages:
            see = f"radtransfer backbones {self.name}"
            raise UnknownNameError(f"stage of {self.name}", stage, self.stages, see=see)
        return self.stages[stage]
