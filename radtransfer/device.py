"""What the machine offers, and the arithmetic chosen for it."""

import os
import platform
from dataclasses import dataclass

from radtransfer.settings import SystemSettings


@dataclass(frozen=True)
class Device:
    """The resolved choices of a run.

    Attributes:
        name: "GPU" or "CPU", with its model where the system tells it.
        precision: Keras dtype policy.
        jit: Whether the step is compiled with XLA.
        workers: Images decoded in parallel.
    """

    name: str
    precision: str
    jit: bool
    workers: int


def resolve_device(settings: SystemSettings) -> Device:
    """Choose precision and compilation for the device found.

    A GPU gets XLA and mixed precision: bfloat16 from compute capability 8 on, float16 before. A CPU gets
    float32 without XLA: measured there, XLA made a ResNet50 step 1.4–1.9 times slower (a CBR step 0.85–1.1
    times as long), and bfloat16 without XLA 2.5–10 times.
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
