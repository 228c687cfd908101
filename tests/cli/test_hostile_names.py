"""Whatever names hold, they are shown on the terminal and never obeyed by it."""

import ast
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from PIL import Image
from run_files import write_run

import radtransfer
import radtransfer.cli
from radtransfer.cli.main import application
from radtransfer.cli.study import StudyBoard
from radtransfer.cli.terminal import TerminalProgress, draw, line, painted, show, show_json
from radtransfer.files import printable, printable_lines

HOSTILE = "\x1b[31;5mred\x9b2J\u202eevil\u200b\x7f\r\nspoof"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u034f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
OURS = re.compile(r"\x1b\[(?:0|1|[34]\d|9\d)m")
"""Colours; the hostile one blinks too."""


def on_a_terminal(*words, **environment):
    """The exit code of a command, and all that reaches its terminal but our colours and line ends."""
    ours, its = pty.openpty()
    run = [sys.executable, "-c", "from radtransfer.cli.main import main; main()", *map(str, words)]
    process = subprocess.Popen(run, stdin=its, stdout=its, stderr=its, env=os.environ | environment)
    os.close(its)
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
        shown = b""
        try:
            while piece := terminal.read(65536):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    return process.wait(), OURS.sub("", shown.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))


def check(shown):
    """Nothing in `shown` steers a terminal or begins a line that is not ours; a bar begins with a carriage return."""
    lines = re.split("[\n\r]", shown)
    assert not [text for text in lines if OBEYED.search(text) or text.startswith("spoof")]
    assert r"\x1b[31;5mred\x9b2J\u202eevil\u200b\x7f" in re.sub(r"\\(?=[\\\[])", "", shown)  # as Markdown escapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, all names hostile."""
    root = tmp_path_factory.mktemp("hostile") / f"data{HOSTILE}"
    for i in range(12):
        file = root / f"{'ab'[i % 2]}{HOSTILE}" / f"{i}{HOSTILE}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * i).save(file)
    return root


@pytest.fixture
def run(tmp_path):
    """A run with a hostile class, name and weights."""
    folder = write_run(tmp_path / f"run{HOSTILE}", folds=2, weights=f"weights{HOSTILE}")
    for file in [*folder.rglob("*.json"), *folder.rglob("*.csv")]:
        text = file.read_text(encoding="utf-8")
        name = json.dumps(HOSTILE)[1:-1] if file.suffix == ".json" else f'"{HOSTILE}"'
        text = text.replace("p_sick", f'"p_{HOSTILE}"' if file.suffix == ".csv" else f"p_{name}")
        file.write_text(text.replace("sick", name), encoding="utf-8", newline="")
    for fold in (1, 2):
        (folder / f"fold_{fold}" / "model.keras").write_bytes(b"weights")
    record = json.loads((folder / "run.json").read_text())
    record |= {"image_size": 64, "head": "softmax", "preprocessing": "caffe", "data": {"source": HOSTILE}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_check_of_data_obeys_no_name(folder):
    code, shown = on_a_terminal("data", "check", folder)
    assert code in (0, 3)
    check(shown)


def test_a_split_and_its_next_line_obey_no_name(folder, tmp_path):
    code, shown = on_a_terminal("data", "split", folder, "--folds", 2, "--out", tmp_path / f"folds{HOSTILE}.csv")
    assert code == 0
    check(shown)


def test_a_model_card_obeys_no_name_also_where_it_is_redirected(run):
    code, shown = on_a_terminal("card", run, "--fold", 1)
    assert code == 0, shown
    check(shown)
    check(CliRunner().invoke(application, ["card", str(run), "--fold", "1"]).stdout)


def test_what_is_shown_as_it_is_in_a_pipe_is_escaped_on_a_terminal(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"seed: 1  # {HOSTILE[:-7]}\n", newline="")
    check(on_a_terminal("configs", "show", file)[1])
    assert CliRunner().invoke(application, ["configs", "show", str(file)]).stdout_bytes == file.read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        *[(HOSTILE,), ("finetune", f"--{HOSTILE}"), ("finetune", "quickstart", "--set", HOSTILE)],
        *[("finetune", f"{HOSTILE}.yaml"), ("finetune", "--data", HOSTILE), ("finetune", "a", HOSTILE)],
        *[("study", HOSTILE), ("export", "x", "--format", HOSTILE, "--out", "x"), ("plan", HOSTILE)],
        *[("card", HOSTILE), ("report", HOSTILE, "--out", "x"), ("weights", "inspect", HOSTILE)],
        *[("weights", "verify", HOSTILE), ("data", "split", f"busi:{HOSTILE}"), ("evaluate", HOSTILE)],
        *[("data", "split", HOSTILE, "--folds", HOSTILE), ("configs", "validate", HOSTILE), (f"--{HOSTILE}",)],
        *[("weights", HOSTILE), ("data", "split", "x", "--out", HOSTILE), ("completion", HOSTILE)],
    ],
)
def test_a_refusal_obeys_no_word_of_the_command_line(words):
    outcome = CliRunner().invoke(application, words)
    assert outcome.exit_code in (2, 3, 4)
    check(outcome.stderr if "\\x1b" in outcome.stderr else outcome.stderr + printable(HOSTILE))


