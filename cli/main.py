"""The command `radtransfer`: its commands, what is meant by unknown names, completion, and errors on the terminal."""

import contextlib
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, add_completion_class

from radtransfer import __version__
from radtransfer.cli.terminal import heed_interrupts, import_tensorflow, show_file, show_libraries_safely
from radtransfer.config.load import setting_fields, shipped_configs
from radtransfer.config.recipes import RECIPES
from radtransfer.errors import (
    COMMAND_SYNONYMS,
    GPU,
    INTERRUPTED,
    OPTIONS,
    ConfigError,
    DiskError,
    RadtransferError,
    close_matches,
    closest_names,
    meant_names,
)
from radtransfer.files import printable_lines, system_error
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.images.refs import check_local_path
from radtransfer.models.backbone import BACKBONES
from radtransfer.process import import_by, pin_variables
from radtransfer.training.trackers import TRACKERS
from radtransfer.transfer.spec import SCHEMES


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
            inner = [name for name in COMMAND_SYNONYMS if name.partition(" ")[0] in known]
            meant = meant_names(args[0], [*known, *inner], COMMAND_SYNONYMS)
            hint = _did_you_mean(meant) if meant else closest_names(args[0], known)
            raise click.UsageError(f"No command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


def unknown_option(error: click.NoSuchOption, words: Iterable[str]) -> click.UsageError:
    """What to say instead: the option, argument or setting that is meant, or the options that are closest.

    `words` are those of the command line: the parser takes `-lr` for several options of one letter.
    """
    command, name = error.ctx.command, error.option_name
    if len(name) == 2:
        name = next((word.partition("=")[0] for word in words if word.startswith(name)), name)
    items = [item for item in command.get_params(error.ctx) if not getattr(item, "hidden", False)]
    options = {word.lstrip("-"): word for item in items for word in (*item.opts, *item.secondary_opts) if "-" in word}
    arguments = {item.name: item.human_readable_name for item in items if isinstance(item, click.Argument)}
    meant = meant_names(name, [*options, *arguments], OPTIONS)
    # Settings that have no option of their own, by their last part.
    lasts = {setting.rpartition(".")[2]: setting for setting in setting_fields()} if "set" in options else {}
    if meant and meant[0] in arguments:
        hint = f"Give {arguments[meant[0]]} without an option: {command.get_usage(error.ctx).partition(': ')[2]}"
    elif meant:
        hint = _did_you_mean([options[word] for word in meant])
    elif isinstance(command, click.Group):
        hint = f"Options of a command follow its name: {error.ctx.command_path} COMMAND {name} …"
    elif name.lstrip("-") in GPU:
        hint = "A GPU that is there is used; CUDA_VISIBLE_DEVICES=0 in the environment chooses one."
    elif lasts and (found := meant_names(name, lasts, OPTIONS)):
        hint = f"Did you mean '--set {lasts[found[0]]}=…'?"
    else:
        close = close_matches(name.lstrip("-"), options)
        hint = _did_you_mean([options[word] for word in close]) if close else ""
    return click.UsageError(f"No such option {name!r}. {hint}".strip(), error.ctx)


def _did_you_mean(names: list[str]) -> str:
    return f"Did you mean {' or '.join(map(repr, names))}?"


GROUPS = {
    "Train": {
        "finetune": "train:finetune",
        "plan": "train:plan",
        "lr-find": "train:lr_find",
        "study": "study:study",
        "freeze-sweep": "study:freeze_sweep_command",
        "transfusion-sweep": "study:transfusion_sweep_command",
    },
    "Data": {"data": "data:data"},
    "Weights": {"weights": "weights:weights", "backbones": "weights:backbones"},
    "Use a model": {
        "evaluate": "use:evaluate",
        "predict": "use:predict",
        "explain": "use:explain",
        "extract": "use:extract",
        "export": "use:export",
        "card": "use:card",
    },
    "Compare": {
        "compare-cca": "comparisons:compare_cca",
        "compare-predictions": "comparisons:compare_predictions",
        "compare-weights": "comparisons:compare_weights",
    },
    "Report": {"report": "study:report"},
    "Setup": {"configs": "weights:configs", "doctor": "doctor:doctor", "completion": "main:completion"},
}
"""The commands by the heading that the help shows them under, with their module below `radtransfer.cli`."""

COMMANDS = {name: place for group in GROUPS.values() for name, place in group.items()}

_WRITTEN = ("--out", "--runs")
"""The options of all commands that name what is written."""

COMPLETING = "_RADTRANSFER_COMPLETE"
"""Environment variable in which a shell asks for completions."""


_full_disk: list[DiskError] = []
"""The error of a disk that had no room, if that is why the command ends."""


class Application(Group):
    """Imports a command when it is used, and turns errors into one message and a documented exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        return getattr(importlib.import_module(f"radtransfer.cli.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                shown = [
                    (name.ljust(width), self.get_command(ctx, name).get_short_help_str(limit=80)) for name in names
                ]
                formatter.write_dl(shown)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            raise _safe(error) from None

    def invoke(self, ctx: click.Context):
        words = list(ctx.args)
        try:
            _check_written(words)
            import_by(import_tensorflow)
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            raise _safe(unknown_option(error, words)) from None
        except click.ClickException as error:
            raise _safe(error) from None
        except click.exceptions.Exit:
            raise
        except (KeyboardInterrupt, click.Abort):
            raise _failure("Interrupted.", INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(0) from None
        except Exception as error:
            debug = ctx.params["debug"]
            known = error if isinstance(error, RadtransferError) else None if debug else system_error(error)
            if isinstance(known, DiskError):
                _full_disk.append(known)
            if known is not None:
                raise _failure(str(known), known.exit_code) from error
            text = (
                "".join(traceback.format_exception(error))
                if debug
                else (
                    f"Unexpected {type(error).__name__}: {error}. "
                    "This is a bug in radtransfer; `radtransfer --debug …` prints where."
                )
            )
            raise _failure(text, 1) from error


def _check_written(arguments: Sequence[str]) -> None:
    """Refuse addresses for what is written, before a folder of this machine is made that is called `gs:`."""
    for option, word in itertools.pairwise(["", *arguments]):
        name, equals, value = word.partition("=")
        option, value = (name, value) if equals else (option, word)
        if option in _WRITTEN:
            try:
                check_local_path(value)
            except ConfigError as error:
                raise ConfigError(f"{option}: {error}") from None


class _Failure(click.ClickException):
    """Keeps its exit code where nobody reads its message any more."""

    def show(self, file: Any = None) -> None:
        with contextlib.suppress(BrokenPipeError):
            super().show(file)


def _safe(error: click.ClickException) -> click.ClickException:
    """The error with a message that steers no terminal; click prints it."""
    if not isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        text = printable_lines(error.format_message())
        if isinstance(error, click.MissingParameter) and error.ctx is not None:
            examples = (error.ctx.command.help or "").partition("Example:\n")[2].replace("\\\n", "").strip()
            text += "\nExample: " + " ".join(examples.partition("\n")[0].split())
        error.format_message = lambda: text
    return error


def _failure(message: str, exit_code: int) -> click.ClickException:
    failure = _Failure(message)
    failure.exit_code = exit_code
    return _safe(failure)


@click.group(
    cls=Application,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 bug, 2 usage or settings, 3 data, 4 weights, 5 training failed or disk full, "
    "6 some folds failed, 7 export failed its check, 130 interrupted.",
)
@click.version_option(__version__, prog_name="radtransfer")
@click.option("--debug", is_flag=True, help="Print where an unexpected error came from.")
def application(debug: bool) -> None:
    """Fine-tune pretrained networks on medical images, and measure what transfer did.

    Every command explains itself: `radtransfer COMMAND --help`. Set NO_COLOR for output without colours.

    \b
    Example:
      radtransfer finetune quickstart
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


def _delete_temporary() -> None:
    """What Python deletes where it ends by itself."""
    if "radtransfer.runs.cache" in sys.modules:
        sys.modules["radtransfer.runs.cache"].delete_temporary()


def main() -> None:
    """Run the command line."""
    pin_variables()
    heed_interrupts(_delete_temporary)
    show_libraries_safely()
    try:
        code = application(prog_name="radtransfer")
    except SystemExit as leaving:
        code = leaving.code
    if _full_disk or code == INTERRUPTED:
        _delete_temporary()
        # Python takes seconds to take TensorFlow apart, and HDF5 files that could not be written fail there once more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_setting(setting: str) -> Completer:
    """Completes the value of the setting with this dotted name."""
    return _completer(_SETTINGS.get(setting, lambda _: ()))


def _completer(known: Callable[[click.Context], Iterable[str]]) -> Completer:
    """Completes one of the names, or the last of several with commas between."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, start = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in known(context) if name.startswith(start)]

    return complete


def _weights(_: click.Context) -> list[str]:
    from radtransfer.pretrained.source import known_weights

    return ["random", "imagenet", *known_weights()]


def _preprocessing(_: click.Context) -> list[str]:
    from radtransfer.images.preprocessing import MODES

    return ["auto", *MODES]


def _stages(context: click.Context) -> list[str]:
    """Of the network on the command line, or all names that stages have."""
    name: Any = context.params.get("backbone")
    names = [name] if name in BACKBONES else list(BACKBONES)
    return list(dict.fromkeys(stage for known in names for stage in BACKBONES[known].stages))


def _studies(*, studies: bool = True) -> list[str]:
    from radtransfer.studies.file import is_study

    return [name for name in shipped_configs() if is_study(name) == studies]


_SETTINGS: dict[str, Callable[[click.Context], Iterable[str]]] = {
    "recipe": lambda _: RECIPES,
    "track": lambda _: TRACKERS,
    "model.backbone": lambda _: BACKBONES,
    "model.weights": _weights,
    "model.preprocessing": _preprocessing,
    "transfer.scheme": lambda _: ["auto", *SCHEMES],
    "transfer.through": _stages,
    "transfer.freeze_to": lambda context: ["none", "all", *_stages(context)],
    "training.augmentation": lambda _: AUGMENTATIONS,
    "training.class_weights": lambda _: ["none", "balanced"],
}

complete_backbone = complete_setting("model.backbone")
complete_weights = complete_setting("model.weights")
complete_config = _completer(lambda _: shipped_configs())
complete_study = _completer(lambda _: _studies())
complete_run_config = _completer(lambda _: _studies(studies=False))
complete_assignment = _completer(lambda _: [f"{name}=" for name in setting_fields()])


class _OrFiles:
    """Files where there is nothing else to complete: runs, images, weights and folders are all paths."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        return found or ([] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")])


@add_completion_class
class Bash(_OrFiles, BashComplete):
    """For bash 4.4 and later."""


@add_completion_class
class Zsh(_OrFiles, ZshComplete):
    """For zsh."""


@add_completion_class
class Fish(_OrFiles, FishComplete):
    """For fish."""


SHELLS = {"bash": Bash, "zsh": Zsh, "fish": Fish}


@click.command(short_help="Print the script that completes names in a shell.")
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, backbones, schemes, recipes and configs.

    \b
    Example:
      eval "$(radtransfer completion bash)"  # in ~/.bashrc
      eval "$(radtransfer completion zsh)"   # in ~/.zshrc, after compinit
      radtransfer completion fish > ~/.config/fish/completions/radtransfer.fish
    """
    application = click.get_current_context().find_root().command
    show_file(SHELLS[shell](application, {}, "radtransfer", COMPLETING).source() + "\n")
