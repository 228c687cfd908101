import pytest

from radtransfer.config.load import config_text, load_config
from radtransfer.config.yaml_text import parse_scalar, parse_yaml, write_blocks, write_yaml
from radtransfer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.5E3", 1500.0), ("-2e5", -2e5), (".5", 0.5), ("3.", 3.0), ("7", 7), ("-1", -1), ("010", 10)],
)
def test_numbers_are_numbers_however_they_are_written(text, value):
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "none", "n", "1:30", "2024-01-01", "0x10"])
def test_words_that_yaml_takes_for_something_else_stay_words(word):
    assert parse_scalar(word) == word


def test_only_true_and_false_are_booleans():
    assert parse_scalar("true") is True
    assert parse_scalar("False") is False


def test_a_repeated_key_is_an_error_that_names_its_line():
    with pytest.raises(ConfigError, match="'a' is repeated in line 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n", source="x.yaml")


def test_lines_of_nested_keys_are_known():
    _, lines = parse_yaml("a: 1\nb:\n  c: 2\n", source="x.yaml")
    assert lines == {"a": 1, "b": 2, "b.c": 3}


def test_broken_yaml_is_one_message_with_file_and_line():
    with pytest.raises(ConfigError, match="x.yaml line 3 is not valid YAML"):
        parse_yaml("a: 1\nb: [1\n", source="x.yaml")


def test_tags_that_would_run_code_are_refused():
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.getcwd []", source="x.yaml")


def test_what_is_written_reads_back():
    value = {"a": [1, 2.5, "no", None, True], "b": {"c": 1e-05, "d": "1e-5"}}
    assert parse_yaml(write_yaml(value), source="x")[0] == value


@pytest.mark.parametrize("text", ["a\x85b", "a\u2028b\n", "\x1b[0m", "a\rb", "\ufeffx", "näme\xa0"])
def test_text_that_yaml_would_fold_reads_back_as_it_was(text):
    assert parse_yaml(write_yaml({"key": text}), source="it")[0] == {"key": text}
    assert parse_yaml(write_blocks({"key": text}), source="it")[0] == {"key": text}


def test_characters_that_may_not_stand_in_yaml_are_a_mistake():
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_scalar("\x00")


def test_aliases_of_aliases_are_counted_before_they_are_made():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="expand to more than 100,000 values"):
        parse_yaml("\n".join(lines), source="it")
    assert parse_yaml("a: &a [1]\nb: *a", source="it")[0] == {"a": [1], "b": [1]}


def test_a_value_that_holds_itself_is_a_mistake():
    with pytest.raises(ConfigError, match="expand to more"):
        parse_yaml("a: &a [*a]", source="it")


def test_merge_keys_are_followed_and_own_keys_win():
    document = "a: &a {x: 1, y: 2}\nc: &c {x: 5, z: 6}\nb:\n  <<: [*a, *c]\n  y: 3\n<<: {top: 4}\n"
    value, lines = parse_yaml(document, source="it")
    assert value["b"] == {"x": 1, "y": 3, "z": 6}
    assert value["top"] == 4
    assert (lines["b.x"], lines["b.y"], lines["top"]) == (1, 5, 6)


def test_merged_settings_are_checked_as_if_they_were_written_there(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data: {source: x}\ntraining:\n  epochs: 2\n  <<: {epochs: 7, patience: 3}\n")
    config = load_config(file)
    assert (config.training.epochs, config.training.patience) == (2, 3)
    file.write_text("data: {source: x}\ntraining:\n  <<: {epoch: 7}\n")
    with pytest.raises(ConfigError, match=r"'training.epoch'.*line 3"):
        load_config(file)
    assert parse_yaml("a: &a {positive_class: 01}\nb: {<<: *a}", source="it")[0]["b"] == {"positive_class": "01"}


@pytest.mark.parametrize(
    "text",
    [
        "a: {<<: 3}",
        "a: {<<: [3]}",
        "a: {<<: null}",
        "a: {<<: text}",
        "b: &b [1]\na: {<<: *b}",
        "a: &a {<<: *a}",
        "a: &a {<<: [*a, {x: 1}]}",
        "a: {<<: {x: 1}, <<: {y: 1}}",
        "a: {<<: {x: 1, x: 2}}",
        "a: {<<: {[x]: 2}}",
        "a: !!bool maybe",
        "a: !!timestamp soon",
        "a: !!map x",
        "a: !!set {x}",
        "a: !!omap [x: 1]",
        "a: !!binary eA==",
        f"a: {'9' * 5000}",
        "\n".join(
            ["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)]
        ),
        "\n".join(["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i} {{<<: *a{i - 1}, x{i}: *a{i - 1}}}" for i in range(1, 60)]),
    ],
)
def test_what_is_no_setting_is_one_line_of_advice(text):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, source="it")
    assert str(caught.value).startswith("it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["<<", "="])
def test_merge_signs_that_are_values_are_text(text):
    assert parse_yaml(f"a: {text}\nb: [{text}]", source="it")[0] == {"a": text, "b": [text]}


@pytest.mark.parametrize("text", ["0", "1", "01", "1.0", "1e3", "True", "true", "yes", "no", "2024-01-01"])
def test_a_positive_class_is_the_text_that_was_written(text):
    document = (
        f"data: {{positive_class: {text}}}\ndata.positive_class: {text}\ngrid: {{data.positive_class: [{text}]}}\n"
    )
    assert parse_yaml(document, source="it")[0] == {
        "data": {"positive_class": text},
        "data.positive_class": text,
        "grid": {"data.positive_class": [text]},
    }
    config = load_config(sets=(f"data.positive_class={text}",))
    assert config.data.positive_class == text
    assert parse_yaml(config_text(config), source="it")[0]["data"]["positive_class"] == text


def test_no_positive_class_stays_none():
    assert parse_yaml("positive_class: null\n", source="it")[0] == {"positive_class": None}
    assert load_config(sets=("data.positive_class=null",)).data.positive_class is None
