"""What of the user's settings reaches Keras and TensorFlow: decided here, and nowhere else.

Keras reads its data format, float type, epsilon, backend and debugging limits from `keras.json` and from variables
when it is imported, and a notebook can change them, and the dtype policy, at any time. Each would change the numbers
of a run, or break it.

* A process of ours (a command, a worker of a study) calls `pin_variables` first and imports Keras by `import_keras`:
  no file or variable of the user counts, except that `TF_ENABLE_ONEDNN_OPTS` overrides our choice.
* In a notebook Keras belongs to the user. What builds or runs networks does so under `keras_defaults`, which gives
  the user's settings back afterwards.
* A process that runs plain Keras for us starts with `clean_variables`.

Where a limit leaves TensorFlow too little memory to start, it ends the process by a signal: that is told before.

Besides: the device and its arithmetic, random streams derived from one seed, threads, `Progress`, and how a process of
ours ends within two seconds of Ctrl-C or SIGTERM. Python raises KeyboardInterrupt in the main thread between two of its
instructions: not while TensorFlow computes, which for the first step of a large network takes many seconds. So another
thread waits for the signal too (`exit_after_signal`, which a notebook never calls). If the process is still there a
moment later, that thread deletes what is half written, says how to go on, and ends the process; the same command goes
on from what is left.
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
"""Variables that change numbers, as they are in our processes; None is unset."""


_NO_FILE = {"KERAS_HOME": os.devnull}  # where Keras neither reads nor writes a `keras.json`

_DEFAULTS: Mapping[str, Any] = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
    "dtype_policy": "float32",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}
"""Settings of `keras.config`, as Keras ships them."""

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""Whether TensorFlow computes with oneDNN on a CPU; it reads this once, when it is imported."""

ONEDNN_CHOSEN = "RADTRANSFER_CHOSE_ONEDNN"
"""The value of `ONEDNN`, if it is our choice and not the user's; processes that we start inherit both."""

CPUINFO = Path("/proc/cpuinfo")


_NEEDED = {"RLIMIT_AS": (2_450_000_000, 0, "-v"), "RLIMIT_DATA": (600_000_000, 5, "-d")}
"""Bytes that must be free below each limit, the column of /proc/self/statm with what is used, and the `ulimit` option.

Measured on two cores with TensorFlow 2.21, as what a run of cbr_tiny takes: an address space of 2.46 GB in all ends it
by a signal, 2.66 GB are enough; so are 0.82 GB of data, and 0.61 GB are not.
"""

_PER_CORE = 50_000_000  # bytes for the stacks of the threads that TensorFlow starts for each further core

_importer: Callable[[], None] | None = None


def pin_variables() -> None:
    """Pin the variables of this process, which runs nothing but radtransfer, and of those that it starts.

    oneDNN is used on every processor with AVX2 and FMA; the README has what was measured. TensorFlow leaves it off
    where instructions for neural networks (VNNI, BF16, AMX) are missing. Other processors and systems were not
    measured: they keep TensorFlow's default, and a variable of the user's stays. Whatever imports TensorFlow in this
    process from now on, `check_limits` is called first.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _set_variables(_PINNED)
    if not os.environ.get(ONEDNN) and {"avx2", "fma"} <= _processor_flags():
        os.environ |= {ONEDNN: "1", ONEDNN_CHOSEN: "1"}
    if not any(isinstance(finder, _LimitsFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LimitsFirst())


class _LimitsFirst(MetaPathFinder):
    """Finds nothing, and is asked before TensorFlow is."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "tensorflow":
            check_limits()


def check_limits() -> None:
    """See that the limits of this process leave TensorFlow the memory that it needs to start."""
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
                f"TensorFlow needs {needed / 1e9:.1f} GB of memory to start, and of the {limit / 1e9:.2f} GB that this "
                f"process may have (ulimit {option}) {max(limit - used, 0) / 1e9:.2f} GB are free. Raise the limit, "
                f"with `ulimit {option} unlimited` or in the settings of the job."
            )


