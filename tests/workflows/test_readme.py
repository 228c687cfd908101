"""What README shows: its Python runs, its listings are what is printed, and every command line in it is one."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import click
import keras
import numpy as np
import pytest

README = Path(__file__).parents[2] / "README.md"
if not README.is_file():
    pytest.skip("the tests are not in a checkout", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


PYTHON = blocks("python")

SMALLER = {
    'backbone="resnet50", weights="imagenet"': 'backbone="cbr_tiny", image_size=24, batch_size=8, epochs=1',
    '"resnet50", weights="RadImageNet-ResNet50_notop.h5"': '"cbr_tiny", weights="own.keras"',
    '"quick-advice"': '"study.yaml"',
    "model.onnx": "model.keras",
    'out="explanations"': 'out="explanations", occlusion=0',
    'similarity=["cca", "cka"]': 'similarity=["cca", "cka"], repeats=1',
    'out="report"': 'out="report", cca=False',
    "MobileNetV2(": "MobileNetV2(input_shape=(32, 32, 3), ",
    "image_size=224, batch_size=32": "image_size=32, batch_size=4",
}
"""What would take minutes, or files and packages that nobody may have here, and what is run in its place."""


@pytest.fixture(scope="module")
def place(tiny_images, tmp_path_factory):
    """A folder with all the files that the blocks name."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("images", "hospital_b"):
        shutil.copytree(tiny_images / "images", folder / name)
        shutil.copy(tiny_images / "images.csv", folder / f"{name}.csv")
    shutil.copytree(tiny_images / "images" / "sick", folder / "new_images")
    (folder / "study.yaml").write_text(
        "base: {model: {backbone: cbr_tiny, image_size: 24}, training: {epochs: 1}, splits: {folds: 1}}\n"
        "arms: {scratch: {}}\n"
    )
    return folder


def names_of(block):
    """What a block takes for granted that was made before it."""
    rng = np.random.default_rng(0)
    names = {
        "keras": keras,
        "x": rng.normal(size=(200, 8)),
        "y": rng.normal(size=(200, 8)),
        "kernel": rng.normal(size=(3, 3, 4, 8)),
        "pretrained_kernel": rng.normal(size=(7, 7, 3, 64)),
        "y_true": rng.integers(0, 2, 50),
        "y_score": rng.uniform(size=50),
        "patients": np.arange(50) // 2,
    }
    if "Backbone(" in block:
        from radtransfer.models import backbone, resnet

        names |= vars(backbone) | vars(resnet)
    return names


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_runs(place, monkeypatch, number):
    block = PYTHON[number]
    for shown, smaller in SMALLER.items():
        block = block.replace(shown, smaller)
    monkeypatch.chdir(place)
    if "own.keras" in block:
        from radtransfer.models.architecture import build_architecture

        build_architecture("cbr_tiny", image_size=32).save("own.keras")
    if "mobilenet.h5" in block:
        keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), include_top=False, weights=None, pooling="avg"
        ).save_weights("mobilenet.weights.h5")
        Path("mobilenet.weights.h5").rename("mobilenet.h5")
    names = names_of(block)
    exec(compile(block, f"README block {number}", "exec"), names)  # noqa: S102
    if "Backbone(" in block:
        from radtransfer.models.backbone import BACKBONES

        shown, ours = names["RESNET50"], BACKBONES["resnet50"]
        assert (shown.stages, shown.parameters, shown.preprocessing) == (
            ours.stages,
            ours.parameters,
            ours.preprocessing,
        )


def test_what_is_run_smaller_is_still_shown():
    assert [shown for shown in SMALLER if not any(shown in block for block in PYTHON)] == []


LISTINGS = [block for block in blocks("") if re.match(r"\$ radtransfer (backbones|plan)\b", block)]
"""The others are of data and weights that are not here, or of hours of training."""


@pytest.mark.parametrize("block", LISTINGS, ids=[block.splitlines()[0] for block in LISTINGS])
def test_a_listing_is_what_is_printed(radtransfer, block, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    line, *shown = block.splitlines()
    outcome = radtransfer(*shlex.split(line)[2:])
    assert outcome.code == 0, outcome.err
    assert [text.rstrip() for text in outcome.out.splitlines()[: len(shown)]] == shown


def command_lines():
    """Every command line of the blocks and between backticks, but those that leave something open (…, [, |)."""
    shown = "\n".join(block.replace("\\\n", " ") for language in ("", "sh") for block in blocks(language))
    found = re.findall(r"^(?:\$ |.*bin/)?(radtransfer \S.*?)(?:  +#.*)?$", shown, re.MULTILINE)
    found += re.findall(r"`(radtransfer [^`\n]+)`", TEXT)
    return [line for line in found if not any(sign in line for sign in ("…", "[", "|", "<", "NAME:"))]


def test_every_command_line_is_one():
    """Each names a command and options that there are."""
    from radtransfer.cli.main import application

    wrong, found = [], command_lines()
    for line in found:
        words = [word for word in shlex.split(line)[1:] if not word.startswith("$")]
        command = application
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            command = command.get_command(click.Context(command), words.pop(0))
        if command is None:
            wrong.append(line)
            continue
        known = {name for item in command.params for name in (*item.opts, *item.secondary_opts)} | {"--help", "-h"}
        wrong += [f"{line}: {word}" for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert len(LISTINGS) > 1 and len(found) > 30
    assert wrong == []


def test_the_first_command_trains(radtransfer, tmp_path, monkeypatch):
    """As `radtransfer finetune quickstart`, on fewer and smaller images."""
    assert "radtransfer finetune quickstart" in TEXT
    monkeypatch.chdir(tmp_path)
    smaller = ("--data", "synthetic_fundus:images=60,size=32", "--epochs", 1, "--image-size", 32)
    outcome = radtransfer("finetune", "quickstart", *smaller)
    assert outcome.code == 0, outcome.err
    with (tmp_path / "runs" / "quickstart" / "predictions.csv").open(newline="") as handle:
        assert len(list(csv.DictReader(handle))) > 0
