"""How wide each stage of a slim network is."""

from collections.abc import Mapping

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.backbone import Backbone
from radtransfer.errors import ConfigError


def narrowed(channels: int, fraction: float) -> int:
    """`fraction` of `channels` to the nearest whole number (of two, the even one), and never less than 1."""
    return max(1, round(channels * fraction))


def stage_widths(card: Backbone, widths: Mapping[str, float]) -> dict[str, float]:
    """The fraction of every stage of `card`, in order; 1.0 where `widths` names none.

    Raises:
        UnknownNameError: `widths` names a stage that the network lacks.
        ConfigError: A fraction is not in (0, 1], or the network cannot be slim.
    """
    for stage, fraction in widths.items():
        card.stage_end(stage)  # raises if there is no such stage
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ConfigError(f"The width of {stage} is a fraction above 0, at most 1. Received: {fraction!r}.")
    if card.build_slim is None and any(fraction < 1 for fraction in widths.values()):
        slim = ", ".join(name for name in BACKBONES if BACKBONES[name].build_slim)
        raise ConfigError(f"{card.name} cannot be slim: leave its stages at 1.0, or use one of {slim}.")
    return {stage: float(widths.get(stage, 1.0)) for stage in card.stages}
