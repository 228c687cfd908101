import json

import pytest
import yaml
from click.testing import CliRunner

from radtransfer.cli.main import application
from radtransfer.config.load import load_config, shipped_configs


def run(*arguments):
    return CliRunner().invoke(application, ["configs", *map(str, arguments)])


def test_the_list_names_every_shipped_config_and_says_which_are_studies():
    rows = json.loads(run("list", "--json").stdout)
    kinds = {row["name"]: row["kind"] for row in rows}
    assert set(kinds) == set(shipped_configs())
    assert (kinds["quickstart"], kinds["quick-advice"]) == ("run", "study")
    assert all(row["purpose"] for row in rows)
    assert [line.split()[:2] for line in run("list").stdout.splitlines()] == [[r["name"], r["kind"]] for r in rows]


def test_show_prints_the_file_or_every_setting(tmp_path):
    assert run("show", "quickstart").stdout == shipped_configs()["quickstart"].read_text(encoding="utf-8")
    full = tmp_path / "full.yaml"
    full.write_text(run("show", "quickstart", "--full").stdout, encoding="utf-8")
    assert yaml.safe_load(full.read_text())["training"]["momentum"] == 0.9
    assert load_config(str(full)) == load_config("quickstart")


@pytest.mark.parametrize("name", list(shipped_configs()))
def test_every_shipped_config_is_valid(name):
    outcome = run("validate", name)
    assert outcome.exit_code == 0, outcome.stderr


RUN = """\
model:
  backbone: resnet5
  image_size: 12
training:
  epochz: 3
  learning_rate: fast
  augmentation: lite
transfer.scheme: transfr
track: [mlflo, wandb]
images: {window: wide}
"""
STUDY = """\
base:
  model.backbone: resnet5
  training.epochz: 3
arms:
  a: {transfer.scheme: transfr}
grid:
  training.augmentation: [none, lite]
  seed: [0, -1]
study: {reference: b}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            RUN,
            (
                "model.backbone (mine.yaml line 2): Unknown backbone 'resnet5'. Did you mean 'resnet50'",
                "model.image_size (mine.yaml line 3): expected a value from 16 to 4096. Received: 12",
                "unknown key 'training.epochz' (mine.yaml line 5). Did you mean 'training.epochs'",
                "training.learning_rate (mine.yaml line 6): expected a number. Received: 'fast'",
                "training.augmentation (mine.yaml line 7): Unknown augmentation 'lite'. Did you mean 'light'?",
                "transfer.scheme (mine.yaml line 8): Unknown scheme 'transfr'. Did you mean 'transfer'",
                "track (mine.yaml line 9): Unknown tracker 'mlflo'. Did you mean 'mlflow'?",
                "images.window (mine.yaml line 10): ",
            ),
        ),
        (
            STUDY,
            (
                "Unknown backbone 'resnet5'. Did you mean 'resnet50'",
                "unknown key 'training.epochz' (mine.yaml line 3)",
                "Unknown scheme 'transfr'. Did you mean 'transfer'",
                "Unknown augmentation 'lite'. Did you mean 'light'?",
                "expected a value from 0",
                "no arm 'b'",
            ),
        ),
    ],
    ids=["run", "study"],
)
def test_every_mistake_is_listed_at_once(tmp_path, text, expected):
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    outcome = run("validate", file)
    assert outcome.exit_code == 2
    assert f"{len(expected)} mistakes" in outcome.stderr, outcome.stderr
    assert [part for part in expected if part not in outcome.stderr] == []


def test_settings_that_do_not_go_together_are_a_mistake(tmp_path):
    outcome = run("validate", "quickstart", "--set", "transfer.through=stem")
    assert outcome.exit_code == 2 and "--through stem needs a scheme" in outcome.stderr
