"""Options that commands share, made from the settings: one source for default, type, range and help.

A command with many options is a `Command`: its help shows them in groups, and first those that most people need.
"""

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from radtransfer.cli.main import complete_assignment, complete_setting
from radtransfer.cli.terminal import show
from radtransfer.config.load import load_config, setting_fields
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import parse_scalar

SECTIONS = {
    "data": "Data",
    "images": "Data",
    "splits": "Data",
    "model": "Network and weights",
    "transfer": "Transfer plan",
    "recipe": "Training",
    "training": "Training",
}
"""The heading of an option's setting in the help, by its section; the other options follow under a last heading."""

_ALL = "radtransfer.help_all"


class Whole(click.IntRange):
    """A whole number within a range, shown as N."""

    name = "whole number"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "N"


class Real(click.FloatRange):
    """A number within a range, shown as X."""

    name = "number"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "X"


class SettingOption(click.Option):
    """An option that gives a setting."""

    def __init__(self, *names: Any, setting: str, **more: Any) -> None:
        super().__init__(*names, **more)
        self.setting = setting


class Command(click.Command):
    """Shows the options of `first` in its help, and all of them with `--help-all`; in groups, the last of title `rest`.

    Options of `first` are named as their arguments of the function.
    """

    def __init__(self, *values: Any, first: Sequence[str], rest: str = "Options", **more: Any) -> None:
        super().__init__(*values, **more)
        self.first, self._rest = first, rest
        option = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_all_help,
            help="Show every option and exit.",
        )
        self.params.append(option)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (*SECTIONS.values(), self._rest)}
        left_out = 0
        for item in self.get_params(ctx):
            record = item.get_help_record(ctx) if isinstance(item, click.Option) else None
            if record is None:  # an argument, or hidden
                continue
            if ctx.meta.get(_ALL) or item.name in self.first or item.opts[-1] in ("--help", "--help-all"):
                section = item.setting.partition(".")[0] if isinstance(item, SettingOption) else ""
                groups[SECTIONS.get(section, self._rest)].append(record)
            else:
                left_out += 1
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if left_out:
            formatter.write_paragraph()
            formatter.write_text(f"`{ctx.command_path} --help-all` shows {left_out} more options.")


def _show_all_help(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_ALL] = True
        show(*context.get_help().split("\n"))
        context.exit()


def _keep(context: click.Context, option: click.Parameter, given: bool) -> None:
    context.meta[option.name] = given


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_keep, help="Print only warnings and results."
)

verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_keep, help="Print the whole plan, stage by stage."
)


