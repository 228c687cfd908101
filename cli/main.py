"""The command `radtransfer`: its list of commands, and the one place where errors meet the terminal."""

import contextlib
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from radtransfer import __version__
from radtransfer.cli.groups import Group, unknown_option
from radtransfer.cli.tensorflow import heed_interrupts, import_tensorflow
from radtransfer.cli.terminal import show_libraries_safely
from radtransfer.errors import INTERRUPTED, ConfigError, DiskError, RadtransferError
from radtransfer.files import printable_lines, system_error
from radtransfer.images.refs import check_here
from radtransfer.process import import_by, pin_variables

COMMANDS = {
    "finetune": "radtransfer.cli.finetune:finetune",
    "study": "radtransfer.cli.study:study",
    "freeze-sweep": "radtransfer.cli.study:freeze_sweep_command",
    "transfusion-sweep": "radtransfer.cli.study:transfusion_sweep_command",
    "lr-find": "radtransfer.cli.finetune:lr_find",
    "data": "radtransfer.cli.data:data",
    "plan": "radtransfer.cli.finetune:plan",
    "backbones": "radtransfer.cli.weights:backbones",
    "weights": "radtransfer.cli.weights:weights",
    "configs": "radtransfer.cli.weights:configs",
    "completion": "radtransfer.cli.completion:completion",
    "doctor": "radtransfer.cli.doctor:doctor",
    "evaluate": "radtransfer.cli.evaluate:evaluate",
    "predict": "radtransfer.cli.evaluate:predict",
    "extract": "radtransfer.cli.evaluate:extract",
    "export": "radtransfer.cli.export:export",
    "card": "radtransfer.cli.export:card",
    "explain": "radtransfer.cli.evaluate:explain",
    "compare-cca": "radtransfer.cli.compare:compare_cca",
    "compare-predictions": "radtransfer.cli.compare:compare_predictions",
    "compare-weights": "radtransfer.cli.compare:compare_weights",
    "report": "radtransfer.cli.study:report",
}

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
        return getattr(importlib.import_module(module), attribute)

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
        except RadtransferError as error:
            raise _told(error) from error
        except (KeyboardInterrupt, click.Abort):
            raise _failure("Interrupted.", INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(0) from None
        except Exception as error:
            known = system_error(error)
            if known is not None and not ctx.params["debug"]:
                raise _told(known) from error
            raise _failure(_bug_report(error, verbose=ctx.params["debug"]), 1) from error


def _check_written(arguments: Sequence[str]) -> None:
    """Refuse addresses for what is written, before a folder of this machine is made that is called `gs:`."""
    for option, word in itertools.pairwise(["", *arguments]):
        name, equals, value = word.partition("=")
        option, value = (name, value) if equals else (option, word)
        if option in _WRITTEN:
            try:
                check_here(value)
            except ConfigError as error:
                raise ConfigError(f"{option}: {error}") from None


def _told(error: RadtransferError) -> click.ClickException:
    if isinstance(error, DiskError):
        _full_disk.append(error)
    return _failure(str(error), error.exit_code)


class _Failure(click.ClickException):
    """Keeps its exit code where nobody reads its message any more."""

    def show(self, file: Any = None) -> None:
        with contextlib.suppress(BrokenPipeError):
            super().show(file)


def _safe(error: click.ClickException) -> click.ClickException:
    """The error with a message that steers no terminal; click prints it."""
    if not isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        text = printable_lines(error.format_message())
        error.format_message = lambda: text
    return error


def _failure(message: str, exit_code: int) -> click.ClickException:
    failure = _Failure(message)
    failure.exit_code = exit_code
    return _safe(failure)


def _bug_report(error: Exception, *, verbose: bool) -> str:
    if verbose:
        return "".join(traceback.format_exception(error))
    return (
        f"Unexpected {type(error).__name__}: {error}. "
        "This is a bug in radtransfer; `radtransfer --debug …` prints where."
    )


@click.group(
    cls=Application,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
    epilog="Exit codes: 0 done, 1 bug, 2 usage or settings, 3 data, 4 weights, 5 training failed or disk full, "
    "6 some folds failed, 7 export failed its check, 130 interrupted.",
)
@click.version_option(__version__, prog_name="radtransfer")
@click.option("--debug", is_flag=True, help="Print where an unexpected error came from.")
def application(debug: bool) -> None:
    """Fine-tune pretrained networks on medical images, and measure what transfer did.

    Every command explains itself: `radtransfer COMMAND --help`. Set NO_COLOR for output without colours.

    \b
    Example: radtransfer finetune quickstart
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
    if COMPLETING in os.environ:
        importlib.import_module("radtransfer.cli.completion")
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
