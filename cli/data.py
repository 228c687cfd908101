"""`radtransfer data`: look at a data set before, or without, training on it."""

import click

from radtransfer.cli.data_prepare import prepare


@click.group()
def data() -> None:
    """Check, split, preview and prepare data sets.

    DATA is whatever `radtransfer finetune --data` takes, with the same options beside it.
    """


data.add_command(prepare)
