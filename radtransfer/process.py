"""The configuration of Keras and TensorFlow, the device, seeds, threads, `Progress`, and exit after signals.

Keras reads its data format, float type, epsilon, backend and debugging limits from `keras.json` and environment
variables, and notebooks can change them and the dtype policy. Each would change the numbers of a run, or break it.

* Our own processes (commands, workers of a study) call `pin_variables` and import Keras by `import_keras`: user
  settings are ignored, except `TF_ENABLE_ONEDNN_OPTS`.
* In a notebook, models are built and run under `keras_defaults`, which restores the user's settings.
* Processes that run plain Keras for us start with `clean_variables`.

Python raises KeyboardInterrupt only between its instructions, not while TensorFlow computes, perhaps for many seconds.
So in our processes another thread (`exit_after_signal`) also waits for Ctrl-C or SIGTERM, deletes unfinished files and
ends the process within two seconds; the same command continues from there.
"""

import contextlib
import hashlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, Literal, TypeVar

from radtransfer.config.schema import SystemSettings
from radtransfer.errors import INTERRUPTED, ConfigError, OutOfMemoryError

_PINNED: Mapping[str, str | None] = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "KERAS_NNX_ENABLED": None,
    "TF_USE_LEGACY_KERAS": "0",
}
"""Environment variables of our processes that affect results; None is unset."""

_NO_FILE = {"KERAS_HOME": os.devnull}  # so that Keras has no `keras.json`

_DEFAULTS: Mapping[str, Any] = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
    "dtype_policy": "float32",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
"""Defaults of `keras.config`."""

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"  # whether TensorFlow uses oneDNN on a CPU; read at its import
ONEDNN_CHOSEN = "RADTRANSFER_CHOSE_ONEDNN"  # the value of `ONEDNN` if chosen by us; inherited by subprocesses
CPUINFO = Path("/proc/cpuinfo")

_NEEDED = {"RLIMIT_AS": (2_450_000_000, 0, "-v"), "RLIMIT_DATA": (600_000_000, 5, "-d")}
"""Free bytes needed below each limit, column of /proc/self/statm with the used pages, and `ulimit` option.

Measured with TensorFlow 2.21 and cbr_tiny on two cores: 2.46 GB of address space are too few, 2.66 GB are enough; 0.61
GB of data are too few, 0.82 GB are enough.
"""

_PER_CORE = 50_000_000  # bytes of thread stacks of TensorFlow per further core

_importer: Callable[..., None] | None = None
_start_devices = True


def pin_variables() -> None:
    """Pin the environment variables of this process and its subprocesses; call `check_limits` before TensorFlow.

    oneDNN is enabled on every processor with AVX2 and FMA (measured, see README), where TensorFlow enables it only with
    VNNI, BF16 or AMX. Other processors keep TensorFlow's default, and a value set by the user stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _set_variables(_PINNED)
    if not os.environ.get(ONEDNN) and {"avx2", "fma"} <= _processor_flags():
        os.environ |= {ONEDNN: "1", ONEDNN_CHOSEN: "1"}
    if not any(isinstance(finder, _LimitsFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LimitsFirst())


class _LimitsFirst(MetaPathFinder):
    """Finds no module, but calls `check_limits` before the import of TensorFlow."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "tensorflow":
            check_limits()


def check_limits() -> None:
    """Raise OutOfMemoryError if limits of this process leave too little memory for the start of TensorFlow."""
    try:
        import resource

        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except (ImportError, OSError):  # not Linux
        return
    for name, (needed, column, option) in _NEEDED.items():
        needed += _PER_CORE * max(0, len(os.sched_getaffinity(0)) - 2)
        limit, used = resource.getrlimit(getattr(resource, name))[0], int(pages[column]) * resource.getpagesize()
        if limit != resource.RLIM_INFINITY and limit - used < needed:
            raise OutOfMemoryError(
                f"TensorFlow needs {needed / 1e9:.1f} GB of memory to start; of the {limit / 1e9:.2f} GB limit of this "
                f"process (ulimit {option}) {max(limit - used, 0) / 1e9:.2f} GB are free. Raise the limit with "
                f"`ulimit {option} unlimited` or in the settings of the job."
            )


