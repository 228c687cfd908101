"""Groups of commands that suggest what is meant where a command or option is not there."""

from collections.abc import Iterable

import click

from radtransfer.errors import COMMANDS, GPU, OPTIONS, closest_names, meant_names, near_names


class Group(click.Group):
    """A group that names the commands meant by an unknown one, those closest to it, or all of them."""

    def parse_args(self, ctx: click.Context, args: list[str]):
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise unknown_option(error, words) from None

    def resolve_command(self, ctx: click.Context, args: list[str]):
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            # Commands of the groups are looked for where the groups are.
            inner = [name for name in COMMANDS if name.partition(" ")[0] in known]
            meant = meant_names(args[0], [*known, *inner], COMMANDS)
            hint = _did_you_mean(meant) if meant else closest_names(args[0], known)
            raise click.UsageError(f"No command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


def unknown_option(error: click.NoSuchOption, words: Iterable[str]) -> click.UsageError:
    """What to say instead: the option, argument or setting that is meant, or the options that are closest.

    Args:
        error: Of the parser, which takes `-lr` for several options of one letter.
        words: Of the command line.
    """
    command, name = error.ctx.command, error.option_name
    if len(name) == 2:
        name = next((word.partition("=")[0] for word in words if word.startswith(name)), name)
    items = [item for item in command.get_params(error.ctx) if not getattr(item, "hidden", False)]
    options = {word.lstrip("-"): word for item in items for word in (*item.opts, *item.secondary_opts) if "-" in word}
    arguments = {item.name: item.human_readable_name for item in items if isinstance(item, click.Argument)}
    meant = meant_names(name, [*options, *arguments], OPTIONS)
    if meant and meant[0] in arguments:
        hint = f"Give {arguments[meant[0]]} without an option: {command.get_usage(error.ctx).partition(': ')[2]}"
    elif meant:
        hint = _did_you_mean([options[word] for word in meant])
    elif isinstance(command, click.Group):
        hint = f"Options of a command follow its name: {error.ctx.command_path} COMMAND {name} …"
    elif name.lstrip("-") in GPU:
        hint = "A GPU that is there is used; CUDA_VISIBLE_DEVICES=0 in the environment chooses one."
    elif "set" in options and (setting := _setting(name)):
        hint = f"Did you mean '--set {setting}=…'?"
    else:
        close = near_names(name.lstrip("-"), options)
        hint = _did_you_mean([options[word] for word in close]) if close else ""
    return click.UsageError(f"No such option {name!r}. {hint}".strip(), error.ctx)


def _setting(name: str) -> str | None:
    """The setting that has no option of its own, by its last part."""
    from radtransfer.config.load import setting_fields

    lasts = {setting.rpartition(".")[2]: setting for setting in setting_fields()}
    found = meant_names(name, lasts, OPTIONS)
    return lasts[found[0]] if found else None


def _did_you_mean(names: list[str]) -> str:
    return f"Did you mean {' or '.join(map(repr, names))}?"