def clean_variables() -> dict[str, str]:
    """The environment of a process that runs plain Keras for us."""
    values = {**os.environ, **_PINNED, **_NO_FILE}
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Have these values in the environment while the block runs; None is unset."""
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def import_keras() -> None:
    """Import Keras with the settings that it ships with, for good: this process runs nothing but radtransfer.

    The user's `keras.json` is neither read nor written.
    """
    if "keras" not in sys.modules:
        with variables({**_PINNED, **_NO_FILE}):
            import keras  # noqa: F401
        # Downloads still belong in the user's folder.
        sys.modules["keras.src.backend.config"]._KERAS_DIR = str(keras_home())
    _check_backend()
    _set_keras(_DEFAULTS)


def import_by(importer: Callable[[], None]) -> None:
    """Let `importer` import Keras and TensorFlow in this process, which runs nothing but radtransfer, when needed."""
    global _importer
    _importer = importer


def require_keras() -> None:
    """Import Keras with the user's settings, on TensorFlow, if the user has not imported it yet.

    Called after everything that can be checked without: it takes seconds.

    Raises:
        ConfigError: It is imported and runs on another backend.
        OutOfMemoryError: A limit leaves TensorFlow too little memory to start.
    """
    if "keras" not in sys.modules and _importer is not None:
        _importer()
    if "keras" in sys.modules:
        _check_backend()
        return
    if "tensorflow" not in sys.modules:
        check_limits()
    try:
        with variables({"KERAS_BACKEND": "tensorflow"}):
            import keras  # noqa: F401
    except Exception:  # what Keras raises over a keras.json or a variable that it cannot use
        for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
            del sys.modules[name]
        import_keras()


@contextlib.contextmanager
def keras_defaults() -> Iterator[None]:
    """Have Keras' settings as it ships them while the block runs, then the caller's again; also a decorator."""
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
    """Whether TensorFlow really computes with oneDNN on the CPU of this process, whatever the variables say now."""
    # TensorFlow has no public name for it.
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()


def onednn_decided_by() -> Literal["radtransfer", "user", "tensorflow"]:
    """Who says whether this process computes with oneDNN."""
    value = os.environ.get(ONEDNN, "").lower()
    if value and value == os.environ.get(ONEDNN_CHOSEN):
        return "radtransfer"
    # TensorFlow ignores all other values.
    return "user" if value in ("0", "false", "1", "true") else "tensorflow"


def onednn_by_default() -> bool:
    """Whether TensorFlow uses oneDNN on this Linux processor if nobody tells it otherwise."""
    return bool(_processor_flags() & {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"})


def keras_home() -> Path:
    """The user's folder of Keras, where it keeps what it downloads."""
    # Path.expanduser raises an error for a user without a home.
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))  # noqa: PTH111


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _processor_flags() -> set[str]:
    """What a Linux system says of an x86 processor; empty elsewhere."""
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
            f"radtransfer needs Keras on TensorFlow, and this Python has imported Keras with the backend {backend}. "
            "Start Python again, and set KERAS_BACKEND=tensorflow before Keras is imported."
        )


@dataclass(frozen=True)
class Device:
    """The resolved choices of a run; `precision` is a Keras dtype policy, `workers` decode images in parallel."""

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
        name = f"{len(gpus)} GPU, {details.get('device_name', 'unknown')}"
        precision = "mixed_bfloat16" if details.get("compute_capability", (0, 0))[0] >= 8 else "mixed_float16"
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
    """Have `action` called, in another thread, if the process is ended while the block runs and cannot be left."""
    entry = [action]
    _actions.append(entry)
    try:
        yield
    finally:
        _actions[:] = [other for other in _actions if other is not entry]


def exit_after_signal(grace: float, *, last: Callable[[], object] = lambda: None) -> None:
    """End this process `grace` seconds after SIGINT or SIGTERM, as far as Python handles them; to be called once.

    `last` is called in the end.
    """
    _actions.append([last])
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def act() -> None:
        for (action,) in reversed(list(_actions)):  # the latest first, as when the blocks are left
            with contextlib.suppress(Exception):
                action()

    def wait_and_end() -> None:
        while os.read(heard, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        time.sleep(grace)
        last_actions = threading.Thread(target=act, daemon=True)
        last_actions.start()
        last_actions.join(0.4)  # seconds: one of them may wait for something that the main thread holds
        os._exit(INTERRUPTED)

    threading.Thread(target=wait_and_end, daemon=True).start()


Item, Result = TypeVar("Item"), TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Generator[list[Result], None, None]:
    """What `work` gives for each item, in order, a batch at a time; whoever stops early closes the generator."""
    batches = [items[start : start + 16] for start in range(0, len(items), 16)]
    executor = ThreadPoolExecutor(workers)
    try:
        yield from executor.map(lambda batch: [work(item) for item in batch], batches)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def all_in_parallel(work: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> list[Result]:
    """What `work` gives for each item, in order; see `in_parallel`."""
    return [result for batch in in_parallel(work, items, workers=workers) for result in batch]


class Progress:
    """Told what a job does. This one is a no-op; the command line and notebooks override its methods."""

    def plan(self, rows: Mapping[str, str]) -> None:
        """The plan block, before the first step: a title and a line of text for each aspect."""

    def note(self, text: str) -> None:
        """Something the user should know, one sentence."""

    def warning(self, text: str) -> None:
        """Something that makes results wrong, one sentence; a note for those who do not tell the two apart."""
        self.note(text)

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` pieces of `what` ("images checked", "fold 1/5 epoch 2/50") are ready."""

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        """An epoch ended; `row` is its line of `history.csv`, with `best` (so far) and `seconds`."""

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        """A fold ended with these test metrics."""


@dataclass(frozen=True)
class EpochReporter:
    """Tells `progress` of the steps and epochs of one fold."""

    progress: Progress
    fold: int
    folds: int
    epochs: int

    def step(self, epoch: int, done: int, steps: int) -> None:
        self.progress.count(f"fold {self.fold}/{self.folds} epoch {epoch}/{self.epochs}", done, steps)

    def epoch(self, row: Mapping[str, Any], *, best: bool, seconds: float) -> None:
        self.progress.epoch(self.fold, self.folds, self.epochs, {**row, "best": best, "seconds": seconds})
