"""Kill commands at many moments, repeat them, and compare with those that nobody disturbed.

    python tests/kill_harness.py --kills 100 [--seed 0] [--fork] [--job NAME]…

A command is started and killed, repeated and killed again, and in the end left alone; then its tables must be the very
bytes, and its weights the very numbers, of the undisturbed command. Some processes are killed at a file operation of
theirs (the n-th time that they make, open, rename or delete something in the folder of the results), which finds every
gap between two files; the others after a random time, which finds the middle of one. Of a study a worker may be
killed instead of the parent. After each kill every file that stands must be whole and no process may stay; a command
that does not go on where it stopped has written all of its results or none.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import random
import shutil
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
import warm_process

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
DEADLINE = 900
"""Seconds after which a process that does not end counts as hanging."""

_MOST_IN_A_ROW = 6
"""Kills of one run before it is left alone."""

_FREE = (".lock", "config.yaml", "study.yaml", "table.csv", "table.json")
"""Files that hold places, processes or times; what a study's tables say is compared through the runs themselves."""

_PATIENCE = 60
"""Seconds that the workers of a killed study have to end."""


@dataclass(frozen=True)
class Job:
    """A command that is killed and repeated.

    Attributes:
        name: Of the job.
        begin: The command line, given the folder of its results.
        again: The command line that repeats it after a kill.
        goes_on: Whether it keeps what it had; otherwise it writes all of its results or none.
    """

    name: str
    begin: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    goes_on: bool = True


@dataclass(frozen=True)
class Kill:
    """When and how a process is killed: at its `event`-th file operation, or after `seconds`; or one of its workers."""

    how: str
    event: int | None = None
    seconds: float | None = None
    worker: bool = False

    def __str__(self) -> str:
        moment = "a file operation" if self.event else "a random time"
        return f"{self.how}{' of a worker' if self.worker else ''} at {moment}"


@dataclass
class Tally:
    """What was survived."""

    kills: Counter = field(default_factory=Counter)
    jobs: Counter = field(default_factory=Counter)
    runs: int = 0
    processes: int = 0

    def __str__(self) -> str:
        kinds, names = (
            ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
            for counted in (self.kills, self.jobs)
        )
        return f"{sum(self.kills.values())} kills ({names}; {kinds}): {self.runs} results, all identical"


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

    def whole(name: str, file: str, *command: object, again: Sequence[str] = ()) -> Job:
        line = [name, *map(str, command), "--out"]
        return Job(
            name, lambda out: [*line, str(out / file)], lambda out: [*line, str(out / file), *again], goes_on=False
        )

    def prepare(out: Path) -> list[str]:
        return ["data", "prepare", *where[1:], "--image-size", str(size), "--out", str(out / "prepared")]

    (data / "study.yaml").write_text(_study(data, size=size), encoding="utf-8")
    frozen = ("--weights", str(source / "fold_1"), "--scheme", "freeze_then_unfreeze", "--augmentation", "none")
    found = [
        Job("finetune", *finetune()),
        Job("head", *finetune(*frozen)),
        Job("study", study, study),
        Job("prepare", prepare, prepare),
        whole("predict", "predictions.csv", source, data / "images", again=["--overwrite"]),
        whole("evaluate", "evaluated", source, *where, "--draws", "100", again=["--overwrite"]),
        whole("export", "model.keras", source, "--fold", "1", "--format", "keras"),
        whole("report", "report", source),
    ]
    return {job.name: job for job in found}


def survive(job: Job, whole: Path, work: Path, kills: Sequence[Kill], tally: Tally, *, start: Callable) -> None:
    """Start, kill and repeat one command as `kills` says, leave it alone, and compare it with the undisturbed `whole`.

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
        # A study that lost a worker tells which run failed.
        codes = (5, 6) if kill.worker else (130, -getattr(signal, kill.how))
        assert code in codes, (job.name, kill, code, output)
        assert "Traceback" not in output, output
        if code == 130:
            # While TensorFlow is imported there is nothing yet to go on with.
            assert not entered or "resume with: radtransfer" in output, output
        tally.kills[str(kill)] += 1
        tally.jobs[job.name] += 1
        check_whole(out)
        if not job.goes_on and any(_results(out)):
            check_equal(out, whole)
            shutil.rmtree(out) if job.name == "export" else None  # it never replaces anything
        arguments = job.again(out)
    if not (job.name == "export" and code == 0):
        code, output, _ = start(job.again(out), out, None)
    assert code == 0, output
    tally.processes += 1
    tally.runs += 1
    check_whole(out)
    check_equal(out, whole)
    left = [path for path in out.rglob("*") if path.name.startswith(".part-") or path.suffix == ".npz"]
    assert not left, left


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
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path


def check_equal(out: Path, whole: Path) -> None:
    """See that two folders hold the same results, bit for bit."""
    found, expected = (sorted(_results(folder)) for folder in (out, whole))
    assert found == expected
    for name in expected:
        one, other = out / name, whole / name
        if name.endswith((".keras", ".h5")):
            pairs = zip(weights_of(one), weights_of(other), strict=True)
            assert all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs), name
        elif name.endswith("run.json"):
            assert [json.loads(path.read_text())["status"] for path in (one, other)] == ["finished"] * 2
        elif name.endswith("provenance.json"):
            facts, others = (json.loads(path.read_text()) for path in (one, other))
            assert facts | {"prepared": ""} == others | {"prepared": ""}, name
        else:
            assert one.read_bytes() == other.read_bytes(), name


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
    """Every file that is compared; those of unfinished writes are not results."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.name not in _FREE and path.is_file() and not any(part.startswith(".part-") for part in name.parts):
            yield name.as_posix()


