"""Kill runs and studies at many moments, go on with them, and compare with those that nobody disturbed.

    python tests/kill_harness.py --kills 60 [--seed 0] [--fork] [--job finetune|head|study]…

A run is started and killed, continued and killed again, and in the end left alone; then its tables must be the very
bytes, and its weights the very numbers, of the undisturbed run. Some processes are killed at a file operation of
theirs (the n-th time that they make, open, rename or delete something in the run's folder), which finds every gap
between two files; the others after a random time, which finds the middle of one. After each kill every file that
stands must be whole.
"""

import argparse
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
DEADLINE = 900
"""Seconds after which a process that does not end counts as hanging."""

_MOST_IN_A_ROW = 6
"""Kills of one run before it is left alone."""

_EVENTS = 170
"""File operations of a run of two folds and three epochs, about."""

_FREE_TABLES = ("table.csv", "table.json")
"""They hold times, which differ; what they say of results is compared through the runs themselves."""


@dataclass(frozen=True)
class Job:
    """A command that is killed and repeated.

    Attributes:
        name: Of the job.
        begin: What starts it, given the folder of its results.
        again: What goes on with it.
    """

    name: str
    begin: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]


@dataclass(frozen=True)
class Kill:
    """When and how a process is killed: at its `event`-th file operation, or after `seconds`."""

    how: str
    event: int | None = None
    seconds: float | None = None


@dataclass
class Tally:
    """What was survived."""

    kills: Counter = field(default_factory=Counter)
    runs: int = 0
    processes: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        return f"{sum(self.kills.values())} kills ({kinds}) of {self.runs} runs, all continued to the identical result"


def jobs(data: Path, *, source: Path, epochs: int = 3, size: int = 32) -> dict[str, Job]:
    """The jobs on the images of `data`, a folder with images.csv and images/, by name; one starts from run `source`."""
    network = ["--backbone", "cbr_tiny", "--image-size", str(size), "--batch-size", "8", "--learning-rate", "1e-3"]
    where = ["--data", str(data / "images.csv"), "--image-root", str(data / "images")]
    common = ["finetune", *where, *network, "--epochs", str(epochs), "--folds", "2", "--eval-every", "2"]

    def finetune(*more: str) -> tuple[Callable, Callable]:
        return (
            lambda out: [*common, *more, "--out", str(out)],
            lambda out: [*common, *more, "--out", str(out), "--resume"],
        )

    def study(out: Path) -> list[str]:
        folders = ["--out", str(out / "study"), "--runs", str(out / "store"), "--jobs", "2"]
        return ["study", str(data / "study.yaml"), *folders]

    (data / "study.yaml").write_text(_study(data, size=size), encoding="utf-8")
    frozen = ("--weights", str(source / "fold_1"), "--scheme", "freeze_then_unfreeze", "--augmentation", "none")
    return {
        "finetune": Job("finetune", *finetune()),
        "head": Job("head", *finetune(*frozen)),
        "study": Job("study", study, study),
    }


def survive(job: Job, whole: Path, work: Path, kills: Sequence[Kill], tally: Tally, *, start: Callable) -> None:
    """Start, kill and continue one run as `kills` says, leave it alone, and compare it with the undisturbed `whole`.

    Raises:
        AssertionError: Something was lost, half-written, or differs.
    """
    out = work / f"{job.name}-{tally.runs}"
    arguments = job.begin(out)
    for kill in kills:
        code, output, entered = start(arguments, out, kill)
        tally.processes += 1
        if code == 0:
            break
        assert code in (130, -getattr(signal, kill.how)), (kill, code, output)
        if code == 130:
            assert "Traceback" not in output, output
            # While TensorFlow is imported there is nothing yet to go on with.
            assert not entered or "go on with: radtransfer" in output, output
        tally.kills[f"{kill.how} at a {'file operation' if kill.event else 'random time'}"] += 1
        check_whole(out)
        arguments = job.again(out)
    code, output, _ = start(job.again(out), out, None)
    assert code == 0, output
    tally.processes += 1
    tally.runs += 1
    check_whole(out)
    check_equal(out, whole)


