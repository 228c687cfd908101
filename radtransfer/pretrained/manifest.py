"""The cards of known weight files, read from `weights/manifest.yaml`."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from radtransfer.yaml_text import parse_yaml


@dataclass(frozen=True)
class WeightsCard:
    """What is known about one weights file.

    Attributes:
        name: As users give it, `<family>-<backbone>`.
        family: What it was trained on.
        backbone: Name of the network.
        origin: Where to get it.
        terms: One line.
        files: Names it goes by, the published one first.
        hashes: MD5 or SHA-256 of each of `files`, in their order; empty where nobody published any.
        layers: Layers with weights, without a head.
        preprocessing: Mode that it was trained with.
        certainty: How sure that is.
        reason: And why.
        keras: Whether Keras downloads it itself.
        top1: Published accuracy on the data it was trained on, a fraction.
        top5: The same, among the first five.
    """

    name: str
    family: str
    backbone: str
    origin: str
    terms: str
    files: tuple[str, ...]
    layers: int
    preprocessing: str
    certainty: Literal["certain", "likely"]
    reason: str
    keras: bool = False
    top1: float | None = None
    top5: float | None = None
    hashes: tuple[str, ...] = ()


@functools.cache
def weights_cards() -> Mapping[str, WeightsCard]:
    """Every card by name."""
    text = resources.files("radtransfer.weights").joinpath("manifest.yaml").read_text(encoding="utf-8")
    manifest, _ = parse_yaml(text, source="weights/manifest.yaml")
    families = manifest["families"]
    return MappingProxyType({name: _card(name, entry, families) for name, entry in manifest["cards"].items()})


def card_named(weights: str, *, backbone: str | None = None) -> WeightsCard | None:
    """The card called `weights`, or, of a family ("imagenet"), the one for `backbone`."""
    cards = weights_cards()
    return cards.get(weights) or cards.get(f"{weights}-{backbone}")


def card_of_file(path: Path) -> WeightsCard | None:
    """The card that lists a file of this name, in any case of letters."""
    name = path.name.lower()
    return next((card for card in weights_cards().values() if name in map(str.lower, card.files)), None)


def _card(name: str, entry: dict, families: dict[str, dict]) -> WeightsCard:
    fields = families[entry["family"]] | entry
    listed = {key: tuple(fields.get(key, ())) for key in ("files", "hashes")}
    return WeightsCard(name=name, **fields | listed)
