"""`radtransfer plan`: what a scheme means for a network, without training."""

from pathlib import Path
from typing import Any

import click

from radtransfer.cli.completions import complete_backbone
from radtransfer.cli.options import given_settings, sets_option, setting_options
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import show, show_json
from radtransfer.config import load_config
from radtransfer.errors import ConfigError
from radtransfer.schemes import SCHEMES

OPTIONS = {
    "weights": "model.weights",
    "ignore_lambda": "model.ignore_lambda",
    "scheme": "transfer.scheme",
    "through": "transfer.through",
    "freeze_to": "transfer.freeze_to",
    "slim": "transfer.slim",
    "bn_init": "transfer.batch_norm",
    "preprocessing": "model.preprocessing",
    "image_size": "model.image_size",
    "seed": "seed",
}


@click.command(short_help="Show where each stage starts from, and what trains.")
@click.argument("backbone", required=False, shell_complete=complete_backbone)
@setting_options(**OPTIONS)
@sets_option("Any setting, such as transfer.stages=….")
@click.option("--classes", type=click.IntRange(2), metavar="N", help="Add preprocessing and a head of N classes.")
@click.option("--out", metavar="MODEL.keras", help="Write the initialized model.")
@click.option("--filters", metavar="PNG", help="Draw the first convolution and the weights' histograms.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    backbone: str | None,
    sets: tuple[str, ...],
    classes: int | None,
    out: str | None,
    filters: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Show what BACKBONE starts from, stage by stage, and what trains; without BACKBONE, list the schemes.

    \b
    Example: radtransfer plan resnet50 --weights imagenet --scheme transfusion --through stage2
             radtransfer plan cbr_tiny --scheme gabor --filters conv1.png --out start.keras
    """
    if backbone is None:
        if any(value not in (None, ()) for value in (sets, classes, out, filters, *given.values())):
            raise ConfigError("A plan is that of a network: name one first, such as `radtransfer plan resnet50 …`.")
        show_json(_schemes_json()) if as_json else show(*_schemes_text())
        return
    config = load_config(sets=sets, options={**given_settings(given, OPTIONS), "model.backbone": backbone})
    if filters is not None:
        from radtransfer.figures.style import check_figure_path

        check_figure_path(Path(filters))
    if out is not None and (Path(out).suffix != ".keras" or Path(out).exists()):
        raise ConfigError(f"--out takes a new file that ends in .keras. Received: {out}.")
    from radtransfer.pretrained.weight_sources import preprocessing_of
    from radtransfer.run_names import look_up

    look_up(config)
    preprocessing_of(config.model.weights, backbone=backbone)
    import_tensorflow()
    from radtransfer.plan_block import plan_text
    from radtransfer.planning import plan_network, save_filters, save_planned

    network = plan_network(config, classes=classes, notify=lambda text: show(f"note      {text}", err=True))
    record = {"backbone": backbone, "weights": config.model.weights} | network.plan.record()
    head = network.model if classes else None
    show_json(record) if as_json else show(*plan_text(network.plan, head=head).split("\n"))
    if out is not None:
        save_planned(network, Path(out))
        show(f"model     {out}", err=True)
    if filters is not None:
        save_filters(network, Path(filters))
        show(f"filters   {filters}", err=True)


def _schemes_json() -> list[dict[str, str]]:
    return [
        {"scheme": name, "description": scheme.description, "reference": scheme.reference}
        for name, scheme in SCHEMES.items()
    ]


def _schemes_text() -> list[str]:
    width = max(len(scheme.description) for scheme in SCHEMES.values()) + 2
    rows = [f"{'scheme':<23}{'what it does':<{width}}where"]
    rows += [f"{name:<23}{scheme.description:<{width}}{scheme.reference}" for name, scheme in SCHEMES.items()]
    return rows
