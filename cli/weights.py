"""`radtransfer weights`: the known weight files, what is in one, what it expects, and where they are looked for."""

import dataclasses

import click

from radtransfer.cli.completions import complete_weights
from radtransfer.cli.groups import Group
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import show, show_json
from radtransfer.cli.weights_check import check
from radtransfer.cli.weights_convert import convert
from radtransfer.cli.weights_verify import fetch, verify


@click.group(cls=Group, short_help="List, inspect, check and convert weight files.")
def weights() -> None:
    """List known weight files, look into one, find its preprocessing, convert and verify it.

    \b
    Example: radtransfer weights list
    """


for command in (check, convert, verify, fetch):
    weights.add_command(command)


@weights.command("list", short_help="List the weights that are known by name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_weights(as_json: bool) -> None:
    """List the weights that --weights knows by name, and which of them are here.

    \b
    Example: radtransfer weights list --json
    """
    from radtransfer.pretrained.manifest import weights_cards
    from radtransfer.pretrained.weight_sources import found_files

    found = found_files()
    cards = weights_cards().values()
    if as_json:
        rows = [dataclasses.asdict(card) | {"found": _text(found.get(card.name))} for card in cards]
        show_json(rows)
        return
    show(f"{'name':<32}{'preprocessing':<15}{'top-1':>6}  here")
    for card in cards:
        here = _text(found.get(card.name)) or ("Keras downloads it" if card.keras else "no")
        show(f"{card.name:<32}{card.preprocessing:<15}{_percent(card.top1):>6}  {here}")
    for family, terms in {card.family: card.terms for card in cards}.items():
        show("", f"{family}: {terms}")


@weights.command(short_help="Say what a file of weights holds.")
@click.argument("file", shell_complete=complete_weights)
@click.option("--ignore-lambda", is_flag=True, help="Take the weights of a file with Lambda layers too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(file: str, ignore_lambda: bool, as_json: bool) -> None:
    """Say what FILE holds: a path, a name from `weights list`, or RUN[/fold_K].

    \b
    Example: radtransfer weights inspect RadImageNet-ResNet50_notop.h5
    """
    from radtransfer.pretrained.weight_sources import find_weights
    from radtransfer.weight_formats.reading import read_weight_file

    source = find_weights(file)
    # A bad file is refused before TensorFlow is imported.
    content = read_weight_file(source.file, ignore_lambda=ignore_lambda)
    import_tensorflow()
    from radtransfer.pretrained.weight_inspection import inspect_weights

    found = inspect_weights(source, content)
    if as_json:
        show_json(dataclasses.asdict(found))
        return
    for title, line in _lines(found):
        show(f"{title:<15}{line}")


@weights.command()
def where() -> None:
    """Show the folders that are searched and the known weights in them.

    \b
    Example: RADTRANSFER_WEIGHTS=~/weights radtransfer weights where
    """
    from radtransfer.pretrained.weight_sources import SEARCH_VARIABLE, found_files, keras_cache, search_folders

    for folder in search_folders():
        show(f"searched  {folder.resolve()}")
    show(f"Keras     {keras_cache()}")
    found = found_files()
    for name, path in found.items():
        show(f"found     {name:<32}{path}")
    if not found:
        show(f"found     none of the known files; {SEARCH_VARIABLE} names the folder that holds yours")


def _lines(found):
    """The title and text of each line about an `Inspection`."""
    writer = f", written by Keras {found.keras_version}" if found.keras_version else ""
    yield "file", found.file
    yield "format", f"{found.format}{writer}"
    yield "holds", f"{found.layers} weighted layers, {found.parameters:,} parameters"
    yield "values", _values_line(found.not_finite)
    yield "sha256", found.sha256
    if found.lambdas:
        yield "lambda", f"{', '.join(found.lambdas)}: ignored; the effect on the images is unknown"
    if found.backbone is None:
        yield "backbone", "none of those in `radtransfer backbones`"
        return
    channels = "" if found.channels == 3 else f", for images of {found.channels} channels"
    layers = f"all {found.backbone_layers} layers found by {found.matched_by}"
    yield "backbone", f"{found.backbone}: {layers}{channels}"
    shown = ", ".join(found.extra[:6]) + (", …" if len(found.extra) > 6 else "")
    yield "head", f"{len(found.extra)} more layers: {shown}" if found.extra else "none"
    sure = found.preprocessing_certainty or ("certain" if found.preprocessing_sure == "run" else "assumed")
    yield "preprocessing", f"{found.preprocessing} ({sure}). {found.reason}"
    if found.card:
        yield "card", found.card
        yield "terms", found.terms


def _values_line(bad) -> str:
    """How many values are no number, and in which variables."""
    if not bad:
        return "all finite"
    counts = [f"{item['variable']} ({item['nan']} NaN, {item['infinite']} infinite)" for item in bad]
    nan, infinite = (sum(item[kind] for item in bad) for kind in ("nan", "infinite"))
    shown = ", ".join(counts[:6]) + (", …" if len(counts) > 6 else "")
    return f"{nan:,} NaN and {infinite:,} infinite in {len(bad)} variables: {shown}"


def _text(path) -> str | None:
    return None if path is None else str(path)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.1f} %"
