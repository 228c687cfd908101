import pytest
import yaml
from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from radtransfer.config.load import config_text, load_config, setting_fields, shipped_configs
from radtransfer.config.schema import Config
from radtransfer.config.yaml_text import parse_yaml, write_yaml
from radtransfer.studies.file import load_study, study_text
from radtransfer.studies.grid import check_study

NAMES = sorted(setting_fields())
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["none", "auto", "random", "1e-4", "~", ".inf", "-.nan", "0x10", "1:30", "no", "stage2:0.5", "()", "[", "{}"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.one_of(st.sampled_from(NAMES), st.sampled_from(["data", "training", "transfer", ""]), st.text(max_size=12))


def nested(flat):
    document = {}
    for name, value in flat.items():
        section, dot, key = name.partition(".")
        place = document.setdefault(section, {}) if dot else document
        if isinstance(place, dict):
            place[key if dot else section] = value
    return document


def written(folder, document):
    path = folder / "settings of a run.yaml"
    path.write_text(
        document if isinstance(document, str) else yaml.safe_dump(document, allow_unicode=True), encoding="utf-8"
    )
    return str(path)


@given(st.lists(st.tuples(names, st.one_of(scalars.map(str), st.text(max_size=30))), max_size=4))
@fuzzed(150)
def test_any_set_is_taken_or_refused(pairs):
    found = answer(load_config, None, names=None, codes=(2,))
    assert isinstance(found, Config)
    sets = tuple(f"{name}={value}" for name, value in pairs)
    found = answer(lambda: load_config(sets=sets), codes=(2,))
    if isinstance(found, Config):
        assert load_config(sets=(), options={}) is not None
        round_trip(found)


def round_trip(config):
    """What is written to `config.yaml` reads back to the same settings."""
    text = config_text(config)
    document, _ = parse_yaml(text, source="config.yaml")
    flat = {
        f"{key}.{name}" if isinstance(value, dict) else key: item
        for key, value in document.items()
        for name, item in (value.items() if isinstance(value, dict) else [("", value)])
    }
    assert load_config(options=flat) == config


@given(st.dictionaries(names, values, max_size=6))
@fuzzed(150)
def test_any_settings_file_is_taken_or_refused_by_name(tmp_path_factory, flat):
    path = written(tmp_path_factory.getbasetemp(), nested(flat))
    found = answer(load_config, path, codes=(2,))
    if isinstance(found, Config):
        round_trip(found)


@given(st.text(max_size=200))
@fuzzed(150)
def test_any_text_is_settings_or_refused(tmp_path_factory, text):
    answer(load_config, written(tmp_path_factory.getbasetemp(), text), names=None, codes=(2,))


@given(st.binary(max_size=200))
@fuzzed(50)
def test_any_bytes_are_settings_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    answer(load_config, str(path), codes=(2,))
    answer(load_study, str(path), codes=(2,))


@given(
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    )
)
@fuzzed(100)
def test_what_is_written_reads_back(value):
    text = write_yaml({"value": value})
    found = parse_yaml(text, source="it")[0]["value"]
    assert same(found, value), (found, value, text)


def same(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


parts = st.dictionaries(names, values, max_size=3)
studies = st.fixed_dictionaries(
    {},
    optional={
        "study": st.one_of(
            values, st.dictionaries(st.sampled_from(["name", "title", "reference", "threshold"]), values, max_size=4)
        ),
        "base": st.one_of(values, parts),
        "arms": st.one_of(values, st.dictionaries(st.text(max_size=5), st.one_of(values, parts), max_size=3)),
        "grid": st.one_of(values, st.dictionaries(names, st.lists(values, max_size=3), max_size=3)),
        "exclude": values,
        "sources": st.one_of(values, st.dictionaries(st.text(max_size=5), st.one_of(values, parts), max_size=2)),
        "compare": values,
    },
)


@given(studies, st.lists(st.tuples(names, scalars.map(str)), max_size=2))
@fuzzed(150)
def test_any_study_is_taken_or_refused(tmp_path_factory, document, pairs):
    path = written(tmp_path_factory.getbasetemp(), document)
    sets = [f"{name}={value}" for name, value in pairs]
    found = answer(lambda: load_study(path, sets=sets), codes=(2,))
    if not isinstance(found, Exception):
        answer(check_study, found, codes=(2, 3, 4))
        again = written(tmp_path_factory.getbasetemp(), study_text(found))
        assert study_text(load_study(again)) == study_text(found)


@pytest.mark.parametrize("name", shipped_configs())
@given(st.data())
@fuzzed(10)
def test_a_shipped_file_with_a_few_letters_changed_is_taken_or_refused(tmp_path_factory, name, data):
    text = list(shipped_configs()[name].read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(
            st.sampled_from(["", ":", " ", "\n", "-", "[", "]", "{", "*a", "&a", "!", "#", "'", '"', "\t", "0"])
        )
    path = written(tmp_path_factory.getbasetemp(), "".join(text))
    answer(load_config, path, codes=(2,))
    answer(load_study, path, codes=(2,))


def test_an_alias_bomb_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = written(tmp_path, "\n".join(lines))
    for load in (load_config, load_study):
        assert isinstance(answer(load, path, names="settings of a run.yaml", codes=(2,)), Exception)


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [exit]", "a: !!python/name:os.system", "- " * 5000, "[" * 5000]
)
def test_what_runs_code_or_nests_without_end_is_refused(tmp_path, text):
    path = written(tmp_path, text)
    assert isinstance(answer(load_config, path, names="settings of a run.yaml", codes=(2,)), Exception)