def check_whole(out: Path) -> None:
    """See that every file with a result's name can be read to its end."""
    for path in sorted(out.rglob("*")):
        if path.name.startswith(".part-") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            text = path.read_text(encoding="utf-8")
            assert text.endswith("\n"), path
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1, path
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name] is not None for name in arrays.files)
        elif path.suffix in (".keras", ".h5"):
            assert list(weights_of(path)), path


def check_equal(out: Path, whole: Path) -> None:
    """See that two folders hold the same results, bit for bit, and nothing that is left over."""
    found, expected = (sorted(_results(folder)) for folder in (out, whole))
    assert found == expected
    for name in expected:
        one, other = out / name, whole / name
        if name.endswith((".keras", ".h5")):
            pairs = zip(weights_of(one), weights_of(other), strict=True)
            assert all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs), name
        elif name.endswith("run.json"):
            assert [json.loads(path.read_text())["status"] for path in (one, other)] == ["finished"] * 2
        else:
            assert one.read_bytes() == other.read_bytes(), name
    left = [path for path in out.rglob("*") if path.name.startswith(".part-") or path.suffix == ".npz"]
    assert not left, left


def weights_of(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every array in a model file by its place."""
    content: Path | io.BytesIO = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
    found = []
    with h5py.File(content) as file:
        file.visititems(lambda name, item: found.append((name, item[()])) if isinstance(item, h5py.Dataset) else None)
    return iter(found)


def _results(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.name in _FREE_TABLES or not path.is_file():
            continue
        if path.suffix in (".csv", ".keras", ".h5") or path.name in ("metrics.json", "run.json"):
            yield name


# What runs in the killed process: it counts what it does in the folder, and kills itself in time.
_CHILD = """
import os, signal, sys

folder, moment, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
seen = 0


def count(event, arguments):
    global seen
    opens = event == "open" and arguments[1] not in (None, "r", "rb")
    if (opens or event in ("os.rename", "os.remove", "os.mkdir")) and str(arguments[0]).startswith(folder):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), how)


if moment:
    sys.addaudithook(count)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
del sys.argv[1:4]
from radtransfer.cli.main import main

