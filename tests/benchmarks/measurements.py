"""What `python tests/benchmarks` measures, by name; each gives a table of rows."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from contest import Contestant, ratios, summary, turns
from contest import start as launch
from PIL import Image

HERE = Path(__file__).parent
TORCH = (
    "resnet50",
    "densenet121",
    "inception_v3",
    "convnext_tiny",
    "cbr_tiny",
    "cbr_small",
    "cbr_large_w",
    "cbr_large_t",
)
BACKBONES = (
    "resnet50",
    "densenet121",
    "inception_v3",
    "inception_resnet_v2",
    "efficientnet_v2_b0",
    "convnext_tiny",
    "cbr_tiny",
    "cbr_small",
    "cbr_large_w",
    "cbr_large_t",
)
KERNELS = {"as here": {}, "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
"""What oneDNN's kernels may use: the second only approximates a processor without AVX-512, as Eigen still uses it."""


def step(options, scratch):
    return {name: _steps_of(options, name) for name in options.backbones}


def _steps_of(options, backbone):
    arguments = ("step", backbone, options.size, options.batch)
    contestants = {"radtransfer": (sys.executable, "ours.py"), "model.fit": (sys.executable, "handwritten.py")}
    if options.torch_python and backbone in TORCH:
        contestants["pytorch"] = (options.torch_python, "torch_step.py")
    started = {name: Contestant(python, HERE / script, *arguments) for name, (python, script) in contestants.items()}
    rows = ratios(turns(started, rounds=options.rounds, steps=2))
    for name, contestant in started.items():
        rows[name]["first_step"] = [round(value, 2) for value in contestant.ready["first"]]
        contestant.close()
    return rows


def onednn(options, scratch):
    """How many times as long a training step and a prediction take without oneDNN as with it."""
    return {name: _onednn_of(options, name) for name in options.backbones}


def _onednn_of(options, backbone):
    arguments = (sys.executable, HERE / "ours.py", "both", backbone, options.size, options.batch)
    started = {
        (kernels, state): Contestant(*arguments, TF_ENABLE_ONEDNN_OPTS=value, **variables)
        for kernels, variables in KERNELS.items()
        for state, value in (("on", "1"), ("off", "0"))
    }
    found = turns(started, rounds=options.rounds, steps=1)
    for contestant in started.values():
        contestant.close()
    works = {"training": slice(0, 2), "prediction": slice(2, 4)}
    return {
        f"{work}, kernels {kernels}": ratios(
            {state: [turn[place] for turn in found[kernels, state]] for state in ("on", "off")}, "on"
        )["off"]
        for work, place in works.items()
        for kernels in KERNELS
    }


def start(options, scratch):
    """First steps in a fresh process: the first fold's, and the faster of two further ones."""
    scripts = {"radtransfer": "ours.py", "model.fit": "handwritten.py"}
    found = {name: {"first step": [], "further folds": []} for name in scripts}
    for _ in range(1 if options.quick else 2):
        for name, script in scripts.items():
            arguments = ("folds", options.main, options.size, options.batch, 3)
            process = launch(sys.executable, HERE / script, *arguments, stdout=subprocess.PIPE)
            first, *further = json.loads(process.communicate()[0])
            found[name]["first step"].append(first)
            found[name]["further folds"].append(min(further))
    return {
        what: ratios({name: rows[what] for name, rows in found.items()}) for what in ("first step", "further folds")
    }


def features(options, scratch):
    command = [sys.executable, HERE / "bench_features.py", "--backbone", options.main, "--rounds", options.rounds]
    depths, images = ("stage3", 8) if options.quick else ("stage3,stage4", 32)
    command += ["--image-size", options.size, "--images", images, "--batch-size", options.batch, "--depths", depths]
    subprocess.run([str(item) for item in (*command, "--json", scratch / "features.json")], check=True)
    rows = json.loads((scratch / "features.json").read_text())["rows"]
    return {f"frozen through {row.pop('frozen through')}": row for row in rows}


def evaluation(options, scratch):
    """How many times as long `predict` takes as the forward passes alone."""
    arguments = ("evaluate", options.main, options.size, options.batch)
    contestant = Contestant(sys.executable, HERE / "ours.py", *arguments)
    pairs = [contestant.turn(3) for _ in range(options.rounds + 1)][1:]
    contestant.close()
    found = {"radtransfer": [bare for _, bare in pairs], "predict": [ours for ours, _ in pairs]}
    return {"predict / forward passes": ratios(found)["predict"]}


def memory(options, scratch):
    """Peaks of whole processes, in megabytes: two epochs, validation, prediction, and a saved model."""
    folder = scratch / "images"
    _draw(folder, options.size, 24)
    found = {"radtransfer": [], "model.fit": []}
    for _ in range(1 if options.quick else 2):
        for name, script in (("radtransfer", "ours.py"), ("model.fit", "handwritten.py")):
            found[name].append(_peak(script, "train", options.main, options.size, options.batch, folder))
            subprocess.run(["rm", "-rf", f"{folder}-run", f"{folder}.keras"], check=True)
    within = [mine / its for mine, its in zip(found["radtransfer"], found["model.fit"], strict=True)]
    return {"megabytes": found, "radtransfer / model.fit": summary(within)}


def help(options, scratch):
    commands = {
        "radtransfer": [sys.executable, "-c", "from radtransfer.cli.main import main; main()", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    found = {name: [] for name in commands}
    for _ in range(3 if options.quick else 15):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name].append(time.perf_counter() - began)
    within = [mine / its for mine, its in zip(*found.values(), strict=True)]
    return {"radtransfer --help / python -c pass": summary(within)}


def mistakes(options, scratch):
    """Processor time, user and system."""
    _draw(scratch / "images", 8, 40)
    train = f"finetune --data {scratch / 'images'} --backbone cbr_tiny --image-size 64"
    lines = (
        "train",
        "finetune",
        "finetune --lr 1e-3",
        "finetune nosuch",
        "finetune --data nosuch",
        f"{train} --backbone resnet51",
        f"{train} --epochs many",
        f"{train} --scheme slim --through stage1",
        f"{train} --freeze-to stage9",
        f"{train} --weights nosuch.h5",
        f"{train} --fold 9",
        "study quick-advice --arms nosuch",
        "lr-find",
        "data check nosuch",
        "data prepare nosuch --out prepared",
        "plan resnet50 --scheme transfusion",
        "weights inspect nosuch.h5",
        "evaluate nosuch",
        "predict nosuch images",
        "export nosuch --format keras --out model",
        "explain nosuch",
        "compare-cca nosuch nosuch",
        "report nosuch --out report",
    )
    rows = {}
    for line in lines[:: 8 if options.quick else 1]:
        found = {"mistake": [], "pass": []}
        for _ in range(1 if options.quick else 5):
            found["pass"].append(_processor_seconds(["-c", "pass"], scratch))
            found["mistake"].append(_processor_seconds(["-m", "radtransfer", *line.split()], scratch))
        within = [mine / its for mine, its in zip(found["mistake"], found["pass"], strict=True)]
        rows[line.replace(f"{scratch}/", "")] = summary(within)
    return rows


def _processor_seconds(arguments, folder):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    _, _, used = os.wait4(subprocess.Popen([sys.executable, *arguments], cwd=folder, **quiet).pid, 0)
    return used.ru_utime + used.ru_stime


def _draw(folder, size, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)


def _peak(script, *arguments):
    process = launch(sys.executable, HERE / script, *arguments, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} {arguments} ended with status {status}")
    return round(used.ru_maxrss / 1e3)
