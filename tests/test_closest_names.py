import pytest
import yaml
from click.testing import CliRunner

from radtransfer.cli.main import application
from radtransfer.config.load import build_config, setting_fields
from radtransfer.errors import ConfigError, closest_names


def test_near_names_are_suggested_and_few_are_listed():
    assert closest_names("bet", ["alpha", "beta"]) == "Did you mean 'beta'?"
    assert closest_names("xyz", ["alpha", "beta"]) == "Known: alpha, beta."


@pytest.mark.parametrize(
    ("count", "listed", "more"), [(25, 25, ""), (26, 20, " and 6 more"), (100, 20, " and 80 more")]
)
def test_of_many_names_the_first_are_listed(count, listed, more):
    names = [f"layer{number}" for number in range(count)]
    assert closest_names("xyz", names) == f"Known: {', '.join(names[:listed])}{more}."


SECTIONS = "Sections: data, images, splits, model, transfer, training, system. "
SECTIONS += "`radtransfer configs show quickstart --full` lists every key."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x", SECTIONS),
        ("zz.qq", SECTIONS),
        ("", SECTIONS),
        ("model.bogus", "Keys of model: backbone, weights, ignore_lambda, preprocessing, image_size, head, dropout."),
        ("transfer", "Keys of transfer: scheme, through, freeze_to, slim, batch_norm, stages."),
        ("transfr", "Did you mean 'transfer' or"),
        ("backbnoe", "Did you mean 'model.backbone' or"),
        ("modle.backbnoe", "Did you mean 'model.backbone' or"),
        ("model.backbnoe", "Did you mean 'model.backbone'?"),
        ("backbone", "Did you mean 'model.backbone'?"),
        ("model.epochs", "Did you mean 'training.epochs'?"),
        ("training.lr", "Did you mean 'training.learning_rate'?"),
        ("lr", "Did you mean 'training.learning_rate'?"),
        ("train.bs", "Did you mean 'training.batch_size'?"),
        ("model.pretrained", "Did you mean 'model.weights'?"),
        ("data.dataset", "Did you mean 'data.source'?"),
        ("optimizer.weight-decay", "Did you mean 'training.weight_decay'?"),
        ("trainer", "Did you mean 'training'?"),
        ("model", "Did you mean 'model.backbone'?"),
    ],
)
def test_an_unknown_setting_is_answered_in_a_line(name, hint):
    with pytest.raises(ConfigError) as error:
        build_config({name: 1})
    assert str(error.value).startswith(f"unknown key {name!r}. {hint}")
    assert str(error.value).count(",") <= 16


def test_the_command_that_is_named_lists_every_key():
    shown = yaml.safe_load(CliRunner().invoke(application, ["configs", "show", "quickstart", "--full"]).stdout)
    for name in setting_fields():
        section, _, key = name.rpartition(".")
        assert key in (shown[section] if section else shown)