def clean_variables() -> dict[str, str]:
    """The environment for a process with plain Keras."""
    values = {**os.environ, **_PINNED, **_NO_FILE}
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set these environment variables within the block; None is unset."""
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def import_keras() -> None:
    """Import Keras with its default settings, without the user's `keras.json`; for our own processes."""
    if "keras" not in sys.modules:
        with variables({**_PINNED, **_NO_FILE}):
            import keras  # noqa: F401
        # Downloads go to the user's folder.
        sys.modules["keras.src.backend.config"]._KERAS_DIR = str(keras_home())
    _check_backend()
    _set_keras(_DEFAULTS)


def import_by(importer: Callable[..., None]) -> None:
    """Let `importer` import Keras and TensorFlow in our own processes; `compute=True` also starts the devices."""
    global _importer, _start_devices
    _importer, _start_devices = importer, True


def importer() -> Callable[..., None]:
    """The function that imports Keras and TensorFlow, for subprocesses."""
    return _importer or import_keras


def leave_devices() -> None:
    """Let `require_keras` start no device, as distributed training configures them first."""
    global _start_devices
    _start_devices = False


def require_keras() -> None:
    """Import Keras on TensorFlow, which takes seconds, unless it is imported.

    Raises:
        ConfigError: Keras runs on another backend.
        OutOfMemoryError: A limit leaves TensorFlow too little memory to start.
    """
    if "keras" not in sys.modules and _importer is not None:
        _importer(compute=_start_devices)
    if "keras" in sys.modules:
        _check_backend()
        return
    if "tensorflow" not in sys.modules:
        check_limits()
    try:
        with variables({"KERAS_BACKEND": "tensorflow"}):
            import keras  # noqa: F401
    except Exception:  # an invalid keras.json or variable
        for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
            del sys.modules[name]
        import_keras()


@contextlib.contextmanager
def keras_defaults() -> Iterator[None]:
    """Use the default settings of Keras within the block; also a decorator."""
    require_keras()
    import keras

    before = {name: getattr(keras.config, name)() for name in _DEFAULTS}
    _set_keras(_DEFAULTS)
    try:
        with variables(_PINNED):  # KerasCV reads TF_USE_LEGACY_KERAS when it is imported
            yield
    finally:
        _set_keras(before)


def onednn_in_use() -> bool:
    """Whether TensorFlow uses oneDNN in this process."""
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()


def onednn_decided_by() -> Literal["radtransfer", "user", "tensorflow"]:
    """Who decided whether this process uses oneDNN."""
    value = os.environ.get(ONEDNN, "").lower()
    if value and value == os.environ.get(ONEDNN_CHOSEN):
        return "radtransfer"
    # TensorFlow ignores all other values.
    return "user" if value in ("0", "false", "1", "true") else "tensorflow"


