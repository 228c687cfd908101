"""`radtransfer data`: look at a data set before, or without, training on it."""

import click

from radtransfer.cli.data_check import check
from radtransfer.cli.data_prepare import prepare
from radtransfer.cli.data_preview import preview
from radtransfer.cli.data_split import split
from radtransfer.cli.groups import Group


@click.group(cls=Group)
def data() -> None:
    """Check, split, preview and prepare data sets.

    DATA is whatever `radtransfer finetune --data` takes, with the same options beside it.

    \b
    Example: radtransfer data check images.csv --image-root images/
    """


for command in (check, split, preview, prepare):
    data.add_command(command)
