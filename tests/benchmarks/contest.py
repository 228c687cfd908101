"""Contestants that take turns in processes of their own, and what their turns come to.

A contestant is a script that prints a line of JSON when it is ready, then reads from its input how many steps to do
and answers with what they took: seconds on the clock, and of all its threads together on the processor. The second
hardly depends on what else the machine does.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time

THREADS = str(len(os.sched_getaffinity(0)))
SAME_THREADS = {
    "OMP_NUM_THREADS": THREADS,
    "TF_NUM_INTRAOP_THREADS": THREADS,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
}


class Contestant:
    """A script in a Python, that begins at once; `ready` holds what it said first."""

    def __init__(self, python, script, *arguments, **variables):
        self.process = start(python, script, *arguments, **variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready = self._answer()

    def turn(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}")
        return json.loads(line)


def start(python, script, *arguments, stdin=None, stdout=None, **variables):
    command = [str(item) for item in (python, script, *arguments)]
    environment = os.environ | SAME_THREADS | variables
    return subprocess.Popen(command, env=environment, text=True, stdin=stdin, stdout=stdout)


def serve(work, **facts):
    """The other side: say `facts`, then do what is asked for."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps(work(int(line))), flush=True)


def spent():
    """Where the clock and the processor's time of this process stand."""
    return time.perf_counter(), time.process_time()


def since(began):
    return [now - then for now, then in zip(spent(), began, strict=True)]


def turns(contestants, *, rounds, steps):
    """What each step took, by name, in rounds in which each has a turn; the first round does not count."""
    found = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            took = contestant.turn(steps)
            if number:
                found[name].append([value / steps for value in took])
    return found


def ratios(found, ours="radtransfer"):
    """How many times as long each peer takes, by clock and by processor.

    Each is the median of the ratios within rounds; `spread` is the smallest and the largest.
    """
    return {name: _ratio(found[name], found[ours]) for name in found}


def _ratio(theirs, ours):
    row = {}
    for place, kind in enumerate(("", "cpu_")):
        pairs = [(peer[place], mine[place]) for peer, mine in zip(theirs, ours, strict=True)]
        row[f"{kind}seconds"] = round(statistics.median(peer for peer, _ in pairs), 4)
        row |= {f"{kind}{name}": value for name, value in summary([peer / mine for peer, mine in pairs]).items()}
    return row


def summary(found):
    return {"ratio": round(statistics.median(found), 3), "spread": [round(min(found), 3), round(max(found), 3)]}


def machine():
    cores = len(os.sched_getaffinity(0))
    names = [line for line in _cpu_lines() if line.startswith("model name")]
    model = names[0].split(":")[1].strip() if names else platform.processor()
    return {"cpu": model, "cores": cores, "load": os.getloadavg()[0], "system": platform.platform()}


def _cpu_lines():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().splitlines()
    except OSError:
        return []
