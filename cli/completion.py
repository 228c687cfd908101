"""`radtransfer completion`: the script that makes a shell complete commands, options and names."""

import click

from radtransfer.cli.completions import SHELLS
from radtransfer.cli.main import COMPLETING
from radtransfer.cli.terminal import show_file


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
