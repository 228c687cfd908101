"""`radtransfer card`: the model card of a run."""

from pathlib import Path

import click

from radtransfer.cli.terminal import show, show_file
from radtransfer.errors import RunError
from radtransfer.system_errors import writing


@click.command(short_help="Write the model card of a run.")
@click.argument("run")
@click.option("--fold", type=int, metavar="K", help="Which fold; needed where there are several.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it here instead of printing it.")
def card(run: str, fold: int | None, out: Path | None) -> None:
    """Print the model card of RUN (or RUN/fold_K): data, results, weights and their terms, limits; in Markdown.

    `radtransfer export` writes the same beside each export, with the result of its check.

    \b
    Example: radtransfer card runs/first --fold 1 --out MODEL_CARD.md
    """
    from radtransfer.exports.model_card import model_card
    from radtransfer.exports.run_facts import read_facts
    from radtransfer.runs import find_fold, write_text

    path, number = find_fold(run, fold=fold)
    facts = read_facts(path, number)
    text = model_card(facts, size=facts.record["image_size"])
    if out is None:
        show_file(text)
        return
    if out.exists():
        raise RunError(f"{out} exists; nothing was written. Choose another --out.")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    show(f"wrote {out}", err=True)
