import json
import shutil

import pytest
from click.testing import CliRunner
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from run_files import write_run

from radtransfer.cli.main import application

FILES = (
    "run.json",
    "config.yaml",
    "metrics.json",
    "folds.csv",
    "fold_1/metrics.json",
    "fold_1/predictions.csv",
    "fold_2/curve.csv",
)
COMMANDS = (
    ("compare-predictions", "{run}", "{other}", "--json"),
    ("report", "{run}", "{other}", "--no-cca", "--out", "{out}"),
    ("weights", "inspect", "{run}/fold_1"),
    ("export", "{run}", "--fold", "1", "--format", "keras", "--out", "{out}"),
    ("compare-weights", "{run}", "{other}"),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("one", "other")):
        write_run(folder / name, folds=2, patients=8, seed=number)
    return folder


def edited_value(document, data):
    """The document with one of its values, at any depth, replaced or taken away."""
    if isinstance(document, dict) and document and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(document)))
        if data.draw(st.booleans()):
            return {name: item for name, item in document.items() if name != key}
        return document | {key: edited_value(document[key], data)}
    if isinstance(document, list) and document and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(document) - 1))
        return [edited_value(item, data) if i == place else item for i, item in enumerate(document)]
    return data.draw(values)


def edit(path, data):
    """What a hand, or a broken disk, may make of a file."""
    how = data.draw(st.sampled_from(["value", "cut", "letters", "empty", "gone", "lines"]))
    text = path.read_text(encoding="utf-8")
    if how == "gone":
        path.unlink()
    elif how == "value" and path.suffix == ".json":
        path.write_text(json.dumps(edited_value(json.loads(text), data)), encoding="utf-8")
    elif how == "cut":
        path.write_text(text[: data.draw(st.integers(0, len(text)))], encoding="utf-8")
    elif how == "lines":
        lines = text.splitlines()
        del lines[data.draw(st.integers(0, len(lines) - 1))]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif how == "letters":
        letters = list(text)
        for _ in range(data.draw(st.integers(1, 5))):
            letters[data.draw(st.integers(0, len(letters) - 1))] = data.draw(st.sampled_from(',"{}[]:-0\nxé\x00'))
        path.write_text("".join(letters), encoding="utf-8")
    else:
        path.write_text("", encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@given(st.data())
@fuzzed(12)
def test_a_run_edited_by_hand_is_read_or_refused(runs, tmp_path_factory, command, data):
    work = tmp_path_factory.mktemp("edited")
    shutil.copytree(runs / "one", work / "run")
    edit(work / "run" / data.draw(st.sampled_from(FILES)), data)
    places = {"run": work / "run", "other": runs / "other", "out": work / "out"}
    outcome = CliRunner().invoke(application, [part.format(**places) for part in command])
    assert outcome.exit_code in (0, 2, 3, 4), outcome.output
    assert "Traceback" not in outcome.output
    if outcome.exit_code:
        assert "run" in outcome.stderr
    shutil.rmtree(work)
