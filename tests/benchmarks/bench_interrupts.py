"""How soon a command ends after Ctrl-C or SIGTERM, at random moments of its life, and what it leaves.

    python tests/benchmarks/bench_interrupts.py [--times 20] [--seed 0] [--signal SIGINT] [--json FILE] [-- COMMAND…]

COMMAND is what follows `radtransfer`; {out} in it is a folder of its own for each time, {whole} one whose command
nobody disturbed. Without one a ResNet50 is fine-tuned at 224 px. A line for each time: when the signal came, how long
the answer took, the exit code, whether the line that goes on was printed, and what is left of half-written files.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = "finetune --data synthetic_fundus:images=60 --set data.positive_from=2 --backbone resnet50 --image-size 224 "
COMMAND += "--batch-size 8 --folds 2 --fold 1 --epochs 1 --out {out}"


def main():
    options = parse()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it runs in the background so, and the commands would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        seconds = undisturbed(options.command, whole)
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        draw = random.Random(options.seed)
        rows = [interrupted(options, Path(scratch) / str(k), draw.uniform(0.3, seconds)) for k in range(options.times)]
    answers = sorted(row["answer"] for row in rows if row["code"] == 130)
    summary = {
        "seconds": seconds,
        "interrupted": len(answers),
        "median": answers[len(answers) // 2] if answers else None,
        "longest": answers[-1] if answers else None,
        "codes": sorted({row["code"] for row in rows}),
        "parts": sum(len(row["parts"]) for row in rows),
    }
    print(json.dumps(summary))
    if options.json:
        options.json.write_text(json.dumps({**summary, "rows": rows}, indent=2))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGINT", choices=("SIGINT", "SIGTERM"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("command", nargs="*", help="of radtransfer; after --")
    options = parser.parse_args()
    options.command = options.command or COMMAND.split()
    return options


def words(command, out):
    return [sys.executable, "-m", "radtransfer", *(word.replace("{out}", str(out)) for word in command)]


def undisturbed(command, out):
    began = time.perf_counter()
    subprocess.run(words(command, out), check=True, capture_output=True)
    return time.perf_counter() - began


def interrupted(options, out, after):
    process = subprocess.Popen(
        words(options.command, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=after)
        sent = None
    except subprocess.TimeoutExpired:
        sent = time.perf_counter()
        process.send_signal(getattr(signal, options.signal))
        _, said = process.communicate()
    row = {
        "after": round(after, 2),
        "answer": None if sent is None else round(time.perf_counter() - sent, 2),
        "code": process.returncode,
        "goes_on": "resume with" in said,
        "parts": [str(path) for path in out.parent.rglob(".part-*")],
    }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
