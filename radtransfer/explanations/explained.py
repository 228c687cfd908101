"""What is asked of an explanation, and what it gives."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radtransfer.explanations.randomization import Randomized
from radtransfer.explanations.verdicts import Verdict
from radtransfer.settings import DataSettings

if TYPE_CHECKING:
    from radtransfer.explanations.scored_network import ScoredNetwork


@dataclass(frozen=True)
class ExplainSettings:
    """What is asked for.

    Attributes:
        files: Images without labels; empty for others.
        data: A data set, in place of files or the run's test images.
        fold: Of a run with several.
        layer: Stage or layer of the map; None for the last stage.
        target: The class that is explained; None for what the network said about each image.
        limit: Images that are explained, at most.
        cells: Squares along a side that occlusion covers; 0 leaves occlusion out.
        seed: Of the weights that the test draws.
    """

    files: tuple[Path, ...] = ()
    data: DataSettings = field(default_factory=DataSettings)
    fold: int | None = None
    layer: str | None = None
    target: str | None = None
    limit: int = 24
    cells: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image explained.

    Attributes:
        path: Its identity.
        verdict: What the network said, and what of it is explained.
        image: As the network gets it, float32 (size, size, 3).
        heat: Grad-CAM, float32 (height, width) of the layer, at least 0.
        occlusion: float32 (cells, cells), at least 0; None where it was left out.
        agreement: Rank correlation of the two; None where one is the same everywhere, or was left out.
    """

    path: str
    verdict: Verdict
    image: np.ndarray
    heat: np.ndarray
    occlusion: np.ndarray | None
    agreement: float | None


@dataclass(frozen=True, eq=False)
class Explained:
    """All of them.

    Attributes:
        given: What the user called the network.
        network: As it was opened.
        what: Which images.
        images: How many were looked at.
        mistakes: How many the network got wrong; None without labels.
        target: The class that was asked for, if one was.
        explanations: Confident mistakes first.
        agreement: Median rank correlation of the two maps.
        randomized: The cascade; its last step has redrawn every weight.
    """

    given: str
    network: "ScoredNetwork"
    what: str
    images: int
    mistakes: int | None
    target: str | None
    explanations: list[Explanation]
    agreement: float | None
    randomized: list[Randomized]
