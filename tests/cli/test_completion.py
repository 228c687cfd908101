"""What shells complete, asked as they ask."""

import os
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from radtransfer.cli.main import COMPLETING, SHELLS, application
from radtransfer.cli.train import finetune
from radtransfer.config.load import setting_fields, shipped_configs
from radtransfer.config.recipes import RECIPES
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.models.backbone import BACKBONES
from radtransfer.transfer.spec import SCHEMES


def complete(*words, shell="bash"):
    """(type, value) of each completion of the last of `words`."""
    *before, last = words
    protocol = SHELLS[shell](application, {}, "radtransfer", COMPLETING)
    return [(item.type, item.value) for item in protocol.get_completions(list(before), last)]


def names(*words):
    found = complete(*words)
    assert {kind for kind, _ in found} == {"plain"}
    return [value for _, value in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("finetune", "--backbone", ""), list(BACKBONES)),
        (("backbones", ""), list(BACKBONES)),
        (("plan", ""), list(BACKBONES)),
        (("compare-cca", "a", "b", "--backbone", "densenet"), ["densenet121"]),
        (("finetune", "--scheme", ""), ["auto", *SCHEMES]),
        (("finetune", "--recipe", ""), list(RECIPES)),
        (("finetune", "--augmentation", ""), list(AUGMENTATIONS)),
        (("finetune", "--track", ""), ["tensorboard", "mlflow", "wandb"]),
        (("finetune", "--track", "tensorboard,w"), ["tensorboard,wandb"]),
        (("finetune", "--monitor", ""), ["auc", "accuracy", "loss"]),
        (("finetune", "--backbone", "cbr_tiny", "--freeze-to", ""), ["none", "all", *BACKBONES["cbr_tiny"].stages]),
        (("configs", "show", ""), list(shipped_configs())),
        (("study", "quick"), ["quick-advice"]),
        (("finetune", "quick"), ["quickstart"]),
        (("finetune", "--set", ""), [f"{name}=" for name in setting_fields()]),
        (("comp",), ["compare-cca", "compare-predictions", "compare-weights", "completion"]),
        (("configs", "v"), ["validate"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_names_are_completed(words, expected):
    assert names(*words) == expected


def test_weights_are_names_or_files():
    assert ("plain", "imagenet") in complete("finetune", "--weights", "image")
    assert complete("finetune", "--weights", "models/") == [("file", "models/")]


@pytest.mark.parametrize("words", [("export", "runs/"), ("finetune", "--data", ""), ("finetune", "./mine")])
def test_paths_are_left_to_the_shell(words):
    assert complete(*words) == [("file", words[-1])]


def test_options_are_completed_and_never_as_files():
    every = {name for item in finetune.params if isinstance(item, click.Option) for name in item.opts if "--" in name}
    assert set(names("finetune", "--")) >= every | {"--help", "--help-all", "--no-jit"}
    assert names("finetune", "--freeze") == ["--freeze-to"]
    assert complete("finetune", "--no-such") == []


@pytest.mark.parametrize("shell", list(SHELLS))
def test_the_script_of_each_shell_asks_radtransfer(shell):
    outcome = CliRunner().invoke(application, ["completion", shell], prog_name="radtransfer")
    assert outcome.exit_code == 0
    assert f"{COMPLETING}={shell}_complete" in outcome.stdout


def test_another_shell_is_refused():
    outcome = CliRunner().invoke(application, ["completion", "tcsh"])
    assert outcome.exit_code == 2 and "'bash', 'zsh', 'fish'" in outcome.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_completes(tmp_path):
    program = tmp_path / "radtransfer"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from radtransfer.cli.main import main; main()" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(radtransfer completion bash)"\n'
        "COMP_WORDS=(radtransfer finetune --backbone dense) COMP_CWORD=3\n"
        '_radtransfer_completion radtransfer\necho "${COMPREPLY[@]}"\ncomplete -p radtransfer'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    outcome = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True)
    first, second = outcome.stdout.splitlines()
    assert first == "densenet121"
    assert "_radtransfer_completion" in second