# What runs in the killed process: it counts what it does in the folder, and kills itself in time.
_CHILD = """
import os, signal, sys

folder, moment, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
seen = 0


def count(event, arguments):
    global seen
    opens = event == "open" and arguments[1] not in (None, "r", "rb")
    if not opens and event not in ("os.rename", "os.remove", "os.mkdir"):
        return
    # A result may be made beside the folder and be renamed into it.
    if any(str(place).startswith(folder) for place in arguments[:2]) or "/.part-" in str(arguments[0]):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), how)


sys.addaudithook(count)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
del sys.argv[1:4]
from radtransfer.cli.main import main

try:
    main()
finally:
    os.write(2, f"file operations {seen}".encode())
"""


def start_fresh(arguments: list[str], folder: Path, kill: Kill | None) -> tuple[int, str, bool]:
    """Exit code and stderr of a new interpreter that runs the command line, killed as `kill` says; and if it began."""
    child = [sys.executable, "-c", _CHILD, *_moment(folder, kill), *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(child, stdout=subprocess.DEVNULL, stderr=output, start_new_session=True)
        return *_wait(process.pid, process.wait, kill, output), _entered(folder, process.pid)


def start_warm(arguments: list[str], folder: Path, kill: Kill | None) -> tuple[int, str, bool]:
    """The same in a process forked from one that has imported TensorFlow (`warm_process`)."""
    with warm_process.start(*_moment(folder, kill), *arguments, program=_CHILD) as process:
        _, output = process.communicate(timeout=DEADLINE)
    return process.returncode, output, _entered(folder, process.pid)


def start_forked(arguments: list[str], folder: Path, kill: Kill | None) -> tuple[int, str, bool]:
    """The same in a copy of this process, which has imported TensorFlow and done nothing with it."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            os.setsid()
            os.dup2(output.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.argv = ["", *_moment(folder, kill), *arguments]
            try:
                exec(compile(_CHILD, "child", "exec"), {"__name__": "child"})
            except SystemExit as leaving:
                sys.stderr.flush()
                os._exit(leaving.code or 0)
            finally:
                os._exit(1)
        return *_wait(pid, lambda timeout: _waited(pid, timeout), kill, output), _entered(folder, pid)


def _moment(folder: Path, kill: Kill | None) -> list[str]:
    event = str((kill and kill.event) or 0)
    return [str(folder), event, str(int(getattr(signal, kill.how)) if kill else 0)]


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
                victims = [worker for worker in _session(pid) if worker != pid] if kill.worker else [pid]
                for victim in victims[:1]:
                    os.kill(victim, getattr(signal, kill.how))
                code = wait(timeout=DEADLINE)
        else:
            code = wait(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"hangs: {kill}") from None
    deadline = time.monotonic() + _PATIENCE
    while left := _session(pid):
        assert time.monotonic() < deadline, f"processes stay after {kill}: {left}"
        time.sleep(0.05)
    output.seek(0)
    return code, output.read().decode("utf-8", "replace")


def _session(leader: int) -> list[int]:
    """The processes of a session that run, the latest first."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, _, session = place.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(place.parent.name))
    return sorted(found, reverse=True)


def drawn_kills(chance: random.Random, job: Job, *, events: int, seconds: float) -> list[Kill]:
    """Some kills in a row: of a command that takes so many file operations and seconds, and less when it goes on."""
    kills = []
    for number in range(chance.randint(2, _MOST_IN_A_ROW)):
        how = chance.choice(SIGNALS)
        if job.name == "study" and chance.random() < 0.4:
            kills.append(Kill("SIGKILL", seconds=seconds * chance.uniform(0.3, 0.8), worker=True))
        elif chance.random() < 0.6:
            most = max(events // (number + 1), 3) if job.goes_on else events
            kills.append(Kill(how, event=chance.randint(1, most)))
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
    parser.add_argument("--job", action="append", help="of these alone; repeatable")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    start = start_fresh
    if given.fork:
        import radtransfer.training.run  # noqa: F401

        start = start_forked
    chance, tally = random.Random(given.seed), Tally()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["RADTRANSFER_CACHE"] = str(work / "cache")
        write_images(work / "data")
        known = jobs(work / "data", source=work / "source")
        run_undisturbed(Job("source", known["finetune"].begin, known["finetune"].again), work / "source", start)
        chosen, measured, events = [known[name] for name in given.job or known], {}, {}
        for job in chosen:
            began = time.monotonic()
            events[job] = run_undisturbed(job, work / f"whole-{job.name}", start)
            measured[job] = time.monotonic() - began
            print(f"{job.name}: undisturbed in {measured[job]:.0f} s, {events[job]} file operations", flush=True)
        while sum(tally.kills.values()) < given.kills:
            job = chosen[tally.runs % len(chosen)]
            began, before = time.monotonic(), tally.processes
            kills = drawn_kills(chance, job, events=events[job], seconds=measured[job])
            survive(job, work / f"whole-{job.name}", work, kills, tally, start=start)
            # A busy machine becomes idle, and then kills would come too late.
            measured[job] = min(measured[job], 2 * (time.monotonic() - began) / (tally.processes - before))
            print(tally, flush=True)


def run_undisturbed(job: Job, out: Path, start: Callable) -> int:
    """Run `job` from its beginning to its end; its file operations."""
    code, output, _ = start(job.begin(out), out, None)
    assert code == 0, output
    return int(output.rpartition("file operations ")[2])


if __name__ == "__main__":
    main()
