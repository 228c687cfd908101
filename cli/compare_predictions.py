"""`radtransfer compare-predictions`: whether two runs err on the same images, and which is better."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from radtransfer.cli.options import overwrite_option
from radtransfer.cli.terminal import TerminalProgress, show, show_json

if TYPE_CHECKING:
    from radtransfer.comparisons.predictions import PredictionComparison


@click.command("compare-predictions", short_help="Compare the test predictions of two runs.")
@click.argument("a")
@click.argument("b")
@click.option("--seed", default=0, hidden=True, type=click.IntRange(0), help="Not used: the interval has a formula.")
@click.option("--draws", default=2000, hidden=True, type=click.IntRange(100), help="Not used, as --seed.")
@click.option("--out", metavar="DIR", help="Write CSV, JSON and a figure here.")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare_predictions(a: str, b: str, seed: int, draws: int, out: str | None, overwrite: bool, as_json: bool) -> None:
    """Compare the test predictions of the runs A and B (RUN or RUN/fold_K) on the images that both tested.

    "independent" is how often networks of the same accuracies would agree if their errors had nothing to do with
    each other. The interval of the AUC difference is over patients; DeLong's test counts images as independent.

    \b
    Example: radtransfer compare-predictions runs/imagenet runs/random --out comparison
    """
    from radtransfer.comparisons.comparison_files import PREDICTION_FILES, write_predictions
    from radtransfer.comparisons.predictions import compare_predictions as compare
    from radtransfer.result_folder import check_new

    if out:
        check_new(Path(out), PREDICTION_FILES, overwrite=overwrite)
    comparison = compare(a, b, seed=seed, draws=draws, progress=TerminalProgress())
    written = write_predictions(comparison, Path(out)) if out else []
    show_json(comparison.to_dict()) if as_json else show(*_lines(comparison))
    for path in written:
        show(f"wrote {path}", err=True)


def _lines(found: "PredictionComparison"):
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
                f"kappa {_number(value.kappa)}"
            )
    yield f"correlation    {_number(found.correlation)} of the probabilities of the truth"
    auc = found.auc
    low, high = auc.ci95 or (None, None)
    yield (
        f"AUC            A {_number(auc.a)}   B {_number(auc.b)}   A - B {_signed(auc.difference)}  "
        f"95 % interval {_signed(low)} to {_signed(high)}"
    )
    for test in found.delong:
        p = "n/a" if test.p is None else f"{test.p:.3g}"
        yield f"DeLong         {test.question}: A - B {test.difference:+.3f} ± {test.error:.3f}, p = {p}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.3f}"
