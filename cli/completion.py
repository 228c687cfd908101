"""What the shell completes after radtransfer, and the command that prints the script for it."""

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, add_completion_class

from radtransfer.cli.main import COMPLETING
from radtransfer.cli.terminal import show_file
from radtransfer.config.load import setting_fields, shipped_configs
from radtransfer.config.recipes import RECIPES
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.models.backbone import BACKBONES
from radtransfer.training.trackers import TRACKERS
from radtransfer.transfer.schemes import SCHEMES

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


def _weights(context: click.Context) -> list[str]:
    from radtransfer.pretrained.source import weights_cards

    return ["random", "imagenet", *weights_cards()]


def _preprocessing(context: click.Context) -> list[str]:
    from radtransfer.images.preprocessing import MODES

    return ["auto", *MODES]


def _stages(context: click.Context) -> list[str]:
    """Of the network on the command line, or all names that stages have."""
    name: Any = context.params.get("backbone")
    cards = [BACKBONES[name]] if name in BACKBONES else [BACKBONES[known] for known in BACKBONES]
    return list(dict.fromkeys(stage for card in cards for stage in card.stages))


def _studies(context: click.Context) -> list[str]:
    from radtransfer.studies.file import is_study

    return [name for name in shipped_configs() if is_study(name)]


def _runs(context: click.Context) -> list[str]:
    studies = _studies(context)
    return [name for name in shipped_configs() if name not in studies]


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
complete_study = _completer(_studies)
complete_run_config = _completer(_runs)
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
    Example: eval "$(radtransfer completion bash)"                    in ~/.bashrc
             eval "$(radtransfer completion zsh)"                     in ~/.zshrc, after compinit
             radtransfer completion fish > ~/.config/fish/completions/radtransfer.fish
    """
    application = click.get_current_context().find_root().command
    show_file(SHELLS[shell](application, {}, "radtransfer", COMPLETING).source() + "\n")
