"""Commands give the same numbers whatever the user's keras.json and variables say."""

import json
import os
import subprocess
import sys

import pytest

COMMANDS = """
import json, sys
from radtransfer.cli.main import main

for command in json.loads(sys.argv[1]):
    print("$", *command[:2], flush=True)
    sys.argv = ["radtransfer", *command]
    try:
        main()
    except SystemExit as leaving:
        print("exit", leaving.code, flush=True)
"""


def outcomes(folder, commands, variables):
    """What the commands print on stdout, in one fresh process, with `folder` as working folder."""
    folder.mkdir()
    arguments = [sys.executable, "-c", COMMANDS, json.dumps([[str(word) for word in line] for line in commands])]
    done = subprocess.run(arguments, cwd=folder, env=os.environ | variables, capture_output=True, text=True)
    assert done.stdout.count("exit 0") == len(commands), done.stdout + done.stderr
    return done.stdout, (folder / "run" / "fold_1" / "history.csv").read_bytes()


@pytest.fixture(scope="module")
def commands(table_options, tiny_images):
    images = tiny_images / "images" / "sick"
    finetune = ("--folds", 1, "--epochs", 1, "--augmentation", "random_contrast", "--out", "run", "--json")
    return [
        ("plan", "cbr_tiny"),
        ("finetune", *table_options, *finetune),
        ("predict", "run", images),
        ("evaluate", "run", "--json"),
        ("weights", "inspect", "run/fold_1/initial.weights.h5"),
        ("extract", "run", images, "--layer", "stage1", "--out", "features.npz"),
        ("compare-cca", "run@initial", "run", "--similarity", "cka", "--dims", 6, "--repeats", 1, "--json"),
        ("export", "run", "--fold", 1, "--format", "keras", "--out", "model.keras"),
        ("predict", "model.keras", images),
    ]


@pytest.fixture(scope="module")
def expected(commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    return outcomes(folder / "commands", commands, {"KERAS_HOME": str(folder / "keras")})


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (
            '{"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1}',
            {"KERAS_MAX_EPOCHS": "0", "KERAS_MAX_STEPS_PER_EPOCH": "1", "TF_USE_LEGACY_KERAS": "1"},
        ),
        (None, {"KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "few", "KERAS_NNX_ENABLED": "1"}),
    ],
    ids=["valid", "a-folder"],
)
def test_commands_give_the_same_numbers(text, variables, commands, expected, tmp_path):
    file = tmp_path / "keras" / "keras.json"
    file.parent.mkdir()
    file.mkdir() if text is None else file.write_text(text)
    found = outcomes(tmp_path / "commands", commands, variables | {"KERAS_HOME": str(file.parent)})
    assert found == expected
    assert [path.name for path in file.parent.iterdir()] == ["keras.json"]
