"""Schemes: short names for transfer plans, every initialization and freezing scheme of both papers in one table.

A network is cut in two at a stage or layer, `through`: what comes up to it and what comes after it each start from
something, and what comes up to it may be frozen. A scheme says what each part starts from; `transfer.py` lays it
out over the layers of a network.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), sections 3 to 5, Appendices E and F.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from radtransfer.errors import UnknownNameError

STARTS = ("random", "pretrained", "mean_var", "sampled", "shuffled", "gabor")
"""What a stage can start from."""

WITHOUT_WEIGHTS = ("random", "gabor")
"""Of these, what needs no pretrained weights."""

HALF_AFTER_STAGE2 = "stage2:0.5"
"""The slim networks of Transfusion: half the channels after our stage2."""


@dataclass(frozen=True)
class Scheme:
    """One way to reuse a network.

    Attributes:
        start: What the layers up to `through` start from.
        description: One line for tables.
        reference: Where it comes from.
        rest: What the layers after `through` start from.
        through: Where the two meet. "end": nothing comes after. "named": the user must name a stage or layer.
            "named or end". "stem". "slim": the last stage of full width.
        freezes: Whether the layers up to `through` keep what they start from.
        slim: Which stage is the last of full width, and how wide the later ones are, if the user does not say.
        head_first: Whether the head trains alone before everything trains.
        top: With a number, only so many of the last layers of the network train.
    """

    start: str
    description: str
    reference: str
    rest: str | None = None
    through: Literal["end", "named", "named or end", "stem", "slim"] = "end"
    freezes: bool = False
    slim: str | None = None
    head_first: bool = False
    top: int | None = None


_SCHEMES = {
    "scratch": Scheme("random", "all random, all train", "Transfusion 3"),
    "transfer": Scheme("pretrained", "all pretrained, all train", "both papers"),
    "transfusion": Scheme(
        "pretrained", "pretrained through L, then random, all train", "Transfusion Fig. 7, 19", "random", "named"
    ),
    "mean_var": Scheme("mean_var", "the scale of the weights without their features", "Transfusion 5, Fig. 6, 15, 16"),
    "sampled": Scheme("sampled", "drawn from each tensor's own values", "Transfusion App. F.2, Fig. 18"),
    "shuffled": Scheme("shuffled", "each tensor's own values in random order", "Transfusion App. F.2, Fig. 18"),
    "gabor": Scheme(
        "gabor", "synthetic Gabor filters first, then random", "Transfusion App. F.3, Fig. 8, 21", "random", "stem"
    ),
    "hybrid": Scheme(
        "pretrained",
        "pretrained up to L, narrower and random after it, all train",
        "Transfusion Fig. 8",
        "random",
        "slim",
        slim=HALF_AFTER_STAGE2,
    ),
    "slim": Scheme("random", "narrower after L, all random, all train", "Transfusion Fig. 20", slim=HALF_AFTER_STAGE2),
    "fixed_features": Scheme(
        "pretrained",
        "all pretrained, frozen through L",
        "Transfusion App. E, variant 1",
        "pretrained",
        "named or end",
        freezes=True,
    ),
    "fixed_features_reinit": Scheme(
        "pretrained",
        "pretrained and frozen through L, then random",
        "Transfusion App. E, variant 2",
        "random",
        "named",
        freezes=True,
    ),
    "random_features": Scheme(
        "random",
        "all random, frozen through L",
        "Transfusion App. E, baseline",
        "random",
        "named or end",
        freezes=True,
    ),
    "freeze_then_unfreeze": Scheme(
        "pretrained", "the head alone first, then everything", "Revisiting 3", head_first=True
    ),
    "unfreezeall": Scheme("pretrained", "all pretrained, all train", "RadImageNet scripts"),
    "freezeall": Scheme(
        "pretrained", "all pretrained and frozen, only the head trains", "RadImageNet scripts", freezes=True
    ),
    "unfreezetop10": Scheme("pretrained", "only the last ten layers train", "RadImageNet scripts", top=10),
}

SCHEMES: Mapping[str, Scheme] = MappingProxyType(_SCHEMES)


def find_scheme(name: str) -> Scheme:
    """The scheme called `name`.

    Raises:
        UnknownNameError: No such scheme.
    """
    if name not in SCHEMES:
        raise UnknownNameError("scheme", name, ["auto", *SCHEMES])
    return SCHEMES[name]
