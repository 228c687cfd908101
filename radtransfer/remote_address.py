"""Addresses such as `gs://BUCKET/SET`, which name what lies on another machine, where a path would name a file here."""

import re
from typing import NamedTuple

from radtransfer.errors import ConfigError

_ADDRESS = re.compile(r"(?:(\w+):)?(([A-Za-z][\w+.-]+)://[^?]*)(\?.*)?")


class RemoteSource(NamedTuple):
    """A data source that is an address.

    Attributes:
        reader: The dataset that is named before it, if one is.
        address: Without a slash at its end.
        scheme: What it begins with: `gs`.
        options: What follows, from `?` on, if anything does.
    """

    reader: str | None
    address: str
    scheme: str
    options: str


def remote_source(source: str) -> RemoteSource | None:
    """The parts of `SCHEME://…` or `DATASET:SCHEME://…?…`; None for what lies on this machine."""
    match = _ADDRESS.fullmatch(source)
    if match is None:
        return None
    reader, address, scheme, options = match.groups()
    return RemoteSource(reader, address.rstrip("/"), scheme, options or "")


def check_here(place: str | None) -> None:
    """Raise unless `place` is a path, which it is even where nothing lies there.

    Raises:
        ConfigError: It is an address.
    """
    if place is not None and remote_source(place) is not None:
        raise ConfigError(
            f"expected a file or folder of this machine, received {place}. Mount or copy it; only prepared data sets "
            "(--data) are read from elsewhere, and results are written here."
        )
