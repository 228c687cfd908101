"""Commands that compare two networks: their layers (compare-cca), test predictions and weights."""

from pathlib import Path
from typing import Any

import click

from radtransfer.api.comparisons import compare, compare_pairs
from radtransfer.cli.main import complete_backbone
from radtransfer.cli.options import (
    IMAGE_OPTIONS,
    Command,
    SettingOption,
    Whole,
    output_options,
    overwrite_option,
    setting_options,
    settings_and_others,
    typed_words,
)
from radtransfer.cli.terminal import TerminalProgress, show, show_json, show_next, show_written
from radtransfer.config.load import changed_config
from radtransfer.similarity import SIMILARITIES

STREAMED = [name for name in SIMILARITIES if name not in ("rbf_cka", "rsa")]
"""The others compare rows with rows and need them all at once."""


@click.command(
    "compare-cca",
    cls=Command,
    first=(
        *("data", "image_root", "pairs", "layers", "rows", "similarity", "cross", "fold", "backbone", "out"),
        "as_json",
    ),
    short_help="Compare every layer of two networks on the same images.",
)
@click.argument("networks", nargs=-1, required=True, metavar="A B | --pairs RUN RUN…")
@click.option(
    "--pairs",
    is_flag=True,
    help="Compare every pair of several runs before and after training, grouped by the initialization of each stage.",
)
@click.option(
    "--layers",
    default="stages",
    show_default=True,
    metavar="stages|all|NAMES",
    help="Layers to compare, comma-separated.",
)
@click.option("--rows", default=10_000, show_default=True, type=Whole(4), help="Positions drawn per layer.")
@click.option("--dims", default=64, show_default=True, type=Whole(1), help="Channels drawn per layer.")
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    type=Whole(1),
    help="Draws of positions and channels, averaged.",
)
@click.option(
    "--similarity",
    default="cca",
    show_default=True,
    metavar="KINDS",
    help=f"One or more of {', '.join(STREAMED)}; comma-separated.",
)
@click.option(
    "--sampling",
    type=click.Choice(["spread", "transfusion"]),
    help="spread: positions of all images; transfusion: all positions of a few images (Transfusion, App. C).  "
    "[default: spread]",
)
@click.option(
    "--channels",
    type=click.Choice(["auto", "paired", "independent", "all"]),
    help="auto: the same channels if both layers have equally many; paired: the same; independent: drawn for each "
    "layer; all: every channel.  [default: auto]",
)
@click.option("--cross", is_flag=True, help="Also compare every layer of A with every layer of B.")
@click.option(
    "--batch-norm",
    type=click.Choice(["own", "shared"]),
    default="own",
    show_default=True,
    help="shared: B uses the batch-norm statistics of A, so that only weights differ.",
)
@click.option(
    "--compat", type=click.Choice(["juodelyte"]), help="CCA as Juodelyte et al. 2023 computed it, with google/svcca."
)
@click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of the runs.")
@click.option(
    "--data",
    cls=SettingOption,
    setting="data.source",
    multiple=True,
    metavar="SOURCE",
    help="Images to compare on: a data set, a folder, a table or files (repeated); labels are not needed.  "
    "[default: the run's own test images]",
)
@setting_options(**IMAGE_OPTIONS)
@click.option(
    "--backbone", metavar="NAME", shell_complete=complete_backbone, help="Network that a weights file is for."
)
@click.option("--image-size", type=Whole(16), help="Image size of random:, imagenet: and weights files.")
@click.option("--seed", default=0, show_default=True, type=Whole(0), help="Seed of all draws.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and figures here.")
@overwrite_option
@output_options
def compare_cca(networks: tuple[str, ...], pairs: bool, as_json: bool, **given: Any) -> None:
    """Compare every layer of the networks A and B on the same images.

    A and B are a run (fold k with fold k, on the test images of fold k), RUN/fold_K, RUN@initial, RUN@final,
    a .keras file, a weights file with --backbone, random:NAME or imagenet:NAME.

    The interval is over images; "chance" is what unrelated layers score: by formula, and with the images of B
    exchanged. Compare scores of the same rows and dims only: fewer rows raise CCA and Procrustes. A layer that cannot
    be compared (too few rows, constant, not finite) is left out with a note.

    \b
    Example:
      radtransfer compare-cca runs/first@initial runs/first@final \\
        --out comparison
      radtransfer compare-cca runs/first random:resnet50 --similarity cca,cka \\
        --cross
      radtransfer compare-cca --pairs runs/imagenet_1 runs/imagenet_2 \\
        runs/random_1 runs/random_2
    """
    if not pairs and len(networks) != 2:
        raise click.UsageError(f"Expected two networks, A and B. Received {len(networks)}; several runs need --pairs.")
    if pairs and given["cross"]:
        raise click.UsageError("--pairs compares the same layers of both networks; leave --cross out.")
    settings, others = settings_and_others(given, IMAGE_OPTIONS)
    sources, layers, kinds = (others.pop(name) for name in ("data", "layers", "similarity"))
    if len(sources) == 1:
        settings = changed_config(settings, {"data.source": sources[0]})
    others |= {"images": sources if len(sources) > 1 else None, "layers": _listed(layers), "similarity": _listed(kinds)}
    others |= {"config": settings, "progress": TerminalProgress()}
    found = compare_pairs(networks, **others) if pairs else compare(*networks, **others)
    show_json(found.to_dict()) if as_json else show(*found.lines())
    show_written(found.files)
    if pairs:
        show_next(["report", *networks, "--out", "report"])
    else:
        show_next(["compare-weights", *networks, *typed_words("fold", "backbone", "image_size")])


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@click.command("compare-predictions", short_help="Compare the test predictions of two runs.")
@click.argument("a")
@click.argument("b")
@click.option("--seed", default=0, hidden=True, type=Whole(0), help="Not used: the interval has a formula.")
@click.option("--draws", default=2000, hidden=True, type=Whole(100), help="Not used, as --seed.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and a figure here.")
@overwrite_option
@output_options
def compare_predictions(a: str, b: str, seed: int, draws: int, out: str | None, overwrite: bool, as_json: bool) -> None:
    """Compare the test predictions of the runs A and B (RUN or RUN/fold_K) on their common test images.

    "independent" is how often networks of the same accuracies would agree if their errors were independent.
    The interval of the AUC difference is over patients; DeLong's test counts images as independent.

    \b
    Example:
      radtransfer compare-predictions runs/imagenet runs/random --out comparison
    """
    from radtransfer.files import check_new
    from radtransfer.similarity.compare_predictions import PREDICTION_FILES, write_predictions
    from radtransfer.similarity.compare_predictions import compare_predictions as compare_runs

    if out:
        check_new(Path(out), PREDICTION_FILES, overwrite=overwrite)
    comparison = compare_runs(a, b, seed=seed, draws=draws, progress=TerminalProgress())
    written = write_predictions(comparison, Path(out)) if out else []
    show_json(comparison.to_dict()) if as_json else show(*comparison.lines())
    show_written(written)
    show_next(["compare-cca", a, b])


