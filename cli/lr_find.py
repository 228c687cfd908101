"""`radtransfer lr-find`: which learning rate to begin with."""

from pathlib import Path
from typing import Any

import click

from radtransfer.cli.completions import complete_run_config
from radtransfer.cli.finetune import OPTIONS, check_named
from radtransfer.cli.options import given_settings, sets_option, setting_options
from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import TerminalProgress, show, show_json
from radtransfer.config import load_config

_WITHOUT_MEANING = ("epochs", "learning_rate", "schedule", "monitor", "patience", "eval_every", "repeats", "ema")
_ITS_OWN = ("out", "track", "cache", "cache_features")
SHARED = {name: setting for name, setting in OPTIONS.items() if name not in (*_WITHOUT_MEANING, *_ITS_OWN)}


@click.command("lr-find", short_help="Suggest a learning rate after a few hundred steps.")
@click.argument("config", required=False, shell_complete=complete_run_config)
@setting_options(**SHARED)
@sets_option("Any setting.")
@click.option("--from", "low", type=float, default=1e-6, show_default=True, help="First learning rate.")
@click.option("--to", "high", type=float, default=1.0, show_default=True, help="Last learning rate.")
@click.option("--steps", type=click.IntRange(20), default=240, show_default=True, help="Training steps.")
@click.option("--out", metavar="DIR", default="lr-find", show_default=True, help="Folder of the table and the figure.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier search in --out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lr_find(
    config: str | None,
    sets: tuple[str, ...],
    low: float,
    high: float,
    steps: int,
    out: str,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a few hundred steps with a rising learning rate, and suggest where the loss falls most steeply.

    Takes the settings of finetune: the network, its start, the images of the first fold, augmentation, batch size and
    optimizer are those of the run that you plan. No run is begun; --out gets rates.csv, rates.json and the curve.

    \b
    Example: radtransfer lr-find quickstart
             radtransfer lr-find --data images.csv --backbone resnet50 --weights imagenet --steps 300
    """
    # Some recipes have no learning rate; here it does not matter.
    unused = {"training.learning_rate": high}
    settings = load_config(config, sets=sets, options={**given_settings(given, SHARED), **unused})
    check_named(settings)
    from radtransfer.datasets import fitted
    from radtransfer.preparation import read_inputs
    from radtransfer.rate_search.rule import FILES, checked_width
    from radtransfer.result_folder import check_new

    progress, place = TerminalProgress(), Path(out)
    checked_width(low, high, steps)
    check_new(place, FILES, overwrite=overwrite)
    rates = {"low": low, "high": high, "steps": steps}
    settings = fitted(settings, progress)
    inputs = read_inputs(settings, progress)
    import_tensorflow()
    from radtransfer.rate_search.search import find_rate, write_search

    search = find_rate(settings, **rates, out=place, overwrite=overwrite, progress=progress, inputs=inputs)
    progress.clear()
    written = write_search(search, place)
    found = search.to_dict()
    show_json(found) if as_json else show(*_text(found))
    show(f"wrote {', '.join(map(str, written))}", err=True)


def _text(found: dict[str, Any]) -> list[str]:
    from radtransfer.rate_search.rule import UPPER

    fall = f"{-found['slope']:.3g} per decade, {found['standard_errors_below_0']:.1f} times its standard error"
    if found["suggested"] is None:
        suggested = f"none: the loss falls nowhere by more than its noise (at most {fall}; 4 times are asked for)"
        suggested += "; give more --steps or larger batches"
    elif found["fell_early"]:
        suggested = f"{found['suggested']:.2g}, {found['rule']} ({found['lowest_loss_at']:.2g}); the loss fell most "
        suggested += f"steeply at {found['steepest_at']:.2g}, but only because it began high"
    else:
        suggested = f"{found['suggested']:.2g}, {found['rule']} ({fall})"
    rows = {"suggested": suggested}
    if not found["fell_early"]:
        rows["at most"] = f"{found['upper']:.2g}, {UPPER} ({found['lowest_loss_at']:.2g})"
    if found["diverged_at"] is not None:
        rows["diverged"] = f"at {found['diverged_at']:.2g}, where the search ended"
    rows["caveat"] = found["caveat"]
    return [f"{title:<11}{text}" for title, text in rows.items()]
