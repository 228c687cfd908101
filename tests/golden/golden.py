"""Golden results of every command, to show that a change of the code changed no number, key, option or file.

    python tests/golden/golden.py make DIR                made with the radtransfer that this Python finds
    python tests/golden/golden.py make DIR --only seed_0,cca        those alone; compare then leaves out the others
    python tests/golden/golden.py compare DIR_A DIR_B     exit code 1 if anything differs
    python tests/golden/golden.py against COMMIT          both: of a commit, and of this Python's radtransfer
    python tests/golden/golden.py readable OLD_DIR        the present code on what older code wrote into OLD_DIR

commands.txt lists the commands, comparing.py what is compared and what is ignored. Everything goes through the command
line. Numbers depend on the processor and its number of cores, so compare results of one machine.
"""

import argparse
import configparser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparing import compare  # noqa: E402
from drawn_data import draw  # noqa: E402

SMALL = "--backbone cbr_tiny --image-size 24 --batch-size 8 --learning-rate 1e-3"
FOLDS = "--folds 2 --val-fraction 0.3 --epochs 2"
SHORT = {
    "SMALL": SMALL,
    "TABLE": f"--data data/images.csv --image-root data/images {SMALL} {FOLDS}",
    "FINDINGS": f"--data data/findings.csv --image-root data/images {SMALL} {FOLDS}",
    "START": "runs/seed_0/fold_1",
    "CCA": "--rows 300 --dims 6 --repeats 2",
    "RUN": "--out runs/{name} --json",
    "OUT": "--out results/{name} --json",
    "MODEL": "--seed 5 --classes 3 --out results/{name}.keras --json",
}


