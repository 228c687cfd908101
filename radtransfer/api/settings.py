"""The settings of a call, and helpers of several functions."""

import hashlib
import html
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from radtransfer.config.load import Check, load_config, setting_fields, setting_value
from radtransfer.config.schema import Config
from radtransfer.errors import ConfigError
from radtransfer.files import writing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PathLike: TypeAlias = str | os.PathLike
ConfigLike: TypeAlias = str | os.PathLike | Config

_OPTIONS = {"data": "data.source", "bn_init": "transfer.batch_norm", "ema": "training.ema_momentum"}
"""Options with another name than their setting."""


def settings_of(
    data: Any = None,
    *,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    check: Check | None = None,
) -> Config:
    """The checked settings of a call; `data`, `config` and `settings` are described in `radtransfer.api`.

    Raises:
        ConfigError: A name or value cannot be used; all mistakes are listed.
    """
    if isinstance(config, Config) and data is None and not settings:
        return config
    given: dict[str, Any] = {}
    known = {name.rpartition(".")[2]: name for name in setting_fields()} | _OPTIONS
    sections = {name.partition(".")[0] for name in setting_fields() if "." in name}
    for name, value in (settings or {}).items():
        if name in sections and isinstance(value, Mapping):
            given |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            given[known.get(name, name)] = value
    if given.get("model.weights", "") is None:
        given["model.weights"] = "random"
    table = getattr(data, "config", None)
    if isinstance(table, Config):  # a loaded table
        given, data = {**given_values(table), **given}, table.data.source
    elif data is not None and hasattr(data, "to_csv"):
        data = _frame_file(data)
        if "data.image_root" not in given:  # paths in a frame are relative to the working folder
            given = {"data.image_root": str(Path.cwd()), "data.outside_root": True} | given
    if data is not None:
        given["data.source"] = os.fspath(data)
    if isinstance(config, Config):
        given, config = {**given_values(config), **given}, None
    options = {name: _plain(value) for name, value in given.items()}
    source = None if config is None else os.fspath(config)
    return load_config(source, options=options, options_from="this call", check=check)


def given_values(config: Config) -> dict[str, Any]:
    """The settings that were given, by dotted name."""
    return {name: _plain(setting_value(config, name)) for name in config.given}


def _plain(value: Any) -> Any:
    """`value` as plain YAML data."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "dtype") and value.shape == () else value


def _frame_file(data: "pd.DataFrame") -> Path:
    """The frame as a CSV in the cache folder, named by its hash."""
    from radtransfer.runs.cache import cache_folder
    from radtransfer.runs.folder import atomic_write

    text = data.to_csv(index=False)
    path = cache_folder() / "frames" / f"frame_{hashlib.sha256(text.encode()).hexdigest()[:32]}.csv"
    if not path.exists():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as part:
                part.write_text(text, encoding="utf-8")
    return path


def numbers(fold: int | Iterable[int] | None) -> tuple[int, ...]:
    """`fold` as a tuple."""
    return () if fold is None else (fold,) if isinstance(fold, int) else tuple(fold)


def paths(several: Any) -> list[str]:
    """One path or several, as a list."""
    one = isinstance(several, (str, os.PathLike))
    return [os.fspath(path) for path in ([several] if one else several)]


def is_array(images: Any) -> bool:
    """Whether `images` are pixels, not paths."""
    return hasattr(images, "shape") and hasattr(images, "dtype")


def checked_images(images: Any) -> "np.ndarray":
    """Images as float32 (n, height, width, 3); ConfigError for another shape."""
    import numpy as np

    pixels = np.asarray(images, np.float32)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
        raise ConfigError(f"Expected images of shape (n, height, width, 3), 0 to 255. Received: {pixels.shape}.")
    return pixels


def frame(rows: Any, **options: Any) -> "pd.DataFrame":
    """A pandas frame."""
    import pandas as pd

    return pd.DataFrame(rows, **options)


def table_html(title: str, rows: Mapping[str, Any]) -> str:
    """An HTML table of names and values, for notebooks."""
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<b>{html.escape(title)}</b><table>{lines}</table>"
