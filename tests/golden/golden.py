"""Golden results of every command, to show that a change of the code changed no number, key, option or file.

    python tests/golden/golden.py make DIR                made with the radtransfer that this Python finds
    python tests/golden/golden.py compare DIR_A DIR_B     exit code 1 if anything differs
    python tests/golden/golden.py against COMMIT          both: of a commit, and of this working tree
    python tests/golden/golden.py readable OLD_DIR        the present code on what older code wrote

Everything goes through the command line. Numbers depend on the processor, so compare results of one machine.
What is compared and what is ignored is written in comparing.py.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from comparing import compare
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

TINY = "--backbone cbr_tiny --image-size 24 --batch-size 8 --learning-rate 1e-3"
TABLE = f"--data data/images.csv --image-root data/images {TINY}"


class Maker:
    """Runs commands in a folder of golden results, and keeps their exit codes and what they print as JSON."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder, self.codes = folder, {}
        for name in ("logs", "results", "runs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "RADTRANSFER_CACHE": str(folder / "cache"), "COLUMNS": "100", "NO_COLOR": "1", **(environment or {})
        }  # fmt: skip

    def __call__(self, name: str, line: str, *, code: int | None = 0) -> str:
        """Run the command `line`; JSON that it prints becomes results/`name`.json. `code` is what is expected."""
        command = [sys.executable, "-m", "radtransfer", *line.split()]
        began = time.monotonic()
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        log = f"$ radtransfer {line}\n{done.stdout}\n{done.stderr}\n{time.monotonic() - began:.1f} s\n"
        (self.folder / "logs" / f"{name}.txt").write_text(log)
        self.codes[name] = done.returncode
        if code is not None and done.returncode != code:
            print(f"{name}: exit code {done.returncode}, see {self.folder / 'logs' / name}.txt", file=sys.stderr)
        if done.stdout[:1] in ("{", "["):
            (self.folder / "results" / f"{name}.json").write_text(done.stdout)
        return done.stdout


def seeds(run: Maker) -> None:
    for seed in (0, 1):
        run(f"seed_{seed}", f"finetune {TABLE} --folds 2 --epochs 3 --eval-every 4 --seed {seed} --out runs/seed_{seed} --json")


def draw_images(folder: Path) -> None:
    """60 images of 30 patients, two classes that a network can only partly tell."""
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        label = ("well", "sick")[number // 2 % 2]
        pixels = rng.integers(0, 120, (24, 24), np.uint8)
        if (label == "sick") != (rng.random() < 0.2):
            pixels[4:14, 6:16] += rng.integers(5, 60, dtype=np.uint8)
        path = folder / "images" / label / f"p{number // 2:02d}_{number % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append([f"{label}/{path.name}", label, f"p{number // 2:02d}"])
    write_table(folder / "images.csv", "path,label,patient", rows)


def write_table(path: Path, header: str, rows: list[list]) -> None:
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header.split(","), *rows])


def make(folder: Path, jobs: int, environment: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True)
    draw_images(folder / "data")
    for path in (folder / "data").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    run = Maker(folder, environment)
    seeds(run)
    (folder / "results" / "exit_codes.json").write_text(json.dumps(dict(sorted(run.codes.items())), indent=1))
    (folder / "made.json").write_text(json.dumps({"root": str(folder)}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("first", type=Path)
    both.add_argument("second", type=Path)
    both.add_argument("--tolerance", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder.resolve(), arguments.jobs)
        return 0
    differences = compare(arguments.first, arguments.second, tolerance=arguments.tolerance)
    print(*differences, sep="\n")
    print(f"{len(differences)} differences")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
