"""`radtransfer weights convert`: weights of other programs as a Keras file."""

import dataclasses
from pathlib import Path

import click

from radtransfer.cli.terminal import show, show_json


@click.command(short_help="Make a Keras file of PyTorch weights or a SavedModel.")
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT.weights.h5")
@click.option("--backbone", metavar="NAME", help="The network in IN; recognized without.")
@click.option("--ignore-lambda", is_flag=True, help="Take the weights of a file with Lambda layers too.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def convert(source: str, out: str, backbone: str | None, ignore_lambda: bool, overwrite: bool, as_json: bool) -> None:
    """Write the weights in IN as a file that --weights takes everywhere.

    IN is a PyTorch state dict of ResNet50, DenseNet121 or InceptionV3 as torchvision builds them (.pt, .pth,
    .safetensors; RadImageNet's too), a SavedModel folder, or any Keras file. Nothing in it is unpickled or run.

    \b
    Example: radtransfer weights convert ResNet50.pt radimagenet-resnet50.weights.h5
    """
    from radtransfer.pretrained.conversion import convert_weights
    from radtransfer.pretrained.hub import HUB, cached_hub_file

    if source.startswith(HUB):
        source = str(cached_hub_file(source))
    done = convert_weights(Path(source), Path(out), backbone=backbone, overwrite=overwrite, ignore_lambda=ignore_lambda)
    if as_json:
        show_json(dataclasses.asdict(done))
        return
    show(f"backbone  {done.backbone}: {done.layers} layers, {done.parameters:,} parameters, read back equal")
    for note in done.notes:
        show(f"note      {note}")
    if done.left_out:
        more = ", …" if len(done.left_out) > 6 else ""
        show(f"left out  {', '.join(done.left_out[:6])}{more}")
    show(f"input     not stored in such files: `radtransfer weights check {done.out} --data …` finds it")
    show(f"wrote     {done.out}  sha256 {done.sha256}")
