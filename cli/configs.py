"""`radtransfer configs`: the shipped settings of runs, and studies."""

from pathlib import Path

import click

from radtransfer.cli.completions import complete_config
from radtransfer.cli.groups import Group
from radtransfer.cli.options import sets_option
from radtransfer.cli.terminal import show, show_file, show_json
from radtransfer.config import config_text, find_config, load_config, shipped_configs
from radtransfer.studies.study_file import is_study, load_study


@click.group(cls=Group)
def configs() -> None:
    """List, show or check settings of runs, and studies.

    \b
    Example: radtransfer configs list
             radtransfer configs show quickstart > mine.yaml
             radtransfer configs validate mine.yaml
    """


@configs.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_configs(as_json: bool) -> None:
    """Names of the shipped configs and studies, with what each is for.

    \b
    Example: radtransfer configs list --json
    """
    found = shipped_configs()
    if as_json:
        rows = [{"name": name, "kind": _kind(name), "purpose": _purpose(path)} for name, path in found.items()]
        show_json(rows)
        return
    for name, path in found.items():
        show(f"{name:<25}{_kind(name):<7}{_purpose(path)}")


@configs.command("show")
@click.argument("config", shell_complete=complete_config)
@click.option("--full", is_flag=True, help="Every setting of a run with its value, those of its recipe included.")
def show_config(config: str, full: bool) -> None:
    """Print CONFIG, a shipped name or a YAML file.

    \b
    Example: radtransfer configs show quickstart --full
    """
    text = config_text(load_config(config)) if full else find_config(config).read_text(encoding="utf-8")
    show_file(text)


@configs.command(short_help="Check the settings of a run or a study.")
@click.argument("config", shell_complete=complete_config)
@sets_option("Change a setting, as finetune or study does.")
def validate(config: str, sets: tuple[str, ...]) -> None:
    """Check the settings in CONFIG, of a run or a study, without running anything; all mistakes are listed.

    The exit code is 2 where there is one. Data and weights may still be missing: `finetune --dry-run` reads them too.

    \b
    Example: radtransfer configs validate mine.yaml
             radtransfer configs validate quick-advice --set grid.seed=[0,1,2]
    """
    if is_study(config):
        from radtransfer.studies.plan import check_study

        cells = check_study(load_study(config, sets=sets))
        show(f"{config}: a valid study of {len(cells)} runs.")
        return
    from radtransfer.run_names import check_value, look_up

    look_up(load_config(config, sets=sets, check=check_value))
    show(f"{config}: every setting is valid.")


def _kind(name: str) -> str:
    return "study" if is_study(name) else "run"


def _purpose(path: Path) -> str:
    """What the first line of a config says it is for."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
