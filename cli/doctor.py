"""`radtransfer doctor`: what this machine offers, and what stands in the way."""

import ctypes
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import click
from packaging.requirements import Requirement

from radtransfer import __version__
from radtransfer.cli.options import output_options
from radtransfer.cli.terminal import import_tensorflow, line, painted, show, show_json, show_next
from radtransfer.config.schema import SystemSettings
from radtransfer.errors import OutOfMemoryError
from radtransfer.pretrained.source import SEARCH_VARIABLE, found_files, keras_cache, search_folders
from radtransfer.process import ONEDNN, onednn_decided_by, resolve_device, usable_cores
from radtransfer.runs.cache import cache_folder

_COLORS = {"ok": "green", "note": "yellow", "problem": "red"}

BROKEN = 2
"""Exit code where something is found that nothing works with."""


@click.command(short_help="Look at versions, memory, cache, weights and GPU.")
@output_options
def doctor(as_json: bool) -> None:
    """Look at versions, memory, cache, weights, extras and GPU, and say what to do about problems.

    The exit code is 2 if there is a problem that must be solved first, else 0. A missing GPU or extra does not count.

    \b
    Example:
      radtransfer doctor
      radtransfer doctor --json > machine.json
    """
    findings = []
    for finding in examine(import_tensorflow=import_tensorflow):
        findings.append(finding)
        if not as_json:
            first, *more = finding.text.split("\n")
            status = painted(f"{finding.status:<9}", fg=_COLORS[finding.status])
            more += [f"→ {finding.advice}"] if finding.advice else []
            show(line(status, f"{finding.subject:<12}{first}"), *(f"{'':<21}{text}" for text in more))
    problems = [finding.subject for finding in findings if finding.status == "problem"]
    if as_json:
        show_json({"problems": problems, "findings": list(map(asdict, findings))})
    elif problems:
        show(f"{len(problems)} to solve first: {', '.join(problems)}")
    else:
        show_next(["finetune", "quickstart"])
    click.get_current_context().exit(BROKEN if problems else 0)


@dataclass(frozen=True)
class Finding:
    """What was found of one subject."""

    subject: str  # its name, one or two words
    status: Literal["ok", "note", "problem"]  # a note is what not everybody needs; with a problem nothing works
    text: str  # what was found, a line or several
    advice: str = ""  # what to do about it; empty if nothing
    facts: dict[str, Any] = field(default_factory=dict)  # the same for programs


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
    limit = min((int(text) for text in map(_read, _LIMITS) if text.strip().isdigit()), default=None)
    if limit is not None and (total is None or limit / 1e9 < total):
        total, free = limit / 1e9, None if free is None else min(free, limit / 1e9)
    return (None if total is None else round(total, 1)), (None if free is None else round(free, 1))


def _system_memory() -> tuple[float | None, float | None]:
    lines = (line.partition(":") for line in _read("/proc/meminfo").splitlines())
    values = {name: text.split()[0] for name, _, text in lines}
    total, free = (int(values[name]) * 1024 / 1e9 if name in values else None for name in ("MemTotal", "MemAvailable"))
    return total, free


def _read(path: str) -> str:
    """The text of a file of the system; empty where there is none."""
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def cache_finding() -> Finding:
    """Whether the cache folder can be written, and the room there."""
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    facts = {"folder": str(folder), "free_disk_gb": round(shutil.disk_usage(existing).free / 1e9, 1)}
    text = f"{folder}, {facts['free_disk_gb']:.1f} GB free"
    try:  # permission bits do not tell of read-only disks
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError:
        advice = "set RADTRANSFER_CACHE to a folder of yours"
        return Finding("cache", "problem", f"{folder} cannot be written", advice, facts)
    if facts["free_disk_gb"] < LITTLE_DISK:
        advice = "make room, or set RADTRANSFER_CACHE to another disk"
        return Finding("cache", "note", f"{text}: little for prepared data and --cache disk", advice, facts)
    return Finding("cache", "ok", text, facts=facts)


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


PACKAGE = "radtransfer"


@dataclass(frozen=True)
class Needed:
    """A package that is required."""

    name: str
    wanted: str  # versions that will do
    installed: str | None  # the version that is here
    fits: bool  # whether it will do


def requirements(package: str, *, extra: str | None = None) -> list[Needed]:
    """What `package` requires, always or for `extra`, and what is here of it."""
    found = []
    for text in metadata.requires(package) or ():
        need = Requirement(text)
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        if always == (extra is None) and (always or need.marker.evaluate({"extra": extra})):
            try:
                installed = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                installed = None
            fits = installed is not None and need.specifier.contains(installed, prereleases=True)
            found.append(Needed(need.name, str(need.specifier), installed, fits))
    return found


def versions_finding(needed: Sequence[Needed]) -> Finding:
    """Whether every package is here in a version that will do."""
    wrong = [item for item in needed if not item.fits]
    here = ", ".join(f"{item.name} {item.installed}" for item in needed if item.fits)
    lines = [f"radtransfer {__version__}, Python {platform.python_version()}, {platform.platform()}", here]
    lines += [f"{item.name} {item.installed or 'is not installed'}; needed: {item.wanted}" for item in wrong]
    advice = "pip install " + " ".join(f"'{item.name}{item.wanted}'" for item in wrong) if wrong else ""
    facts = {"radtransfer": __version__, "python": platform.python_version(), "platform": platform.platform()}
    facts |= {item.name: item.installed for item in needed}
    return Finding("versions", "problem" if wrong else "ok", "\n".join(lines), advice, facts)


def extras() -> dict[str, list[Needed]]:
    """What each extra of this package requires; the one for tests is not shown."""
    names = metadata.distribution(PACKAGE).metadata.get_all("Provides-Extra") or ()
    return {name: requirements(PACKAGE, extra=name) for name in names if name != "test"}


