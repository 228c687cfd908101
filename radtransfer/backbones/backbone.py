"""What a backbone is: an architecture with named stages, and nothing learned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from radtransfer.errors import UnknownNameError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """The card of one network. Reading it imports no TensorFlow.

    Attributes:
        name: As in tables, files, YAML and on the command line.
        build: `build(input_shape)` gives a functional `keras.Model` from preprocessed images,
            float32 (batch, height, width, channels), to the last feature map, with any layer names
            and nesting; `build_backbone` flattens and renames it.
        stages: Stage name to the name of its last layer, in order from the input.
        preprocessing: Mode that the network's ImageNet weights were trained with.
        parameters: Weights with 3 input channels, without a head.
        minimum_size: Smallest image side in pixels.
        batch_norm_momentum: Momentum of its batch-norm layers; decides when moving statistics are
            re-estimated. None for networks without batch norm.
        application: Name of the class in `keras.applications`, if it comes from there.
        description: One line for `radtransfer backbones`.
    """

    name: str
    build: Callable[[tuple[int, int, int]], "keras.Model"]
    stages: dict[str, str]
    preprocessing: str
    parameters: int
    minimum_size: int
    batch_norm_momentum: float | None
    description: str
    application: str | None = None

    @property
    def pretrained(self) -> bool:
        return self.application is not None

    def stage_end(self, stage: str) -> str:
        """The last layer of `stage`.

        Raises:
            UnknownNameError: This backbone has no such stage.
        """
        if stage not in self.stages:
            raise UnknownNameError(f"stage of {self.name}", stage, self.stages, see=f"radtransfer backbones {self.name}")
        return self.stages[stage]
