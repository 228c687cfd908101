"""YAML with the line of each key and without pitfalls of PyYAML's `safe_load`.

`1e-4` is a number, repeated keys are errors, only `true` and `false` are booleans (`no`, `off`, `yes`, `on` are text),
010 is ten, times and dates (1:30, 2024-01-01) are text. Merge keys (`<<: *name`) work, tags only for plain values.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from radtransfer.errors import ConfigError

AS_WRITTEN = frozenset({"positive_class"})
"""Settings (without section) whose numbers and booleans stay text, as 01 and 1 are two classes."""

_MOST_VALUES = 100_000  # in a file, with aliases expanded

_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
"""Line ends and characters that must be escaped in YAML."""

_NUMBER = re.compile(
    r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Rejects repeated keys."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._flat: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if id(node) in self._flat:
            return
        self._flat.add(id(node))
        seen: set = set()
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if str(key).rpartition(".")[2] in AS_WRITTEN:
                _keep_text(value_node)
            if not isinstance(key, str | int | float | bool):
                raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a name")
            if key in seen:
                raise ConfigError(f"key {key!r} is repeated in line {key_node.start_mark.line + 1}")
            seen.add(key)
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        return super().construct_mapping(node, deep=True)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError):
            what = f"{node.value!r:.40} is not of the type {node.tag.rpartition(':')[2]}, or too long"
            raise ConfigError(f"line {node.start_mark.line + 1}: {what}") from None


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as another type."""


class _BlockDumper(_Dumper):
    """Writes one line per key, and texts of several lines as blocks."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=not mapping)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Quotes and escapes special characters."""
    style = '"' if _ODD.search(text) else "|" if "\n" in text and isinstance(dumper, _BlockDumper) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    _kind.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))

_Loader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.endswith((":null", ":bool", ":float", ":str", ":seq", ":map"))
}
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
for _name in ("merge", "value"):  # << and =, special only as keys
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", yaml.SafeLoader.construct_yaml_str)


def parse_scalar(text: str, *, key: str = "") -> Any:
    """The value of `text` for `key` in YAML: `"1e-4"` → 0.0001; ConfigError if it is invalid."""
    return parse_yaml(text, source="the value", key=key)[0]


def parse_yaml(text: str, *, source: str, key: str = "") -> tuple[Any, dict[str, int]]:
    """The value of a YAML text and the line (from 1) of each dotted key; list items count from 0.

    `source` is its name in messages, `key` the setting if `text` is only a value. ConfigError if it is invalid.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node)
        if key.rpartition(".")[2] in AS_WRITTEN:
            _keep_text(node)
        value = None if node is None else loader.construct_document(node)
        return value, dict(_key_lines(node, ()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where} is not valid YAML: {getattr(error, 'problem', error)}") from None
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: its lists or mappings are nested too deeply.") from None
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """`parse_yaml` of a file; ConfigError also if it is not text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not a text file" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(f"Cannot read {path}: {reason}.") from None
    return parse_yaml(text, source=str(path))


def write_yaml(value: Any) -> str:
    """`value` as YAML in block style, keys in the given order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def write_blocks(value: Any) -> str:
    """`value` as YAML with a line per key; lists of plain values stay on one line."""
    options = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 100}
    return yaml.dump(value, Dumper=_BlockDumper, **options)


def _check_size(root: yaml.Node | None) -> None:
    """Reject nested aliases that expand to more than fits into memory."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # for a node that contains itself
            inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(map(size, inner))
        return sizes[id(node)]

    if root is not None and size(root) > _MOST_VALUES:
        raise ConfigError(f"its aliases expand to more than {_MOST_VALUES:,} values")


def _keep_text(node: yaml.Node | None) -> None:
    """Keep numbers and booleans, also in a list, as text."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_text(item)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float", ":bool")):
        node.tag = "tag:yaml.org,2002:str"


def _key_lines(node: yaml.Node | None, prefix: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _key_lines(item, (*prefix, str(number)))
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = (*prefix, str(key.value))
        yield ".".join(name), key.start_mark.line + 1
        yield from _key_lines(value, name)