def extras_finding(needed: dict[str, list[Needed]]) -> Finding:
    """Which extras are complete, and what the others lack."""
    missing = {name: [item.name for item in packages if not item.fits] for name, packages in needed.items()}
    lines = [f"{name:<8}{'lacks ' + ', '.join(names) if names else 'installed'}" for name, names in missing.items()]
    lacking = [name for name, names in missing.items() if names]
    advice = f"pip install '{PACKAGE}[{','.join(lacking)}]', those that you need" if lacking else ""
    facts = {name: not names for name, names in missing.items()}
    return Finding("extras", "note" if lacking else "ok", "\n".join(lines), advice, facts)


HIDING = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class GpuEvidence:
    """What decides whether there is a GPU."""

    seen: tuple[str, ...]  # names of the GPUs that TensorFlow sees
    system: str  # `sys.platform`
    visible: str | None  # value of CUDA_VISIBLE_DEVICES; None if not set
    device: bool  # whether the system has an NVIDIA device
    driver: bool  # whether NVIDIA's driver library can be loaded
    built: bool  # whether this TensorFlow was built with CUDA
    missing: tuple[str, ...]  # CUDA libraries that this TensorFlow takes from pip and that are not installed


def gather() -> GpuEvidence:
    """Look; imports TensorFlow."""
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver = True
    except OSError:
        driver = False
    return GpuEvidence(
        seen=tuple(str(item.get("device_name", "GPU")) for item in details),
        system=sys.platform,
        visible=os.environ.get(HIDING),
        device=Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists(),
        driver=driver,
        built=tf.test.is_built_with_cuda(),
        missing=tuple(item.name for item in requirements("tensorflow", extra="and-cuda") if item.installed is None),
    )


def gpu_finding(evidence: GpuEvidence) -> Finding:
    """The GPUs; or the first reason against one, in the order in which they stand in its way."""
    facts = asdict(evidence) | {"seen": list(evidence.seen), "missing": list(evidence.missing)}
    if evidence.seen:
        return Finding("gpu", "ok", f"{len(evidence.seen)} visible: {', '.join(evidence.seen)}", facts=facts)
    text, advice = _reason(evidence)
    return Finding("gpu", "note", f"none visible: {text}", advice, facts)


def _reason(evidence: GpuEvidence) -> tuple[str, str]:
    if evidence.system == "darwin":
        return "TensorFlow uses none on macOS by itself", "train on Linux where it takes too long"
    if evidence.system == "win32":
        return "TensorFlow uses none on Windows since 2.11", "install radtransfer inside WSL 2"
    # CUDA takes the devices in order and stops at the first that it does not know.
    first = "0" if evidence.visible is None else evidence.visible.split(",")[0].strip()
    if not first or first.startswith("-") or first.lower() in ("none", "void", "nodevfiles"):
        return f"{HIDING}={evidence.visible!r} hides all", f"unset {HIDING}"
    if not evidence.device and not evidence.driver:
        return "no NVIDIA device and no driver here; the CPU does all work", ""
    if not evidence.driver:
        return "there is a device, and its driver (libcuda.so.1) cannot be loaded", "install NVIDIA's driver"
    if not evidence.built:
        return "a driver is there, and this TensorFlow was built without CUDA", "pip install 'tensorflow[and-cuda]'"
    if evidence.missing:
        text = f"a driver is there, and CUDA libraries are not: {', '.join(evidence.missing)}"
        return text, "pip install 'tensorflow[and-cuda]'"
    if not evidence.device:
        return "a driver library and no device", "start the container with its GPU (docker: --gpus all)"
    advice = "nvidia-smi shows the driver's version; update it, and see the log with TF_CPP_MIN_LOG_LEVEL=0"
    return "device, driver and libraries are there, and TensorFlow still cannot use them", advice


def examine(*, import_tensorflow: Callable[[], None]) -> Iterator[Finding]:
    """Look at everything; `import_tensorflow` may raise anything."""
    yield _found("versions", lambda: versions_finding(requirements(PACKAGE)))
    yield _found("machine", machine_finding)
    yield _found("cache", cache_finding)
    yield _found("weights", weights_finding)
    yield _found("extras", lambda: extras_finding(extras()))
    try:
        import_tensorflow()
    except Exception as error:
        advice = "install it again: pip install --force-reinstall tensorflow"
        advice = "raise the limit that is named" if isinstance(error, OutOfMemoryError) else advice
        yield Finding("tensorflow", "problem", f"cannot be imported: {_first_line(error)}", advice)
        return
    yield _found("gpu", lambda: gpu_finding(gather()))
    yield _found("arithmetic", arithmetic_finding)


def weights_finding() -> Finding:
    """The known weight files that are here."""
    found = found_files()
    named, *_ = folders = search_folders()
    facts = {"folders": [str(folder) for folder in folders], "found": {name: str(path) for name, path in found.items()}}
    searched = ", ".join(str(folder.resolve()) for folder in folders)
    files = "\n".join(f"{name:<32}{path}" for name, path in found.items()) or "none of the known files"
    text = f"searched in {searched}; Keras' own in {keras_cache()}\n{files}"
    if len(folders) > 1 and not named.is_dir():
        return Finding("weights", "problem", f"{SEARCH_VARIABLE}={named} is no folder\n{text}", "correct it", facts)
    advice = "" if found else f"only where you need them; {SEARCH_VARIABLE} names the folder that holds yours"
    return Finding("weights", "ok" if found else "note", text, advice, facts)


def _found(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # what the doctor cannot see is worth a line, and no reason to stop looking
        return Finding(subject, "problem", f"cannot be examined: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
