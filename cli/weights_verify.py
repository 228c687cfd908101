"""`radtransfer weights verify` and `fetch`: is a file what it should be, and where to get it."""

import dataclasses

import click

from radtransfer.cli.terminal import show, show_json


@click.command(short_help="Read a file to its end and compare its hash.")
@click.argument("file")
@click.option("--ignore-lambda", is_flag=True, help="Take the weights of a file with Lambda layers too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(file: str, ignore_lambda: bool, as_json: bool) -> None:
    """Read all of FILE, and compare its hash with the published ones: exit code 4 if it is damaged or another.

    \b
    Example: radtransfer weights verify RadImageNet-ResNet50_notop.h5
    """
    from radtransfer.pretrained.manifest import weights_cards
    from radtransfer.pretrained.verification import verify_file
    from radtransfer.pretrained.weight_sources import find_weights

    found = verify_file(find_weights(file).file, ignore_lambda=ignore_lambda)
    if as_json:
        show_json(dataclasses.asdict(found))
        return
    show(f"file      {found.file}, {found.size / 1e6:,.1f} MB")
    show(f"sha256    {found.sha256}")
    show(f"read      {found.arrays} arrays, {found.parameters:,} numbers, all finite")
    if found.verdict == "published":
        show(f"verdict   {found.card}: the published file, by its hash")
        show(f"terms     {weights_cards()[found.card].terms}")
        return
    named = f"has the name of {found.card}, whose publisher gives no hash" if found.card else "no card has this hash"
    show(f"verdict   unknown: {named}; note the sha256 to compare copies")


@click.command(short_help="Download a file of the Hugging Face hub, if told to.")
@click.argument("file", metavar="hf:REPO/FILE[@REVISION]")
@click.option("--download", is_flag=True, help="Do it; without, only say what would be downloaded.")
def fetch(file: str, download: bool) -> None:
    """Say what would be downloaded and how large it is, and with --download get it. Then --weights takes its hf: name.

    \b
    Example: radtransfer weights fetch hf:Lab-Rasool/RadImageNet/ResNet50.pt --download
    """
    from radtransfer.pretrained import hub

    wanted = hub.hub_file(file)
    path = hub.in_cache(wanted)
    if path is not None:
        show(f"here      {path}")
        return
    size = hub.size_of(wanted)
    shown = "size not known" if size is None else f"{size / 1e6:,.1f} MB"
    show(f"file      {wanted.name} of {wanted.repo}, {shown}")
    if not download:
        show(f"next      {wanted.fetch_line}")
        return
    show(f"here      {hub.download(wanted)}")
