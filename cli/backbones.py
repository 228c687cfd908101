"""`radtransfer backbones`: the networks, their stages and their sizes."""

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from radtransfer.backbones import BACKBONES
from radtransfer.backbones.backbone import Backbone
from radtransfer.cli.completions import complete_backbone
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import show, show_json

if TYPE_CHECKING:
    from radtransfer.backbones.stages import StageSummary

IMAGE_SIZE = 224
"""Pixels; the output sizes are shown for images of this size."""


@click.command()
@click.argument("name", required=False, shell_complete=complete_backbone)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backbones(name: str | None, as_json: bool) -> None:
    """List the networks, or show the stages of NAME.

    Example: radtransfer backbones resnet50
    """
    if name is None:
        cards = [BACKBONES[known] for known in BACKBONES]
        show_json([_card_json(card) for card in cards]) if as_json else show(*_table_text(cards))
        return
    card = BACKBONES[name]
    stages = _built_stages(card)
    show_json(_network_json(card, stages)) if as_json else show(*_network_text(card, stages))


def _built_stages(card: Backbone) -> tuple["StageSummary", ...]:
    import_tensorflow()
    from radtransfer.backbones.architecture import build_architecture
    from radtransfer.backbones.stages import stage_summaries

    return stage_summaries(build_architecture(card, image_size=IMAGE_SIZE), card)


def _card_json(card: Backbone) -> dict[str, Any]:
    return {
        "name": card.name,
        "description": card.description,
        "parameters": card.parameters,
        "paper_parameters": card.paper_parameters,
        "preprocessing": card.preprocessing,
        "pretrained": card.pretrained,
        "slim": card.build_slim is not None,
        "minimum_size": card.minimum_size,
        "batch_norm_momentum": card.batch_norm_momentum,
        "stages": list(card.stages),
    }


def _network_json(card: Backbone, stages: tuple["StageSummary", ...]) -> dict[str, Any]:
    return _card_json(card) | {
        "image_size": IMAGE_SIZE,
        "stages": [dataclasses.asdict(stage) for stage in stages],
    }


def _table_text(cards: list[Backbone]) -> list[str]:
    rows = [f"{'name':<20}{'parameters':>11}  stages  preprocessing  description"]
    for card in cards:
        numbers = f"{card.parameters:>11,}  {len(card.stages):>6}"
        rows.append(f"{card.name:<20}{numbers}  {card.preprocessing:<13}  {card.description}")
    return rows


def _network_text(card: Backbone, stages: tuple["StageSummary", ...]) -> list[str]:
    rows = [card.description, f"parameters     {card.parameters:,} without a head"]
    if card.paper_parameters is not None:
        rule = "kernels after the first + 5 × last width"
        rows.append(f"{'':<15}{card.paper_parameters:,} as the paper counts them: {rule}")
    widths = "each stage at any fraction of its width" if card.build_slim else "full width only"
    rows += [
        f"preprocessing  {card.preprocessing}",
        f"slim           {widths}",
        f"image size     {card.minimum_size} pixels or more; output sizes below for {IMAGE_SIZE}",
        "",
    ]
    width = max(len(stage.end) for stage in stages)
    rows += [f"stage    layers  {'last layer':<{width}}  {'output':<14}  parameters"]
    rows += [
        f"{stage.name:<8} {len(stage.layers):>6}  {stage.end:<{width}}  "
        f"{'×'.join(map(str, stage.output_shape)):<14}  {stage.parameters:>10,}"
        for stage in stages
    ]
    return rows