def output_options(command: Callable) -> Callable:
    """`--json`, which arrives as `as_json`, and `--quiet`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(quiet_option(command))


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
        from radtransfer.runs.lock import breaking_locks

        context.with_resource(breaking_locks())


break_lock_option = click.option(
    "--break-lock",
    is_flag=True,
    expose_value=False,
    callback=_break_locks,
    help="Take over a folder that an ended process of another machine still holds. Use it only if a message asks "
    "for it.",
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
        members = _members(annotation)
        is_text = set(members) - {type(None), Ellipsis} == {str}
        if not (isinstance(value, bool) or is_text or typing.get_origin(annotation) in (typing.Literal, tuple)):
            # "none" is nothing where nothing is a value of the setting.
            value = None if value.lower() == "none" and type(None) in members else parse_scalar(value)
        given[setting] = value
    return given


def typed_words(*names: str) -> list[str]:
    """Those of the named options that the command was called with, as they are typed; and its `--set`."""
    context, words = click.get_current_context(), []
    for name in (*names, "sets"):
        if name not in context.params or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value, option = context.params[name], "set" if name == "sets" else name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [
                word for item in (value if isinstance(value, tuple) else [value]) for word in (f"--{option}", item)
            ]
    return words


def settings_and_others(given: dict[str, Any], names: dict[str, str]) -> tuple[Config, dict[str, Any]]:
    """The checked settings that were given, and the values of the other options."""
    settings = load_config(options=given_settings(given, names))
    return settings, {name: value for name, value in given.items() if name not in names}


_METAVARS = {"image_root": "DIR", "out": "DIR", "through": "STAGE", "freeze_to": "STAGE", "slim": "STAGE:X"}


def _option(name: str, setting: str) -> Callable:
    field, annotation = setting_fields()[setting]
    flag, members, origin = name.replace("_", "-"), _members(annotation), typing.get_origin(annotation)
    option = partial(click.option, cls=SettingOption, setting=setting)
    default, help_text = field.default, field.metadata["help"]
    if default is not None and default != () and not isinstance(default, bool):
        help_text += f"  [default: {default}]"
    if bool in members:
        return option(f"--{flag}/--no-{flag}", name, default=None, help=help_text)
    if origin is typing.Literal:
        return option(f"--{flag}", name, type=click.Choice(typing.get_args(annotation)), help=help_text)
    last = setting.rpartition(".")[2]
    metavar = (
        "N" if int in members else "X" if float in members else _METAVARS.get(last, last.rpartition("_")[2].upper())
    )
    more = {"multiple": True} if origin is tuple else {}
    return option(f"--{flag}", name, metavar=metavar, help=help_text, shell_complete=complete_setting(setting), **more)


def _members(annotation: Any) -> tuple:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) is tuple else (annotation,)


def options_of(section: str, *names: str) -> dict[str, str]:
    """Options that are called as the settings of a section."""
    return {name: f"{section}.{name}" for name in names}


TABLE_OPTIONS = options_of(
    "data",
    *("image_root", "outside_root", "path_column", "label_column", "patient_column", "patient_regex", "split_column"),
    *("fold_column", "label_separator", "missing_values", "missing_patients", "allow_alike_patients", "task"),
    *("positive_class", "uncertain", "unmentioned", "frames"),
)

IMAGE_OPTIONS = options_of(
    "data",
    *("image_root", "outside_root", "path_column", "patient_column", "patient_regex"),
    *("missing_patients", "allow_alike_patients", "frames"),
)
"""Those that say how a data set is read which needs no labels."""

FOLDS_SHOWN = 10


def split_lines(folds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of images, patients and classes in each split of each fold, as `split_counts` gives them."""
    if not folds:
        return
    widths = {name: max(len(name), 6) + 2 for name in folds[0]["train"]["classes"]}
    heads = "".join(f"{name:>{width}}" for name, width in widths.items())
    yield f"{'fold':<6}{'split':<7}{'images':>8}{'patients':>10}{heads}"
    for fold in folds[:FOLDS_SHOWN]:
        for name in ("train", "val", "test"):
            counts = fold[name]
            patients = "–" if counts["patients"] is None else counts["patients"]
            numbers = zip(counts["classes"].values(), widths.values(), strict=True)
            cells = "".join(f"{number:>{width}}" for number, width in numbers)
            number = fold["fold"] if name == "train" else ""
            yield f"{number:<6}{name:<7}{counts['images']:>8}{patients:>10}{cells}"
    if len(folds) > FOLDS_SHOWN:
        yield f"and {len(folds) - FOLDS_SHOWN} more folds, alike"


def positive_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the figures of a table of runs are of, where these tell two classes apart; of which arms, if not of all."""
    named: dict[str | None, list[str]] = {}
    for row in rows:
        named.setdefault(row["positive_class"], []).append(row.get("arm", ""))
    for name, arms in named.items():
        if name is not None:
            yield f"positive class {name}" + (f": {', '.join(dict.fromkeys(arms))}" if len(named) > 1 else "")


def images_text(
    images: int, patients: int | None, classes: Mapping[str, Mapping[str, int | None]], positive: str | None
) -> str:
    """How many images, patients and classes there are, and which of two classes is positive, in one line."""
    known = "patients not known" if patients is None else f"{patients} patients"
    names = [f"{name} {counts['images']}" for name, counts in list(classes.items())[:12]]
    names += ["…"] if len(classes) > 12 else []
    of_two = "" if positive is None else f"; positive class {positive}"
    return f"{images} images, {known}, {len(classes)} classes ({', '.join(names)}){of_two}"


LIST_OPTIONS = options_of("data", "image_root", "outside_root", "path_column", "frames") | {"workers": "system.workers"}


def fold_option(command: Callable) -> Callable:
    """`--fold K`, which may be repeated."""
    return click.option("--fold", multiple=True, type=int, metavar="K", help="Only these folds of a run.")(command)


def batch_option(command: Callable) -> Callable:
    """`--batch-size N`."""
    text = "Images at a time, at most; halved if memory runs out."
    return click.option("--batch-size", default=32, show_default=True, type=Whole(1), help=text)(command)


def skip_option(command: Callable) -> Callable:
    """`--on-bad-image error|skip`."""
    text = "Images that cannot be read are listed and left out; with error the exit code is 3."
    choices = click.Choice(["error", "skip"])
    return click.option("--on-bad-image", type=choices, default="error", show_default=True, help=text)(command)
