"""What a prepared data set was made of: the settings and sources that decide it, and the record of them."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from radtransfer.datasets import absolute_source
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.tfds.prepared_table import PROVENANCE, TABLE
from radtransfer.device import versions
from radtransfer.image_place import file_of
from radtransfer.prepared.folder import PreparedFolder
from radtransfer.prepared.shards import Shard
from radtransfer.runs import now, write_json
from radtransfer.settings import Config

_CHANGE_NOTHING = (
    *("on_bad_image", "allow_leakage", "positive_from", "positive_class", "outside_root", "allow_alike_patients"),
)
"""Settings of the data that change no prepared image and no label."""


def fixed_settings(config: Config, encoding: str) -> dict[str, Any]:
    """What decides the images and labels, as JSON has it."""
    data = {name: value for name, value in asdict(config.data).items() if name not in _CHANGE_NOTHING}
    data["source"] = absolute_source(data["source"])
    if data["image_root"]:
        data["image_root"] = str(Path(data["image_root"]).expanduser().absolute())
    settings = {
        "data": data,
        "images": asdict(config.images),
        "image_size": config.model.image_size,
        "encoding": encoding,
    }
    return json.loads(json.dumps(settings))


def table_digest(table: ImageTable) -> str:
    """What tells this table and its files, by size and time of change, from others."""
    digest = hashlib.sha256()
    for part in (table.task, table.classes, table.paths, table.patients):
        digest.update(repr(part).encode(errors="surrogatepass"))
    digest.update(table.targets.tobytes())
    digest.update(b"" if table.splits is None else table.splits.tobytes())
    stat = functools.cache(os.stat)
    for place in table.files:
        facts = None
        with contextlib.suppress(OSError):
            facts = place and stat(file_of(place))
        digest.update(f"{place} {facts and (facts.st_size, facts.st_mtime_ns)}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def write_provenance(
    folder: PreparedFolder, table: ImageTable, shards: Sequence[Shard], config: Config, encoding: str
) -> None:
    """Write `provenance.json`, which makes the set a finished one."""
    out, source = folder.path, config.data.source
    write_json(
        out / PROVENANCE,
        {
            "source": source,
            "prepared": now(),
            "image_size": config.model.image_size,
            "encoding": encoding,
            "task": table.task,
            "classes": list(table.classes),
            "positive_from": table.positive_from,
            "rows": len(table),
            "images": sum(len(shard.rows) for shard in shards),
            "splits": _splits(shards),
            "shards": [
                {"name": shard.name, "images": len(shard.rows), "bytes": (out / shard.name).stat().st_size}
                for shard in shards
            ],
            "skipped": folder.skipped,
            "notes": list(table.notes),
            "settings": folder.state["settings"],
            "source_sha256": _source_sha256(source),
            "sources_digest": folder.state["sources"],
            "table_sha256": hashlib.sha256((out / TABLE).read_bytes()).hexdigest(),
            "versions": versions() | {"tensorflow-datasets": importlib.metadata.version("tensorflow-datasets")},
        },
    )


def _splits(shards: Sequence[Shard]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard.split] = counts.get(shard.split, 0) + len(shard.rows)
    return counts


def _source_sha256(source: str) -> str | None:
    """Of the table that was read, where it is one file; the images' own stand in the table of the set."""
    file = Path(source.partition(":")[2] if source.startswith("csv_table:") else source).expanduser()
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
