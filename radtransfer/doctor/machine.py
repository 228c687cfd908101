"""Cores, memory, disk and arithmetic."""

import os
import shutil
import tempfile
from pathlib import Path

from radtransfer.cache import cache_folder
from radtransfer.device import resolve_device, usable_cores
from radtransfer.doctor.finding import Finding
from radtransfer.environment import ONEDNN, onednn_decided_by
from radtransfer.settings import SystemSettings

LITTLE_MEMORY, LITTLE_DISK = 4.0, 5.0
"""Gigabytes below which a note is given: rules of thumb. 25 000 images of 224 px take 3.8 where they are kept."""

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_finding() -> Finding:
    """Cores and memory that this process may use."""
    cores, total, free = usable_cores(), *memory()
    facts = {"cores": cores, "all_cores": os.cpu_count(), "memory_gb": total, "free_memory_gb": free}
    known = "memory unknown" if total is None else f"{total:.1f} GB of memory"
    text = f"{cores} of {os.cpu_count()} cores, {known}" + ("" if free is None else f", {free:.1f} free")
    if free is not None and free < LITTLE_MEMORY:
        advice = "close other programs, or use a smaller --batch-size and --image-size"
        return Finding("machine", "note", f"{text}; large networks need more", advice, facts)
    return Finding("machine", "ok", text, facts=facts)


def memory() -> tuple[float | None, float | None]:
    """Gigabytes that this process may use, and how much of it is free; None where the system does not tell."""
    total, free = _system_memory()
    limit = min((int(text) for text in map(_first_line, _LIMITS) if text.isdigit()), default=None)
    if limit is not None and (total is None or limit / 1e9 < total):
        total, free = limit / 1e9, None if free is None else min(free, limit / 1e9)
    return (None if total is None else round(total, 1)), (None if free is None else round(free, 1))


def _system_memory() -> tuple[float | None, float | None]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    values = {name: text.split()[0] for name, _, text in (line.partition(":") for line in lines)}
    total, free = (int(values[name]) * 1024 / 1e9 if name in values else None for name in ("MemTotal", "MemAvailable"))
    return total, free


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def cache_finding() -> Finding:
    """Whether the cache folder can be written, and the room there."""
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    facts = {"folder": str(folder), "free_disk_gb": round(shutil.disk_usage(existing).free / 1e9, 1)}
    text = f"{folder}, {facts['free_disk_gb']:.1f} GB free"
    if not _can_write(existing):
        advice = "set RADTRANSFER_CACHE to a folder of yours"
        return Finding("cache", "problem", f"{folder} cannot be written", advice, facts)
    if facts["free_disk_gb"] < LITTLE_DISK:
        advice = "make room, or set RADTRANSFER_CACHE to another disk"
        return Finding("cache", "note", f"{text}: little for prepared data and --cache disk", advice, facts)
    return Finding("cache", "ok", text, facts=facts)


def _can_write(folder: Path) -> bool:
    """Tried, since permission bits do not tell of read-only disks."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def arithmetic_finding() -> Finding:
    """What `auto` means here, and whether a small product comes out right; imports TensorFlow."""
    import tensorflow as tf

    device = resolve_device(SystemSettings())
    facts = {"device": device.name, "precision": device.precision, "xla": device.jit, "onednn": device.onednn}
    ones = tf.ones([256, 256])
    right = float(tf.reduce_sum(tf.matmul(ones, ones))) == 256.0**3
    xla, onednn = ("on" if on else "off" for on in (device.jit, device.onednn))
    text = f"{device.name}; by default {device.precision}, XLA {xla}; oneDNN {onednn}"
    if not right:
        return Finding("arithmetic", "problem", f"{text}; a product of matrices came out wrong", "check driver", facts)
    value, facts["onednn_decided_by"] = os.environ.get(ONEDNN, ""), onednn_decided_by()
    asked = value.lower() in ("1", "true")
    if value and (facts["onednn_decided_by"] == "tensorflow" or asked != device.onednn):
        advice = "TensorFlow understands 0 and 1, if it was built with oneDNN"
        return Finding("arithmetic", "note", f"{text}: {ONEDNN}={value} has no effect", advice, facts)
    reason = {
        "radtransfer": "chosen by radtransfer for a processor with AVX2 and FMA",
        "user": f"set by {ONEDNN}={value}",
        "tensorflow": "TensorFlow's default here",
    }[facts["onednn_decided_by"]]
    return Finding("arithmetic", "ok", f"{text}, {reason}", facts=facts)
