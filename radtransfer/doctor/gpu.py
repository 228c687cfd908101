"""Whether TensorFlow sees a GPU, and if not, why not."""

import ctypes
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from radtransfer.doctor.finding import Finding
from radtransfer.doctor.software import requirements

HIDING = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class GpuEvidence:
    """What decides whether there is a GPU.

    Attributes:
        seen: Names of the GPUs that TensorFlow sees.
        system: `sys.platform`.
        visible: Value of CUDA_VISIBLE_DEVICES; None if not set.
        device: Whether the system has an NVIDIA device.
        driver: Whether NVIDIA's driver library can be loaded.
        built: Whether this TensorFlow was built with CUDA.
        missing: CUDA libraries that this TensorFlow takes from pip and that are not installed.
    """

    seen: tuple[str, ...]
    system: str
    visible: str | None
    device: bool
    driver: bool
    built: bool
    missing: tuple[str, ...]


def gather() -> GpuEvidence:
    """Look; imports TensorFlow."""
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return GpuEvidence(
        seen=tuple(str(item.get("device_name", "GPU")) for item in details),
        system=sys.platform,
        visible=os.environ.get(HIDING),
        device=Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists(),
        driver=_can_load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"),
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
    if evidence.visible is not None and not _any_allowed(evidence.visible):
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


def _any_allowed(visible: str) -> bool:
    """CUDA takes the devices in order and stops at the first that it does not know."""
    first = visible.split(",")[0].strip()
    return bool(first) and not first.startswith("-") and first.lower() not in ("none", "void", "nodevfiles")


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