def test_a_refusal_on_a_terminal_obeys_no_word_of_the_command_line():
    code, shown = on_a_terminal("finetune", "--data", "x", f"--{HOSTILE}")
    assert code == 2
    check(shown)


def test_an_unexpected_error_obeys_no_name(monkeypatch):
    def fail():
        raise ZeroDivisionError(HOSTILE)

    monkeypatch.setattr("radtransfer.config.load.shipped_configs", fail)
    monkeypatch.setattr("radtransfer.cli.weights.shipped_configs", fail)
    for words in (["configs", "list"], ["--debug", "configs", "list"]):
        check(CliRunner().invoke(application, words).stderr)


def test_a_progress_bar_and_its_colours_still_reach_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    progress = TerminalProgress()
    progress.count(f"images of {HOSTILE}", 4, 4)
    progress.note(HOSTILE)
    progress.plan({"data": f"{HOSTILE}"})
    shown = capsys.readouterr().err
    assert shown.startswith("\rimages of \\x1b[31;5mred") and "4/4" in shown and len(shown.split("\r")[1]) == 119
    check(OURS.sub("", shown))


def test_the_board_of_a_study_obeys_no_name(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    board = StudyBoard()
    cell = SimpleNamespace(cell=SimpleNamespace(name=HOSTILE))
    running = {0: SimpleNamespace(run=cell, row={"doing": HOSTILE, "machine": HOSTILE})}
    plan = SimpleNamespace(study=SimpleNamespace(name=HOSTILE), runs={})
    board.study_changed(SimpleNamespace(plan=plan, done={}, failed={}, running=running, seconds_left=lambda: None))
    board.note(HOSTILE)
    shown = capsys.readouterr().err
    assert shown.count("\x1b[2A\x1b[J") == 1 and shown.count("\n") == 4
    check(OURS.sub("", shown.replace("\x1b[2A\x1b[J", "")))


def test_our_own_colours_and_controls_are_sent_and_those_of_others_are_not(capsys):
    draw("\x1b[2A\x1b[J")
    show(line(painted("error", fg="red"), HOSTILE), "two\nlines", err=True)
    shown = capsys.readouterr().err
    assert shown.startswith("\x1b[2A\x1b[J")
    assert shown.count("\n") == 2 and "two\\nlines" in shown


def test_json_stays_json_and_reads_back_equal(capsys):
    show_json({HOSTILE: ["\udcff", "ß"]})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {HOSTILE: ["\udcff", "ß"]}
    assert not OBEYED.search(shown.replace("\n", ""))


LIBRARY = f"""
import logging, warnings
from radtransfer.cli.study import StudyBoard
from radtransfer.cli.terminal import show_libraries_safely
show_libraries_safely()
warnings.warn({HOSTILE!r})
logging.getLogger("library").warning("in %s", {HOSTILE!r})
"""


def test_warnings_and_logs_of_libraries_obey_no_name():
    shown = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, check=True).stderr.decode()
    assert "UserWarning: \\x1b" in shown and "in \\x1b" in shown
    check(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 3 × 4 – 日本", "Größe 3 × 4 – 日本"),
        ("a\x07\x1b]0;x\x07", r"a\x07\x1b]0;x\x07"),
        ("\u2066\u200d\ufeff\u2028\x85", r"\u2066\u200d\ufeff\u2028\x85"),
        ("\udcff\u3164\ufe0f\U000e0041", r"\udcff\u3164\ufe0f\U000e0041"),
    ],
)
def test_what_shows_nothing_or_steers_is_written_as_an_escape(text, shown):
    assert printable(text) == shown == printable_lines(text)


def printed_past_show(file):
    """The lines of a module that print in another way than through `cli/terminal.py`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if re.fullmatch(
            r"print|input|(sys\.)?(stdout|stderr)\.write|click\.(style|\w*echo\w*|secho|prompt|confirm|progressbar)",
            called,
        ):
            yield node.lineno


def test_no_module_prints_past_the_one_that_makes_text_safe():
    cli = Path(radtransfer.cli.__file__).parent
    files = [*cli.glob("*.py"), *Path(radtransfer.__file__).parent.rglob("*.py")]
    assert len(files) > 100
    assert {file.name: lines for file in files if (lines := list(printed_past_show(file)))}.keys() == {"terminal.py"}
