"""`radtransfer configs`: the shipped settings of runs, and studies."""

import click

from radtransfer.config import find_config, load_config, shipped_configs
from radtransfer.studies.study_file import is_study, load_study


@click.group()
def configs() -> None:
    """List, show or check settings of runs, and studies.

    Example: radtransfer configs show quickstart
    """


@configs.command("list")
def list_configs() -> None:
    """Names of the shipped configs and studies, with what each is for."""
    for name, path in shipped_configs().items():
        click.echo(f"{name:<24}{path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


@configs.command()
@click.argument("config")
def show(config: str) -> None:
    """Print CONFIG, a shipped name or a YAML file."""
    click.echo(find_config(config).read_text(encoding="utf-8"), nl=False)


@configs.command()
@click.argument("config")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting, as finetune or study does.")
def validate(config: str, sets: tuple[str, ...]) -> None:
    """Check the settings in CONFIG without running anything."""
    if is_study(config):
        from radtransfer.studies.plan import check_study

        cells = check_study(load_study(config, sets=sets))
        click.echo(f"{config}: a valid study of {len(cells)} runs.")
        return
    load_config(config, sets=sets)
    click.echo(f"{config}: every setting is valid.")
