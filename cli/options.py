"""Command-line options made from the settings: one source for default, type, range and help."""

import types
import typing
from collections.abc import Callable
from typing import Any

import click

from radtransfer.cli.completions import complete_assignment, complete_setting
from radtransfer.config import setting_fields
from radtransfer.yaml_text import parse_scalar


def setting_options(**names: str) -> Callable:
    """Options for settings, each an option name (underscores for dashes) and its dotted setting.

    A setting that may be true or false becomes `--name/--no-name`, one with several values may be repeated.
    """

    def decorate(command: Callable) -> Callable:
        for name, setting in reversed(names.items()):
            command = _option(name, setting)(command)
        return command

    return decorate


def sets_option(text: str) -> Callable:
    """`--set KEY=VALUE`, which may be repeated and arrives as `sets`."""
    return click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", shell_complete=complete_assignment, help=text
    )


def _break_locks(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        from radtransfer.locking import breaking_locks

        context.with_resource(breaking_locks())


break_lock_option = click.option(
    "--break-lock",
    is_flag=True,
    expose_value=False,
    callback=_break_locks,
    help="Take over folders that a process of another machine holds, which has ended. Only on file systems without "
    "locks, and only where a message names it.",
)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an earlier result in --out.")


def given_settings(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The settings that were given, by dotted name, as YAML would read them."""
    fields, given = setting_fields(), {}
    for name, setting in names.items():
        value = values[name]
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            value = ",".join(value)
        annotation = fields[setting][1]
        given[setting] = value if isinstance(value, bool) or _is_text(annotation) else _parse(value, annotation)
    return given


def _option(name: str, setting: str) -> Callable:
    field, annotation = setting_fields()[setting]
    flag, members = name.replace("_", "-"), _members(annotation)
    help_text = f"{field.metadata['help']}{_default_text(field.default)}"
    if bool in members:
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=help_text)
    if typing.get_origin(annotation) is tuple:
        more = {"multiple": True, "metavar": _metavar(setting), "shell_complete": complete_setting(setting)}
        return click.option(f"--{flag}", name, help=help_text, **more)
    if typing.get_origin(annotation) is typing.Literal:
        return click.option(f"--{flag}", name, type=click.Choice(typing.get_args(annotation)), help=help_text)
    complete = complete_setting(setting)
    return click.option(f"--{flag}", name, metavar=_metavar(setting), help=help_text, shell_complete=complete)


def _metavar(setting: str) -> str:
    _, annotation = setting_fields()[setting]
    members = _members(annotation)
    return "N" if int in members else "X" if float in members else setting.rpartition(".")[2].upper()


def _members(annotation: Any) -> tuple:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) is tuple else (annotation,)


def _is_text(annotation: Any) -> bool:
    members = set(_members(annotation)) - {type(None), Ellipsis}
    return members == {str} or typing.get_origin(annotation) is typing.Literal or typing.get_origin(annotation) is tuple


def _parse(value: str, annotation: Any) -> Any:
    """`value` as YAML reads it; "none" is nothing where nothing is a value of the setting."""
    return None if value.lower() == "none" and type(None) in _members(annotation) else parse_scalar(value)


def _default_text(default: Any) -> str:
    return "" if default is None or default == () or isinstance(default, bool) else f"  [default: {default}]"
