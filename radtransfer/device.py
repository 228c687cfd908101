"""What the machine offers, and the arithmetic chosen for it."""

import os
import platform
from dataclasses import dataclass

from radtransfer.environment import onednn_in_use
from radtransfer.settings import SystemSettings


@dataclass(frozen=True)
class Device:
    """The resolved choices of a run.

    Attributes:
        name: "GPU" or "CPU", with its model where the system tells it.
        precision: Keras dtype policy.
        jit: Whether the step is compiled with XLA.
        onednn: Whether operations on the CPU are computed by oneDNN.
        workers: Images decoded in parallel.
    """

    name: str
    precision: str
    jit: bool
    onednn: bool
    workers: int


def resolve_device(settings: SystemSettings) -> Device:
    """Choose precision and compilation for the device found.

    A GPU gets XLA and mixed precision: bfloat16 from compute capability 8 on, float16 before. A CPU gets float32
    without XLA, whatever the network. Measured on two cores (TensorFlow 2.21, batch 8, processor time of a training
    step with XLA, as a multiple of one without): CBR-Small 1.9, CBR-Tiny 2.1 (224 px), ResNet50 1.4–1.9 (64 px); the
    first step takes 4–5 times as long. bfloat16 without XLA takes 2.5–10 times as long as float32.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name, precision = f"{len(gpus)} GPU, {details.get('device_name', 'unknown')}", _gpu_precision(details)
    else:
        name, precision = f"CPU, {os.cpu_count()} cores, {platform.machine()}", "float32"
    return Device(
        name=name,
        precision=precision if settings.precision == "auto" else settings.precision,
        jit=bool(gpus) if settings.jit == "auto" else settings.jit,
        onednn=onednn_in_use(),
        workers=usable_cores() if settings.workers == "auto" else settings.workers,
    )


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """What made a result: this package, Python and every library that touches numbers."""
    import h5py
    import keras
    import numpy
    import PIL
    import sklearn
    import tensorflow as tf

    from radtransfer import __version__

    modules = {
        "tensorflow": tf,
        "keras": keras,
        "numpy": numpy,
        "scikit-learn": sklearn,
        "h5py": h5py,
        "pillow": PIL,
    }
    return {
        "radtransfer": __version__,
        "python": platform.python_version(),
        **{name: module.__version__ for name, module in modules.items()},
    }


def _gpu_precision(details: dict) -> str:
    return "mixed_bfloat16" if details.get("compute_capability", (0, 0))[0] >= 8 else "mixed_float16"
