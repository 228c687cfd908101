import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from radtransfer.cli.weights import backbones
from radtransfer.errors import UnknownNameError
from radtransfer.models.backbone import BACKBONES


def run(*arguments: str) -> str:
    result = CliRunner().invoke(backbones, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_list_has_one_line_per_backbone_with_its_numbers():
    lines, others = run().split("\n\n")
    assert "keras:NAME       40 classifiers" in others
    lines = lines.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *BACKBONES]
    assert lines[1].split()[:4] == ["resnet50", "23,587,712", "5", "caffe"]


def test_the_list_as_json_holds_every_card():
    entries = json.loads(run("--json"))
    assert [entry["name"] for entry in entries] == list(BACKBONES)
    assert {entry["name"] for entry in entries if not entry["slim"]} == {
        "inception_v3",
        "inception_v3_torch",
        "resnet50_v1_5",
        "inception_resnet_v2",
        "efficientnet_v2_b0",
        "convnext_tiny",
        *(name for name in BACKBONES if name.startswith("vit_")),
    }
    assert entries[0]["stages"] == ["stem", "stage1", "stage2", "stage3", "stage4"]


def test_one_backbone_shows_its_stages():
    text = run("cbr_tiny")
    assert "1,079,520 without a head" in text
    assert "slim           each stage at any fraction of its width" in text
    assert "1,076,480 as the paper counts them" in text
    last = text.splitlines()[-1].split()
    assert last == ["stage3", "4", "pool4", "14×14×256", "820,224"]


def test_one_backbone_as_json_lists_the_layers_of_each_stage():
    network = json.loads(run("cbr_tiny", "--json"))
    assert network["image_size"] == 224
    assert network["stages"][0] == {
        "name": "stem",
        "layers": ["conv1", "bn1", "relu1", "pool1"],
        "end": "pool1",
        "output_shape": [112, 112, 32],
        "parameters": 2528,
    }


def test_a_backbone_that_cannot_be_slim_says_so():
    assert "slim           full width only" in run("efficientnet_v2_b0")


def test_an_unknown_backbone_is_an_error_with_the_closest_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'densenet121'"):
        run("densenet")


def test_listing_imports_neither_tensorflow_nor_numpy():
    script = (
        "import sys; from radtransfer.cli.weights import backbones; "
        "backbones([], standalone_mode=False); "
        "sys.exit(str({'tensorflow', 'keras', 'numpy'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr.strip() == "next      radtransfer backbones resnet50"
    assert "resnet50" in result.stdout
