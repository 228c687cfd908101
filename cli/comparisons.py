"""Commands that compare two networks: their layers (compare-cca), test predictions and weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from radtransfer.api.comparisons import compare, compare_pairs
from radtransfer.cli.main import complete_backbone
from radtransfer.cli.options import (
    IMAGE_OPTIONS,
    Command,
    SettingOption,
    output_options,
    overwrite_option,
    setting_options,
    settings_and_others,
    typed_words,
)
from radtransfer.cli.terminal import TerminalProgress, interval, number, show, show_json, show_next, show_written
from radtransfer.config.load import changed_config
from radtransfer.similarity import SIMILARITIES

if TYPE_CHECKING:
    from radtransfer.similarity.compare_layers import Comparison
    from radtransfer.similarity.compare_predictions import PredictionComparison
    from radtransfer.similarity.compare_weights import WeightComparison
    from radtransfer.similarity.population import Population

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
    help="Every pair of several runs, before and after training, by what each stage of them really started from.",
)
@click.option("--layers", default="stages", show_default=True, metavar="stages|all|NAMES", help="Comma-separated.")
@click.option("--rows", default=10_000, show_default=True, type=click.IntRange(4), help="Positions per layer.")
@click.option("--dims", default=64, show_default=True, type=click.IntRange(1), help="Channels per layer.")
@click.option(
    "--repeats", default=5, show_default=True, type=click.IntRange(1), help="Draws of both, in one pass; averaged."
)
@click.option(
    "--similarity",
    default="cca",
    show_default=True,
    metavar="KINDS",
    help=f"Of {', '.join(STREAMED)}; comma-separated.",
)
@click.option(
    "--sampling",
    type=click.Choice(["spread", "transfusion"]),
    help="Positions spread over all images, or all of a few (Transfusion, App. C).  [default: spread]",
)
@click.option(
    "--channels",
    type=click.Choice(["auto", "paired", "independent", "all"]),
    help="The same channels of both layers where they have as many; the same; others; every one.  [default: auto]",
)
@click.option("--cross", is_flag=True, help="Also every layer of A against every layer of B.")
@click.option(
    "--batch-norm",
    type=click.Choice(["own", "shared"]),
    default="own",
    show_default=True,
    help="shared: B computes with the batch-norm statistics of A; what is left was changed by weights.",
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
@click.option("--image-size", type=click.IntRange(16), help="For random:, imagenet: and weights files.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything drawn.")
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
    progress = TerminalProgress()
    if pairs:
        found, text = compare_pairs(networks, config=settings, progress=progress, **others), _population_text
    else:
        found, text = compare(*networks, config=settings, progress=progress, **others), _text
    show_json(found.to_dict()) if as_json else show(*text(found))
    show_written(found.files)
    if pairs:
        show_next(["report", *networks, "--out", "report"])
    else:
        show_next(["compare-weights", *networks, *typed_words("fold", "backbone", "image_size")])


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _text(comparison: "Comparison") -> list[str]:
    width = max(len(name) for name in ("layer", *comparison.names)) + 2
    lines = [
        f"{'layer':<{width}}{'kind':<12}{'similarity':>10}  {'95 % interval':<16}{'chance':<15}"
        f"{'ranks':<9}{'rows':>8}{'images':>8}"
    ]
    for item in comparison.layers:
        chance = f"{number(item.null.closed_form)} / {number(item.null.permuted)}"
        lines.append(
            f"{item.layer:<{width}}{item.kind:<12}{number(item.similarity):>10}  {interval(item.ci95):<16}{chance:<15}"
            f"{f'{item.rank_a}, {item.rank_b}':<9}{item.rows:>8}{item.images:>8}"
        )
    folds = comparison.settings["folds"]
    over = f", mean over {len(folds)} folds" if len(folds) > 1 else ""
    lines.append(f"mean of {comparison.settings['repeats']} draws{over}; chance: by formula / of exchanged images")
    return lines


def _population_text(population: "Population") -> list[str]:
    columns = ("started from", *(group.starts for group in population.groups))
    width, wide = max(map(len, columns)) + 2, max(len(group.layer) for group in population.groups) + 2
    lines = [
        f"{'started from':<{width}}{'layer':<{wide}}{'kind':<12}{'pairs':>5}{'before':>9}{'after':>9}{'sd':>9}"
        f"{'R²':>9}  {'95 % interval':<16}{'points':>6}"
    ]
    for group in population.groups:
        lines.append(
            f"{group.starts:<{width}}{group.layer:<{wide}}{group.kind:<12}{group.pairs:>5}"
            f"{number(group.initial):>9}{number(group.final):>9}{number(group.sd):>9}{number(group.r_squared):>9}  "
            f"{interval(group.r_squared_ci95):<16}{group.n_points or '':>6}"
        )
    lines.append(
        "R²: of similarity before and after training in the layer, over points, which are pairs × draws. Its interval "
        "leaves out one run after another, with a single pair one draw after another"
    )
    return lines


@click.command("compare-predictions", short_help="Compare the test predictions of two runs.")
@click.argument("a")
@click.argument("b")
@click.option("--seed", default=0, hidden=True, type=click.IntRange(0), help="Not used: the interval has a formula.")
@click.option("--draws", default=2000, hidden=True, type=click.IntRange(100), help="Not used, as --seed.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and a figure here.")
@overwrite_option
@output_options
def compare_predictions(a: str, b: str, seed: int, draws: int, out: str | None, overwrite: bool, as_json: bool) -> None:
    """Compare the test predictions of the runs A and B (RUN or RUN/fold_K) on the images that both tested.

    "independent" is how often networks of the same accuracies would agree if their errors had nothing to do with
    each other. The interval of the AUC difference is over patients; DeLong's test counts images as independent.

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
    show_json(comparison.to_dict()) if as_json else show(*_prediction_lines(comparison))
    show_written(written)
    show_next(["compare-cca", a, b])


