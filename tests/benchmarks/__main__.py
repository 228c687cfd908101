"""Every benchmark of speed and memory, each a ratio to a named peer measured in the same run.

    python tests/benchmarks [--only step,start,…] [--torch-python PYTHON] [--svcca-path FOLDER] [--json FILE] [--quick]

    step        a full training step against `model.fit` written by hand and PyTorch (channels last, fused Adam)
    start       the first step of a fresh process, and that of every further fold, against the script written by hand
    features    an epoch with frozen stages on kept features against one on images (`bench_features.py`)
    evaluation  predicting a fold against its bare forward passes
    memory      the peak of `finetune` against that of the script written by hand
    help        `radtransfer --help` against `python -c pass`
    mistakes    what commands take to say that they cannot do what was asked, in processor time of `python -c pass`
    onednn      a training step and a prediction without and with oneDNN; only if named
    images      decoding and resizing (`bench_images.py`); only if named
    interrupts  how soon a command ends after Ctrl-C (`bench_interrupts.py`); only if named
    similarity  CCA against google/svcca (`bench_similarity.py`); only if named

Contestants take turns, with as many threads each, in processes of their own; a ratio is the median of those within
rounds, beside the smallest and the largest. More than 1 is in our favour, except that `memory`, `evaluation`, `help`
and `mistakes` say how many times as much we take. PyTorch runs in a Python of its own, and is left out without
`--torch-python`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import contest
import measurements

ALL = ("step", "start", "features", "evaluation", "memory", "help", "mistakes")
ELSEWHERE = ("images", "similarity", "interrupts")
IF_NAMED = ("onednn", *ELSEWHERE)


def main():
    options = parse()
    results = {"date": time.strftime("%Y-%m-%d"), "machine": contest.machine(), "versions": versions(options)}
    print(json.dumps(results), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            began = time.perf_counter()
            done = (
                elsewhere(name, options) if name in ELSEWHERE else getattr(measurements, name)(options, Path(scratch))
            )
            results[name] = done
            print(f"{name}, {time.perf_counter() - began:.0f} s")
            for row, value in done.items():
                print(f"  {row:<44} {json.dumps(value)}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=2))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ALL), help="names from the list above, comma-separated")
    parser.add_argument("--backbones", default=",".join(measurements.BACKBONES), help="whose steps are measured")
    parser.add_argument("--torch-python", help="a Python that has torch and torchvision")
    parser.add_argument("--svcca-path", type=Path, help="a checkout of google/svcca")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that all of it runs")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = set(options.only) - {*ALL, *IF_NAMED}
    if unknown:
        parser.error(f"--only takes {', '.join((*ALL, *IF_NAMED))}; received {', '.join(sorted(unknown))}")
    options.size, options.batch, options.main = (32, 2, "cbr_tiny") if options.quick else (224, 8, "resnet50")
    options.backbones = ["cbr_tiny"] if options.quick else options.backbones.split(",")
    options.rounds = 1 if options.quick else options.rounds
    return options


def versions(options):
    found = {"python": sys.version.split()[0]}
    ask = "import importlib.metadata as m; print(*(m.version(name) for name in {}))"
    for python, names in ((sys.executable, ("tensorflow", "keras", "numpy")), (options.torch_python, ("torch",))):
        if python:
            said = subprocess.run([python, "-c", ask.format(names)], capture_output=True, text=True, check=True)
            found |= dict(zip(names, said.stdout.split(), strict=True))
    return found


def elsewhere(name, options):
    """A script of its own, whose output is passed on."""
    command = [sys.executable, str(Path(__file__).with_name(f"bench_{name}.py"))]
    if name == "images" and options.torch_python:
        command += ["--torch-python", options.torch_python]
    if name == "similarity" and options.svcca_path:
        command += ["--svcca-path", str(options.svcca_path)]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([*command, "--json", file.name], check=True)
        return json.loads(Path(file.name).read_text())


if __name__ == "__main__":
    main()
