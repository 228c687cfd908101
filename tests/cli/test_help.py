"""Every page of help."""

import re
import shlex

import click
import pytest

from radtransfer.cli.main import application


def pages(command=application, names=("radtransfer",), parent=None):
    context = click.Context(command, info_name=names[-1], parent=parent)
    yield names, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from pages(command.get_command(context, name), (*names, name), context)


PAGES = list(pages())


@pytest.mark.parametrize(("names", "command", "context"), PAGES, ids=[" ".join(names) for names, *_ in PAGES])
def test_every_page_has_an_example_of_itself(names, command, context):
    text = command.get_help(context)
    assert len(re.findall("Example:", text)) == 1
    lines = text.partition("Example:")[2].partition("\n\n")[0]
    assert " ".join(names) in lines


@pytest.mark.parametrize(("names", "command", "context"), PAGES, ids=[" ".join(names) for names, *_ in PAGES])
def test_examples_use_options_that_exist(names, command, context):
    known = {option for _, other, _ in PAGES for item in other.params for option in (*item.opts, *item.secondary_opts)}
    lines = command.get_help(context).partition("Example:")[2].partition("\n\n")[0]
    used = {word.partition("=")[0] for word in shlex.split(lines) if word.startswith("--")}
    assert used <= known


@pytest.mark.parametrize(("names", "command", "context"), PAGES, ids=[" ".join(names) for names, *_ in PAGES])
def test_every_option_says_what_it_does(names, command, context):
    assert [item.name for item in command.params if isinstance(item, click.Option) and not item.help] == []


GROUPS = [(names, command) for names, command, _ in PAGES if isinstance(command, click.Group)]


@pytest.mark.parametrize(("names", "command"), GROUPS, ids=[" ".join(names) for names, _ in GROUPS])
def test_every_command_has_a_line_of_80_columns_that_is_not_cut(names, command):
    # A terminal of 80 columns leaves 78.
    text = command.get_help(click.Context(command, info_name=" ".join(names), terminal_width=78))
    lines = text.partition("Options:\n")[2].partition("\n\n")[2]
    assert re.findall(r"^  (\S+)  +\S", lines, re.MULTILINE) == command.list_commands(click.Context(command))
    assert [line for line in text.splitlines()[1:] if line.endswith("...")] == []  # the first is the usage