def onednn_by_default() -> bool:
    """Whether TensorFlow uses oneDNN by default on this processor (Linux)."""
    return bool(_processor_flags() & {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"})


def keras_home() -> Path:
    """The user's Keras folder, for downloads."""
    # Path.expanduser raises an error without a home folder.
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))  # noqa: PTH111


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _processor_flags() -> set[str]:
    """Flags of an x86 processor on Linux; empty elsewhere."""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            return set(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return set()


def _set_keras(values: Mapping[str, Any]) -> None:
    import keras

    for name, value in values.items():
        getattr(keras.config, f"set_{name}")(value)


def _check_backend() -> None:
    import keras

    if (backend := keras.config.backend()) != "tensorflow":
        raise ConfigError(
            f"radtransfer needs Keras on TensorFlow, but Keras was imported with the backend {backend}. "
            "Restart Python and set KERAS_BACKEND=tensorflow before the import of Keras."
        )


@dataclass(frozen=True)
class Device:
    """Resolved `SystemSettings`; `precision` is a Keras dtype policy."""

    name: str
    precision: str
    jit: bool
    onednn: bool
    workers: int


def resolve_device(settings: SystemSettings) -> Device:
    """Choose precision and XLA for the device.

    A GPU gets XLA and mixed precision: bfloat16 from compute capability 8, float16 before. A CPU gets float32 without
    XLA: on two cores (TensorFlow 2.21, batch 8) a training step with XLA takes 1.4–2.1 times as long (CBR, ResNet50),
    the first step 4–5 times, and bfloat16 without XLA 2.5–10 times.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = f"{len(gpus)} GPU, {details.get('device_name', 'unknown')}"
        precision = "mixed_bfloat16" if details.get("compute_capability", (0, 0))[0] >= 8 else "mixed_float16"
    else:
        name, precision = f"CPU, {os.cpu_count()} cores, {platform.machine()}", "float32"
    return Device(
        name=name,
        precision=precision if settings.precision == "auto" else settings.precision,
        jit=bool(gpus) if settings.jit == "auto" else settings.jit,
        onednn=onednn_in_use(),
        workers=workers_of(settings),
    )


def usable_cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_of(settings: SystemSettings) -> int:
    """Number of images decoded in parallel."""
    return usable_cores() if settings.workers == "auto" else settings.workers


def versions() -> dict[str, str]:
    """Versions of this package, Python and all libraries that affect results."""
    import h5py
    import keras
    import numpy
    import PIL
    import sklearn
    import tensorflow as tf

    from radtransfer import __version__

    return {
        "radtransfer": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "h5py": h5py.__version__,
        "pillow": PIL.__version__,
    }


def derive_seed(seed: int, *names: str | int) -> int:
    """A 31-bit seed that depends on `seed` and every name, and on nothing else."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


_actions: list[list[Callable[[], object]]] = []


@contextlib.contextmanager
def on_forced_exit(action: Callable[[], object]) -> Iterator[None]:
    """Call `action` in another thread if the process is forced to exit within the block."""
    entry = [action]
    _actions.append(entry)
    try:
        yield
    finally:
        _actions[:] = [other for other in _actions if other is not entry]


def exit_after_signal(grace: float, *, last: Callable[[], object] = lambda: None) -> None:
    """Exit `grace` seconds after SIGINT or SIGTERM, if they are handled by Python; call once. `last` is called last."""
    _actions.append([last])
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def act() -> None:
        for (action,) in reversed(list(_actions)):  # innermost block first
            with contextlib.suppress(Exception):
                action()

    def wait_and_end() -> None:
        while os.read(receiver, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        time.sleep(grace)
        last_actions = threading.Thread(target=act, daemon=True)
        last_actions.start()
        last_actions.join(0.4)  # seconds, as an action may wait for a lock of the main thread
        os._exit(INTERRUPTED)

    threading.Thread(target=wait_and_end, daemon=True).start()


Item, Result = TypeVar("Item"), TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Generator[list[Result], None, None]:
    """Results of `work` in order, in batches; close the generator to stop early."""
    batches = [items[start : start + 16] for start in range(0, len(items), 16)]
    executor = ThreadPoolExecutor(workers)
    try:
        yield from executor.map(lambda batch: [work(item) for item in batch], batches)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def all_in_parallel(work: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> list[Result]:
    """Results of `work` for all items, in order."""
    return [result for batch in in_parallel(work, items, workers=workers) for result in batch]


class Progress:
    """Callbacks of a job, here no-ops; overridden by the command line and notebooks."""

    def plan(self, rows: Mapping[str, str], short: Mapping[str, str] | None = None) -> None:
        """The plan, before the first step: titles and texts; `short` has a few short lines."""

    def note(self, text: str) -> None:
        """A sentence for the user."""

    def warning(self, text: str) -> None:
        """A sentence on something that makes results wrong; a note by default."""
        self.note(text)

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of `what` ("images checked", "fold 1/5 epoch 2/50") are finished."""

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        """An epoch ended; `row` is its line of `history.csv`, with `best` (so far) and `seconds`."""

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        """A fold ended with these test metrics."""

    def run_started(self, run: Any) -> None:
        """A study computes this `PlannedRun`."""

    def study_changed(self, state: Any) -> None:
        """A run of a study started, reported progress or ended; `state` is the `StudyState`."""

    def run_ended(self, state: Any, run: Any, outcome: Any) -> None:
        """A run of a study ended with this `Outcome`."""

    def clear(self) -> None:
        """Remove what is only shown for the moment, such as a bar."""


@dataclass(frozen=True)
class EpochReporter:
    """Reports the steps and epochs of one fold to `progress`."""

    progress: Progress
    fold: int
    folds: int
    epochs: int

    def step(self, epoch: int, done: int, steps: int) -> None:
        self.progress.count(f"fold {self.fold}/{self.folds} epoch {epoch}/{self.epochs}", done, steps)

    def epoch(self, row: Mapping[str, Any], *, best: bool, seconds: float) -> None:
        self.progress.epoch(self.fold, self.folds, self.epochs, {**row, "best": best, "seconds": seconds})