@click.command("compare-weights", short_help="Compare the weights of two networks layer by layer.")
@click.argument("a")
@click.argument("b")
@click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of the runs.")
@click.option(
    "--backbone", metavar="NAME", shell_complete=complete_backbone, help="Network that a weights file is for."
)
@click.option("--image-size", type=Whole(16), help="Image size of networks that take any size.")
@click.option("--seed", default=0, show_default=True, type=Whole(0), help="Seed of random networks.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and figures here.")
@overwrite_option
@output_options
def compare_weights(
    a: str,
    b: str,
    fold: tuple[int, ...],
    backbone: str | None,
    image_size: int | None,
    seed: int,
    out: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare the weights of the networks A and B, layer by layer, and the filters of their first convolution.

    A and B are as in compare-cca. "change" is the length of the difference over the length of A's weights.

    \b
    Example:
      radtransfer compare-weights runs/first@initial runs/first@final \\
        --out comparison
    """
    from radtransfer.files import check_new
    from radtransfer.similarity.compare_weights import WEIGHT_FILES, write_weights
    from radtransfer.similarity.compare_weights import compare_weights as compare_networks

    if out:
        check_new(Path(out), WEIGHT_FILES, overwrite=overwrite)
    comparison = compare_networks(
        a, b, backbone=backbone, image_size=image_size, folds=fold, seed=seed, progress=TerminalProgress()
    )
    written = write_weights(comparison, Path(out)) if out else []
    show_json(comparison.to_dict()) if as_json else show(*comparison.lines())
    show_written(written)
    show_next(["compare-cca", a, b, *typed_words("fold", "backbone", "image_size")])
