import dataclasses

import pytest

from radtransfer.config.load import config_text, load_config, setting_fields, shipped_configs
from radtransfer.config.recipes import RECIPES
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError
from radtransfer.studies.file import is_study


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_later_sources_win(config_file):
    path = config_file("recipe: juodelyte\ntraining: {epochs: 7, batch_size: 16}\n")
    config = load_config(path, sets=("training.batch_size=8",), options={"training.learning_rate": 0.5})
    assert config.training.patience == 30  # the recipe
    assert config.training.epochs == 7  # the file
    assert config.training.batch_size == 8  # --set
    assert config.training.learning_rate == 0.5  # an option


def test_an_unknown_key_is_an_error_with_its_line_and_the_closest_name(config_file):
    path = config_file("training:\n  learning_rat: 1e-3\n")
    with pytest.raises(ConfigError, match=r"my\.yaml line 2.*Did you mean 'training\.learning_rate'"):
        load_config(path)


def test_a_key_in_the_wrong_section_is_found():
    with pytest.raises(ConfigError, match=r"Did you mean 'training\.epochs'"):
        load_config(sets=("epochs=3",))


def test_all_mistakes_are_reported_together():
    sets = ("training.epochs=many", "model.dropout=2", "data.task=x", "nothing", "recipe=foo", "seed=-1")
    with pytest.raises(ConfigError, match="6 mistakes") as caught:
        load_config(sets=sets)
    for part in (
        "a whole number",
        "from 0 to 0.95",
        "expected one of auto",
        "KEY=VALUE",
        "recipe 'foo'",
        "seed",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["nan", ".nan", ".inf", "true", "[1]", "{a: 1}", "null"])
def test_a_learning_rate_is_a_finite_number(value):
    with pytest.raises(ConfigError, match=r"training\.learning_rate"):
        load_config(sets=(f"training.learning_rate={value}",))


def test_a_recipe_that_leaves_the_learning_rate_open_asks_for_it():
    with pytest.raises(ConfigError, match="--learning-rate"):
        load_config(sets=("recipe=mei",))
    assert load_config(sets=("recipe=mei", "training.learning_rate=1e-3")).training.learning_rate == 1e-3


@pytest.mark.parametrize("separator", ["|", ";", ",", "/", "||"])
def test_a_separator_is_text_in_every_place(config_file, separator):
    assert load_config(sets=(f"data.label_separator={separator}",)).data.label_separator == separator
    config = load_config(config_file(f"data: {{label_separator: '{separator}'}}"))
    assert config.data.label_separator == separator


def test_the_resolved_text_loads_back_to_the_same_settings(config_file):
    config = load_config(sets=("recipe=raghu-chexpert", "data.label_column=a,b", "splits.fold=[1, 2]"))
    assert load_config(config_file(config_text(config))) == config


def test_recipes_name_existing_settings_only():
    for values in RECIPES.values():
        assert set(values) <= set(setting_fields())


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"mei"}))
def test_every_recipe_gives_valid_settings(recipe):
    config = load_config(sets=(f"recipe={recipe}",))
    for name, value in RECIPES[recipe].items():
        section, _, key = name.rpartition(".")
        assert getattr(getattr(config, section), key) == value


def test_every_setting_explains_itself():
    for name, (field, _) in setting_fields().items():
        assert field.metadata["help"].endswith("."), name


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


@pytest.mark.parametrize("name", [name for name in shipped_configs() if not is_study(name)])
def test_every_shipped_config_is_valid_and_says_what_it_is_for(name):
    load_config(name)
    head = [line for line in shipped_configs()[name].read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    text = "\n".join(head)
    for word in ("Command:", "Needs:", "Expect:"):
        assert word in text


def test_a_missing_config_names_the_shipped_ones():
    with pytest.raises(ConfigError, match="expected a YAML file or a shipped name"):
        load_config("nosuch")


@pytest.mark.parametrize("recipe", [5, -1.5, True, [], {}, None])
def test_a_recipe_that_is_no_name_is_refused(recipe):
    with pytest.raises(ConfigError, match="recipe"):
        load_config(options={"recipe": recipe})
