"""Thousands of training steps over files: memory and open files must stay flat.

    python tests/benchmarks/bench_soak.py [--steps 5000] [--images 400] [--size 32] [--op-determinism]

Drawn PNGs are decoded, augmented and trained on by a CBR-Tiny in batches of 8, validated after every epoch, as a run
does. Memory is that of the process, not of the page cache; the first tenth of the steps, in which TensorFlow's pools
fill, is not counted. `--op-determinism` has TensorFlow use its deterministic kernels alone, to measure what they cost.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from radtransfer.config.load import load_config
from radtransfer.process import Progress
from radtransfer.training.loop import predict
from radtransfer.training.prepare import prepare
from radtransfer.transfer.initialize import initialize_weights

BATCH = 8
LOOKS = 10
"""Times that memory and files are looked at."""


def write_images(folder: Path, count: int) -> Path:
    rng, rows = np.random.default_rng(0), [["path", "label", "patient"]]
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", i // 2 % 2, f"p{i // 2}"])
    with (folder / "images.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return folder / "images.csv"


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def soak(steps: int, table: Path, size: int) -> list[tuple[int, float, int, float]]:
    """Steps, MB, open files and seconds at each look."""
    options = {"model.backbone": "cbr_tiny", "model.image_size": size, "training.batch_size": BATCH}
    options |= {"data.source": str(table), "splits.folds": 1}
    context = prepare(load_config(options=options), report_file=table.with_name("bad.txt"), progress=Progress())
    fold, learner = context.folds[0], context.learner
    initialize_weights(context.classifier.model, context.plan, None, seed=0)
    context.reset(learner, fold)
    data, done, epoch, looks, began = context.fold_data(fold, context.batches), 0, 0, [], time.monotonic()
    while done < steps:
        epoch += 1
        for batch in data.epoch(epoch):
            learner.train(*batch)
            done += 1
            if done % max(steps // LOOKS, 1) == 0:
                looks.append((done, resident_mb(), open_files(), time.monotonic() - began))
                print("step {:>6}  {:7.1f} MB  {:>3} files  {:6.0f} s".format(*looks[-1]), flush=True)
        predict(learner, data.held_out("val")[0])
    return looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--op-determinism", action="store_true")
    given = parser.parse_args()
    if given.op_determinism:
        tf.keras.utils.set_random_seed(0)
        tf.config.experimental.enable_op_determinism()
    with tempfile.TemporaryDirectory() as name:
        os.environ["RADTRANSFER_CACHE"] = f"{name}/cache"
        looks = soak(given.steps, write_images(Path(name), given.images), given.size)
    (first, mb, files, _), (last, mb_last, files_last, seconds) = looks[0], looks[-1]
    print(
        f"from step {first} to {last}: {mb_last - mb:+.1f} MB, {files_last - files:+d} open files, "
        f"{last / seconds:.1f} steps a second"
    )


if __name__ == "__main__":
    main()