class Runner:
    """Runs commands in a folder of golden results; keeps exit codes, what is printed, and JSON that is printed."""

    def __init__(self, folder: Path, environment: Mapping[str, str], only: Sequence[str] = ()) -> None:
        self.folder, self.only, self.codes, self.seconds = folder, tuple(only), {}, {}
        for name in ("logs", "results", "runs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        own = {"RADTRANSFER_CACHE": str(folder / "cache"), "COLUMNS": "100", "NO_COLOR": "1"}
        self.environment = {key: os.environ[key] for key in os.environ if not key.startswith("RADTRANSFER_")}
        self.environment |= own | environment

    def __call__(self, name: str, line: str, code: int | None = 0, **environment: str) -> str:
        """What the command `line` prints; JSON of it becomes results/`name`.json. Exit codes but `code` are told."""
        line = re.sub(rf"\b({'|'.join(SHORT)})(?=[\s/@]|$)", lambda found: SHORT[found[0]], line).replace(
            "{name}", name
        )
        command, began = [sys.executable, "-m", "radtransfer", *shlex.split(line)], time.monotonic()
        environment = self.environment | environment
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        self.codes[name], self.seconds[name] = done.returncode, time.monotonic() - began
        log = self.folder / "logs" / f"{name.replace('/', '_')}.txt"
        log.write_text(f"$ radtransfer {line}\n{done.stdout}\n{done.stderr}\n{self.seconds[name]:.1f} s\n")
        if code is not None and done.returncode != code:
            print(f"{name}: exit code {done.returncode}, see {log}", file=sys.stderr)
        if code == 0 and done.stdout[:1] in ("{", "["):
            (self.folder / "results" / f"{name}.json").write_text(done.stdout)
        return done.stdout

    def group(self, lines: Iterable[str]) -> None:
        """Run lines of commands.txt one after the other."""
        for line in lines:
            name, line = line.split(maxsplit=1)
            name, _, code = name.partition("=")
            if not self.only or name in self.only:
                self(name, line, int(code or 0))

    def all(self, jobs: Iterable[Callable[[], None]], at_a_time: int) -> None:
        with ThreadPoolExecutor(at_a_time) as pool:
            for job in [pool.submit(job) for job in jobs]:
                job.result()

    def finish(self) -> None:
        """Write the exit codes, which folder this was, and what took how long."""
        self.keep("exit_codes", dict(sorted(self.codes.items())))
        (self.folder / "made.json").write_text(json.dumps({"root": str(self.folder), "only": self.only}))
        slowest = sorted(self.seconds, key=self.seconds.get, reverse=True)
        (self.folder / "logs" / "seconds.txt").write_text("\n".join(f"{self.seconds[k]:6.1f} {k}" for k in slowest))

    def keep(self, name: str, value: object) -> None:
        (self.folder / "results" / f"{name}.json").write_text(json.dumps(value, indent=1))


def groups(section: str) -> list[list[str]]:
    """The groups of lines in a section of commands.txt."""
    text = (HERE / "commands.txt").read_text().partition(f"== {section}\n")[2].partition("\n== ")[0]
    return [group.splitlines() for group in text.strip().split("\n\n")]


def make(folder: Path, at_a_time: int, environment: Mapping[str, str] | None = None, only: Sequence[str] = ()) -> None:
    """Golden results in `folder`, which must not be there yet; all of them, or those of the commands `only`."""
    folder.mkdir(parents=True)
    draw(folder / "data")
    run = Runner(folder, environment or {}, only)
    run.all([partial(run.group, group) for group in groups("first")], at_a_time)
    others = [job for job in (replicas, listings, options, exits) if not only or job.__name__ in only]
    jobs = [partial(run.group, group) for name in ("training", "without runs") for group in groups(name)]
    run.all([*jobs, *(partial(job, run) for job in others)], at_a_time)
    run.all([partial(run.group, group) for group in groups("reading")], at_a_time)
    run.finish()


def replicas(run: Runner) -> None:
    """One run on two devices, and one of two processes."""
    run("mirrored", "finetune TABLE --fold 1 --distribute mirrored RUN", RADTRANSFER_LOGICAL_CPUS="2")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = ",".join(f"127.0.0.1:{item.getsockname()[1]}" for item in sockets)
    for item in sockets:
        item.close()
    line = f"finetune TABLE --fold 1 --distribute multiworker --workers {hosts} RUN --worker-index"
    run.all([partial(run, f"worker_{index}", f"{line} {index}") for index in range(2)], 2)


def listings(run: Runner) -> None:
    """Networks, shipped settings, and the kinds of things that `doctor` looks at."""
    for backbone in json.loads(run("backbones", "backbones --json")):
        run(f"backbone_{backbone['name']}", f"backbones {backbone['name']} --json")
    for config in json.loads(run("configs", "configs list --json")):
        name, full = config["name"], "" if config["kind"] == "study" else "--full"
        text = run(f"show_{name}", f"configs show {name} {full}")
        (run.folder / "results" / f"show_{name}.yaml").write_text(text)
        run(f"validate_{name}", f"configs validate {name}")
    found = json.loads(run("doctor", "doctor --json", code=None))["findings"]
    run.keep("doctor", [[item["subject"], sorted(item)] for item in found])


def options(run: Runner) -> None:
    """The options of every command."""
    described = {}
    describe(run, "", described)
    run.keep("options", described)


def describe(run: Runner, command: str, into: dict) -> None:
    """Names, choices, ranges and defaults (of one word) of the options of a command and of those below it."""
    text = run(f"help {command}", f"{command} --help")
    usage, _, rest = text.partition("\nOptions:")
    entries, _, commands = rest.partition("\n\n")
    into[f"{command} (usage)"] = usage.partition("\n\n")[0].split()[1:]
    for entry in re.split(r"\n  (?=-)", entries)[1:]:
        entry = " ".join(entry.split())
        names = re.match(r"-[^ ,]+(?:(?:,| /) -[^ ,]+)*", entry)[0]
        facts = re.findall(r"\[(?:[^][ ]+\|[^][ ]+|required|[^][]*x ?[<>]=?[^][]*|default: [^][ ]+)\]", entry)
        into[f"{command} {names}"] = facts
    for name in re.findall(r"^  (\S+)  ", commands, re.MULTILINE):
        describe(run, f"{command} {name}".strip(), into)


def exits(run: Runner) -> None:
    """Only the exit codes."""
    for line in sum(groups("exit codes"), []):
        run(f"exit of {line}", line, code=None)


def readable(old: Path, at_a_time: int) -> list[str]:
    """What the present code cannot read, or reads otherwise, of the runs, sets and stores in `old`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        for name in ("data", "runs"):
            shutil.copytree(old / name, folder / name)
        run = Runner(folder, {})
        run.all([partial(run.group, group) for group in groups("reading") + groups("going on")], at_a_time)
        before = json.loads((old / "results" / "exit_codes.json").read_text())
        failed = [f"{name}: exit code {code}" for name, code in run.codes.items() if code != before.get(name, 0)]
        made = {f"results/{path.name}" for path in (folder / "results").iterdir()}
        run.finish()
        return failed + compare(old, folder, only=("runs", *made))


def against(commit: str, at_a_time: int) -> list[str]:
    """The differences between what `commit` makes and what this Python's radtransfer makes."""
    with tempfile.TemporaryDirectory() as place:
        checkout, before, now = (Path(place) / name for name in ("checkout", "before", "now"))
        checkout.mkdir()
        archive = subprocess.run(["git", "archive", commit], cwd=HERE.parents[1], check=True, capture_output=True)
        subprocess.run(["tar", "-x"], cwd=checkout, input=archive.stdout, check=True)
        make(before, at_a_time, {"PYTHONPATH": str(importable(checkout))})
        make(now, at_a_time)
        return compare(before, now)


def importable(checkout: Path) -> Path:
    """A folder whose `radtransfer` holds links to the packages of a checkout, each where its setup.cfg maps it."""
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    package = checkout / "importable" / "radtransfer"
    package.mkdir(parents=True)
    for item in (checkout / "radtransfer").iterdir():
        (package / item.name).symlink_to(item)
    for line in settings.get("options", "package_dir", fallback="").split("\n"):
        name, _, folder = (part.strip() for part in line.partition("="))
        if name.startswith("radtransfer."):
            (package / name.removeprefix("radtransfer.")).symlink_to(checkout / folder)
    return package.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time (default 2)")
    parser.add_argument("--tolerance", type=float, default=0.0, help="of compare, relative; default: the same bits")
    parser.add_argument(
        "--only", default="", help="of make: names in commands.txt, or replicas, listings, options, exits"
    )
    parser.add_argument("command", choices=("make", "compare", "against", "readable"))
    parser.add_argument("names", nargs="+", metavar="DIR|COMMIT")
    given = parser.parse_args()
    if len(given.names) != (2 if given.command == "compare" else 1):
        parser.error(f"{given.command}: wrong number of arguments")
    place = Path(given.names[0]).resolve()
    if given.command == "make":
        make(place, given.jobs, only=[name for name in given.only.split(",") if name])
        return 0
    if given.command == "compare":
        differences = compare(place, Path(given.names[1]).resolve(), tolerance=given.tolerance)
    elif given.command == "against":
        differences = against(given.names[0], given.jobs)
    else:
        differences = readable(place, given.jobs)
    print(*differences, f"{len(differences)} differences", sep="\n")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
