"""Explicit tables of interchangeable things, each imported only when it is asked for."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from radtransfer.errors import UnknownNameError


class Table(Mapping[str, Any]):
    """A read-only mapping from a name to the value that `"module:attribute"` points at.

    Iterating over names imports nothing, so that commands which only list them stay instant.

    Args:
        kind: What the table holds, as it is called in messages ("backbone").
        entries: Name to `"module:attribute"`, in the order in which users see them.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]):
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """The entry called `name`.

        Raises:
            UnknownNameError: No such entry; names the closest ones.
        """
        self.check(name)
        module, attribute = self._entries[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def get(self, name: str | None, default: Any = None) -> Any:
        """The entry called `name`, or `default`."""
        return self[name] if name in self._entries else default

    def check(self, name: str) -> None:
        """Raises UnknownNameError if there is no entry called `name`; imports nothing."""
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