def _prediction_lines(found: "PredictionComparison"):
    patients = "patients unknown" if found.n_patients is None else f"{found.n_patients} patients"
    yield f"images         {found.n_images}, {patients}, fold {', '.join(map(str, found.settings['folds']))}"
    if found.positive_class is not None:
        yield f"positive class {found.positive_class}"
    yield f"accuracy       A {found.accuracy_a:.3f}   B {found.accuracy_b:.3f}"
    for title, value in (
        ("errors", found.errors),
        ("probabilities", found.probabilities),
        ("decisions", found.decisions),
    ):
        if value is not None:
            yield (
                f"{title:<15}agree on {value.observed:.3f}, independent {value.independent:.3f}, "
                f"kappa {number(value.kappa)}"
            )
    yield f"correlation    {number(found.correlation)} of the probabilities of the truth"
    auc = found.auc
    low, high = auc.ci95 or (None, None)
    yield (
        f"AUC            A {number(auc.a)}   B {number(auc.b)}   A - B {number(auc.difference, '+.3f')}  "
        f"95 % interval {number(low, '+.3f')} to {number(high, '+.3f')}"
    )
    for test in found.delong:
        p = number(test.p, ".3g")
        yield f"DeLong         {test.question}: A - B {test.difference:+.3f} ± {test.error:.3f}, p = {p}"


@click.command("compare-weights", short_help="Compare the weights of two networks layer by layer.")
@click.argument("a")
@click.argument("b")
@click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of the runs.")
@click.option(
    "--backbone", metavar="NAME", shell_complete=complete_backbone, help="Network that a weights file is for."
)
@click.option("--image-size", type=click.IntRange(16), help="For networks that are built for any size.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of random networks.")
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
    show_json(comparison.to_dict()) if as_json else show(*_weight_lines(comparison))
    show_written(written)
    show_next(["compare-cca", a, b, *typed_words("fold", "backbone", "image_size")])


def _weight_lines(comparison: "WeightComparison"):
    width = max(len(name) for name in ("layer", *(layer.layer for layer in comparison.layers))) + 2
    yield f"{'layer':<{width}}{'parameters':>12}{'change':>9}{'cosine':>9}{'length A':>11}{'length B':>11}"
    for layer in comparison.layers:
        yield (
            f"{layer.layer:<{width}}{layer.parameters:>12,}{number(layer.relative_change):>9}"
            f"{number(layer.cosine):>9}{layer.norm_a:>11.3f}{layer.norm_b:>11.3f}"
        )
    if comparison.left_out:
        shown = ", ".join(comparison.left_out[:6]) + (", …" if len(comparison.left_out) > 6 else "")
        yield f"of other shape or in one network only: {shown}"