main()
"""


def start_fresh(arguments: list[str], folder: Path, kill: Kill | None) -> tuple[int, str, bool]:
    """Exit code and stderr of a new interpreter that runs the command line, killed as `kill` says; and if it began."""
    how = int(getattr(signal, kill.how)) if kill else 0
    child = [sys.executable, "-c", _CHILD, str(folder), str((kill and kill.event) or 0), str(how), *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(child, stdout=subprocess.DEVNULL, stderr=output)
        return *_wait(process.pid, process.wait, kill, output), _entered(folder, process.pid)


def start_forked(arguments: list[str], folder: Path, kill: Kill | None) -> tuple[int, str, bool]:
    """The same in a copy of this process, which has imported TensorFlow and done nothing with it."""
    how = int(getattr(signal, kill.how)) if kill else 0
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            os.dup2(output.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ["", str(folder), str((kill and kill.event) or 0), str(how), *arguments]
            try:
                exec(compile(_CHILD, "child", "exec"), {"__name__": "child"})
            except SystemExit as leaving:
                sys.stderr.flush()
                os._exit(leaving.code or 0)
            finally:
                os._exit(1)
        return *_wait(pid, lambda timeout: _waited(pid, timeout), kill, output), _entered(folder, pid)


def _entered(folder: Path, pid: int) -> bool:
    """Whether the process came so far that it held the folder."""
    locks = (folder / ".lock", folder / "study" / ".lock")
    return any(lock.is_file() and f"process {pid} on" in lock.read_text(encoding="utf-8") for lock in locks)


def _waited(pid: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    raise subprocess.TimeoutExpired("forked", timeout)


def _wait(pid: int, wait: Callable, kill: Kill | None, output) -> tuple[int, str]:
    try:
        if kill is not None and kill.seconds is not None:
            try:
                code = wait(timeout=kill.seconds)
            except subprocess.TimeoutExpired:
                os.kill(pid, getattr(signal, kill.how))
                code = wait(timeout=DEADLINE)
        else:
            code = wait(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"hangs: {kill}") from None
    output.seek(0)
    return code, output.read().decode("utf-8", "replace")


def drawn_kills(chance: random.Random, *, events: int, seconds: float) -> list[Kill]:
    """Some kills in a row: of a run that takes so many file operations and seconds, and less whenever it goes on."""
    kills = []
    for number in range(chance.randint(2, _MOST_IN_A_ROW)):
        how = chance.choice(SIGNALS)
        if chance.random() < 0.6 and events:
            kills.append(Kill(how, event=chance.randint(1, max(events // (number + 1), 3))))
        else:
            kills.append(Kill(how, seconds=seconds * chance.uniform(0.2, 0.9)))
    return kills


def write_images(folder: Path, *, count: int = 24, size: int = 32) -> None:
    """Grey squares, every other patient's with a bright spot, and their table."""
    from PIL import Image

    rng, rows = np.random.default_rng(0), [["path", "label", "patient"]]
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 200, (size, size), np.uint8)
        if i // 2 % 2:
            pixels[4:14, 6:16] = np.minimum(pixels[4:14, 6:16] + 40, 255)
        Image.fromarray(pixels).save(folder / "images" / f"{i:02d}.png")
        rows.append([f"{i:02d}.png", ("well", "sick")[i // 2 % 2], f"p{i // 2}"])
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


def _study(data: Path, *, size: int) -> str:
    return f"""
study: {{name: killed, title: Killed and continued}}
base:
  data: {{source: {data / "images.csv"}, image_root: {data / "images"}}}
  splits: {{folds: 1}}
  model: {{backbone: cbr_tiny, image_size: {size}}}
  training: {{epochs: 2, batch_size: 8, learning_rate: 0.001}}
arms:
  scratch: {{}}
  transfer: {{model.weights: "source:natural"}}
sources:
  natural:
    data: {{source: {data / "images.csv"}, image_root: {data / "images"}}}
    splits: {{folds: 1}}
    model: {{image_size: {size}}}
    training: {{epochs: 1, batch_size: 8, learning_rate: 0.001}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="at least so many  [default: 60]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fork", action="store_true", help="fork one process that has imported TensorFlow: faster")
    parser.add_argument("--job", action="append", choices=("finetune", "head", "study"))
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    start = start_fresh
    if given.fork:
        import radtransfer.finetune  # noqa: F401

        start = start_forked
    chance, tally = random.Random(given.seed), Tally()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["RADTRANSFER_CACHE"] = str(work / "cache")
        write_images(work / "data")
        known, measured = jobs(work / "data", source=work / "source"), {}
        chosen = [known[name] for name in given.job or known]
        if any(job.name == "head" for job in chosen):
            run_undisturbed(Job("source", known["finetune"].begin, known["finetune"].again), work / "source", start)
        for job in chosen:
            began = time.monotonic()
            run_undisturbed(job, work / f"whole-{job.name}", start)
            measured[job.name] = time.monotonic() - began
            print(f"{job.name}: undisturbed in {measured[job.name]:.0f} s", flush=True)
        while sum(tally.kills.values()) < given.kills:
            job = chosen[(0, 1, 0, 2)[tally.runs % 4] % len(chosen)]  # a study takes long
            began, before = time.monotonic(), tally.processes
            kills = drawn_kills(chance, events=0 if job.name == "study" else _EVENTS, seconds=measured[job.name])
            survive(job, work / f"whole-{job.name}", work, kills, tally, start=start)
            # A busy machine becomes idle, and then kills would come too late.
            measured[job.name] = min(measured[job.name], 2 * (time.monotonic() - began) / (tally.processes - before))
            print(tally, flush=True)


def run_undisturbed(job: Job, out: Path, start: Callable) -> None:
    """Run `job` from its beginning to its end."""
    code, output, _ = start(job.begin(out), out, None)
    assert code == 0, output


if __name__ == "__main__":
    main()
