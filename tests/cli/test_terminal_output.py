"""What a terminal of 80 columns gets: help in groups, lines that fit, results alone with --quiet, what is next."""

import json
import re
import shlex

import click
import pytest
from click.testing import CliRunner

from radtransfer.cli.main import application
from radtransfer.cli.options import Command, quiet_option, verbose_option
from radtransfer.cli.terminal import TerminalProgress, show_next

MANY = 20
"""Options of a command, of which its help shows only the first."""


def pages(command=application, names=(), parent=None):
    context = click.Context(command, info_name=(*names, "radtransfer")[-1], parent=parent)
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        yield from pages(command.get_command(context, name), (*names, name), context)
    yield names, command


PAGES = list(pages())
COMMANDS = [(names, command) for names, command in PAGES if not isinstance(command, click.Group)]
LONG = [(names, command) for names, command in COMMANDS if isinstance(command, Command)]


def name_of(value):
    return " ".join(value) if isinstance(value, tuple) else ""


def help_of(names, option="--help"):
    outcome = CliRunner(env={"COLUMNS": "80"}).invoke(application, [*names, option], prog_name="radtransfer")
    assert outcome.exit_code == 0
    return outcome.output


def options_in(text):
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text.partition("Example:")[2], re.MULTILINE))


def check_next(text):
    """How many commands `text` ends with; each exists and takes its options."""
    lines = text.partition("next      ")[2].splitlines()
    for line in lines:
        program, *words = shlex.split(line)
        command, context = application, click.Context(application)
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert program == "radtransfer" and command.make_context("command", words)
    return len(lines)


@pytest.mark.parametrize("names", [names for names, _ in PAGES], ids=name_of)
def test_no_line_of_help_exceeds_80_columns(names):
    assert [line for line in help_of(names).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(("names", "command"), COMMANDS, ids=name_of)
def test_a_command_with_many_options_shows_few(names, command):
    options = [item for item in command.params if isinstance(item, click.Option) and not item.hidden]
    assert len(options) <= MANY or isinstance(command, Command)


@pytest.mark.parametrize(("names", "command"), LONG, ids=name_of)
def test_the_first_options_exist(names, command):
    assert set(command.first) <= {item.name for item in command.params}


@pytest.mark.parametrize(("names", "command"), COMMANDS, ids=name_of)
def test_every_command_prints_json_and_can_be_quiet(names, command):
    options = {name for item in command.params for name in item.opts}
    if names == ("predict",):  # prints rows: --format jsonl
        options.add("--json")
    assert names == ("completion",) or {"--json", "--quiet"} <= options


QUICK = [
    ["backbones"],
    ["plan"],
    ["weights", "list"],
    ["weights", "where"],
    ["configs", "list"],
    ["configs", "show", "quickstart"],
    ["configs", "show", "quick-advice"],
    ["configs", "show", "quickstart", "--full"],
    ["configs", "validate", "quickstart"],
    ["configs", "validate", "quick-advice", "--set", "grid.seed=[0,1]"],
]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_what_a_listing_prints(words):
    runner = CliRunner()
    outcome = runner.invoke(application, words)
    assert outcome.exit_code == 0 and outcome.stdout
    assert check_next(outcome.stderr) == 1
    for option in ("--quiet", "--json"):
        other = runner.invoke(application, [*words, option])
        assert (other.exit_code, other.stderr) == (0, "")
    assert json.loads(other.stdout)


def test_what_to_type_next_is_quoted(capsys):
    with click.Context(click.Command("any")):
        show_next(["evaluate", "a run; rm", "--data", "IMAGES"], ["report", "a run; rm", "--out", "report"])
    shown = capsys.readouterr().err
    assert shown.splitlines()[0] == "next      radtransfer evaluate 'a run; rm' --data IMAGES"
    assert check_next(shown) == 2


@pytest.mark.parametrize(("names", "command"), LONG, ids=name_of)
def test_the_first_options_are_in_the_help_and_every_one_below_help_all(names, command):
    first, every = help_of(names), help_of(names, "--help-all")
    assert [line for line in every.splitlines() if len(line) > 80] == []
    options = {item.opts[-1] for item in command.params if isinstance(item, click.Option) and not item.hidden}
    assert options_in(every) == options | {"--help"}
    assert options_in(first) < options_in(every) and len(options_in(first)) <= MANY
    left_out = len(options_in(every)) - len(options_in(first))
    assert first.splitlines()[-1] == f"`radtransfer {' '.join(names)} --help-all` shows {left_out} more options."


def test_the_options_of_finetune_are_in_groups():
    groups = ["Data", "Network and weights", "Transfer plan", "Training", "Run"]
    for option in ("--help", "--help-all"):
        assert re.findall(r"^([A-Z][a-z ]+):$", help_of(["finetune"], option), re.MULTILINE) == groups
    dozen = ("--data", "--folds", "--backbone", "--weights", "--scheme", "--epochs", "--learning-rate", "--out")
    assert options_in(help_of(["finetune"])) >= set(dozen)


@pytest.mark.parametrize("loss", [0.01234, 2.4323, 12345.6, 1.5e12, float("nan")])
@pytest.mark.parametrize("seconds", [1.2, 3456.7])
def test_an_epoch_fits_80_columns(capsys, loss, seconds):
    row = {"epoch": 100, "loss": loss, "val_loss": loss, "val_auc": 0.98765, "seconds": seconds, "best": True}
    TerminalProgress().epoch(10, 10, 100, row)
    TerminalProgress().epoch(10, 10, 100, {**row, "val_auc": None, "best": False})
    first, second = capsys.readouterr().err.splitlines()
    assert len(first) <= 80 and len(second) <= 80
    assert "fold 10/10  epoch 100/100" in first and "AUC 0.988 *" in first and "n/a" in second


@pytest.mark.parametrize(("options", "shown"), [([], "short"), (["-v"], "whole"), (["-q"], "")])
def test_the_plan_is_short_or_whole_or_not_shown(options, shown):
    @click.command
    @quiet_option
    @verbose_option
    def command():
        progress = TerminalProgress()
        progress.plan({"plan": "whole"}, {"plan": "short"})
        progress.note("a note")
        progress.fold(1, 1, {"n_images": 1, "best_epoch": 1, "auc": 0.5})
        progress.warning("a leak")

    lines = CliRunner().invoke(command, options).stderr.splitlines()
    assert lines[-1] == "warning   a leak"
    assert lines[:-1] == ([f"plan      {shown}", "note      a note", lines[-2]] if shown else [])


def test_a_missing_argument_is_named_with_an_example():
    shown = CliRunner().invoke(application, ["extract", "runs/first"]).stderr
    assert "Missing argument 'IMAGES...'" in shown
    assert shown.endswith("Example: radtransfer extract runs/first/fold_1 images/ --layer stage3 --out features.npz\n")
