"""How fast images are decoded and resized, against what users write by hand.

    python tests/benchmarks/bench_images.py [--torch-python PYTHON] [--rounds 7] [--prepared FOLDER] [--json FILE]

Drawn JPEGs of 2196×1958 (of two qualities) and 4000×3000 pixels become 587×587, antialiased, in batches of 8, two at
a time, by

    ours            the pipeline that `finetune` reads through
    decode only     tf.data, full-size decoding and nothing else: the limit of any full decoding
    tf.data         tf.data, full-size decoding and TensorFlow's antialiased resize
    pil             PyTorch's DataLoader with two workers, Pillow
    torchvision     the same with torchvision.io and its antialiased resize

and a prepared set of the same images (`radtransfer data prepare`) is read. The contestants take turns; each ratio is
the median of the ratios within rounds. PyTorch is asked for in a Python of its own (`--torch-python`, one that has
torch and torchvision); without it these two are left out. The first pass of each is not counted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import tensorflow as tf
from PIL import Image

from radtransfer.images.formats import inspect_image
from radtransfer.images.pipeline import make_batches

SIZE, BATCH, PARALLEL = 587, 8, 2
SETS = {"2196x1958": (1958, 2196, 90, 24), "2196x1958 fine": (1958, 2196, 95, 24), "4000x3000": (3000, 4000, 90, 8)}
"""Height, width, JPEG quality and number: about 1.1, 1.8 and 1.1 bits a pixel."""
PASS = 96  # images


def fundus_like(height, width, seed):
    """A bright disc with texture of every scale, small lesions and sensor noise, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(rows - height / 2, columns - width / 2) / (0.48 * min(height, width))
    light = 1 - radius / 3
    for scale in (4, 16, 64, 256):
        cells = rng.integers(0, 256, (height // scale + 2, width // scale + 2), dtype=np.uint8)
        texture = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        light += (np.asarray(texture, np.float32) - 128) / 1500
    for _ in range(60):
        top, left, size = rng.integers(0, height - 30), rng.integers(0, width - 30), rng.integers(4, 24)
        light[top : top + size, left : left + size] *= rng.choice([0.6, 1.4])
    light += rng.normal(0, 0.02, light.shape)
    light[radius > 1] = 0.02
    return np.clip(light[..., None] * np.array([180, 100, 50]), 0, 255).astype(np.uint8)


def draw(folder, height, width, quality, count):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(fundus_like(height, width, number)).save(folder / f"{number:02}.jpg", quality=quality)
    return folder


def repeated(folder):
    files = sorted(folder.glob("*.jpg"))
    return files * (PASS // len(files))


def batches(places, augmentation="none"):
    facts = [inspect_image(place) for place in places]
    names = [str(number) for number in range(len(places))]
    targets = np.zeros((len(places), 2), np.float32)
    sizes = {"image_size": SIZE, "batch_size": BATCH, "workers": PARALLEL}
    return make_batches(names, places, facts, targets, augmentation=augmentation, **sizes)


def plain(files, function):
    options = tf.data.Options()
    options.autotune.enabled = False
    images = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
    images = images.map(lambda file: function(tf.io.decode_jpeg(tf.io.read_file(file), channels=3)), PARALLEL)
    return images.batch(BATCH).prefetch(2).with_options(options)


def rate_of(pass_over):
    def rate():
        start = time.perf_counter()
        for _ in pass_over():
            pass
        return PASS / (time.perf_counter() - start)

    return rate


class Torch:
    """The loaders of another Python."""

    def __init__(self, python, folder):
        command = [python, str(Path(__file__).with_name("torch_loaders.py")), str(folder), str(SIZE)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, name):
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def contestants(folder, torch_python, prepared):
    files = repeated(folder)
    ours = batches(files)
    full, resized = (
        plain(files, tf.shape),
        plain(files, lambda image: tf.image.resize(image, (SIZE, SIZE), antialias=True)),
    )
    found = {
        "ours": rate_of(ours.in_order),
        "decode only": rate_of(lambda: full),
        "tf.data": rate_of(lambda: resized),
    }
    for name, places in prepared.items():
        found[f"prepared {name}"] = rate_of(batches((places * PASS)[:PASS]).in_order)
    if torch_python:
        torch = Torch(torch_python, folder)
        found |= {name: lambda name=name: torch.rate(name) for name in ("pil", "torchvision")}
    return found


def compared(rates, rounds):
    measured = {name: [] for name in rates}
    for number in range(rounds + 1):
        for name, rate in rates.items():
            value = rate()
            if number:
                measured[name].append(value)
    values = {name: np.array(found) for name, found in measured.items()}
    return {
        "images_per_second": {name: float(np.median(found)) for name, found in values.items()},
        "ratio": {
            f"{ours} / {name}": float(np.median(values[ours] / found))
            for ours in values
            if ours.split()[0] in ("ours", "prepared")
            for name, found in values.items()
            if name != ours
        },
    }


def difference(folder):
    """Mean absolute difference, in grey levels, to a full decoding with an antialiased resize."""
    file = sorted(folder.glob("*.jpg"))[0]
    [(mine, _, _)] = batches([file]).in_order()
    full = tf.io.decode_jpeg(tf.io.read_file(str(file)), channels=3, dct_method="INTEGER_ACCURATE")
    return float(np.abs(mine[0] - tf.image.resize(full, (SIZE, SIZE), antialias=True)).mean())


def memory(folder, images=10_000):
    """Megabytes of this process after a tenth of so many images, and after all of them."""
    loop = batches(sorted(folder.glob("*.jpg")) * (images // len(list(folder.glob("*.jpg"))) + 1))
    after = {}
    for step, _ in enumerate(loop.in_order(np.arange(images)), start=1):
        if step * BATCH in (images // 10, images):
            after[step * BATCH] = resident()
    return after


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def waiting(folder):
    """The share of a CBR-Tiny's second epoch, its images augmented, in which it waits for a batch."""
    import keras

    from radtransfer.config.schema import TrainingSettings
    from radtransfer.models.backbone import BACKBONES
    from radtransfer.models.classifier import build_classifier
    from radtransfer.training.step import Learner

    classifier = build_classifier(
        BACKBONES["cbr_tiny"],
        classes=2,
        image_size=SIZE,
        activation="softmax",
        dropout=0.5,
        preprocessing="torch",
        precision="float32",
        widths=dict.fromkeys(BACKBONES["cbr_tiny"].stages, 1.0),
    )
    learner = Learner(
        classifier, TrainingSettings(), batch_size=BATCH, jit=False, frozen=frozenset(), from_features=False
    )
    keras.utils.set_random_seed(0)
    learner.reset(np.ones(2, np.float32))
    images, waited, worked = batches(repeated(folder)[:64], augmentation="fundus"), 0.0, 0.0
    for epoch in (1, 2):
        steps, waited, worked = iter(images.shuffled(epoch)), 0.0, 0.0
        for _ in range(64 // BATCH):
            start = time.perf_counter()
            batch = next(steps)
            ready = time.perf_counter()
            learner.train(*batch).numpy()
            waited, worked = waited + ready - start, worked + time.perf_counter() - ready
    return waited / (waited + worked)


def prepared_places(folder):
    """The images of a prepared set, as `finetune --data tfds:FOLDER` reads them."""
    from radtransfer.config.schema import DataSettings
    from radtransfer.data.readers import read_table

    return list(read_table(DataSettings(source=f"tfds:{folder}")).files)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prepared", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--memory", action="store_true", help="read 10,000 small images and tell the memory")
    parser.add_argument("--training", action="store_true", help="train CBR-Tiny on them and tell how much it waits")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    prepared = {Path(folder).name: prepared_places(folder) for folder in given.prepared}
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in SETS.items():
            folder = draw(Path(scratch) / name, *shape)
            results[name] = compared(contestants(folder, given.torch_python, prepared), given.rounds)
            results[name]["difference"] = difference(folder)
            print(name, json.dumps(results[name], indent=2), flush=True)
        if given.memory:
            results["memory"] = memory(draw(Path(scratch) / "small", 500, 600, 90, 8))
            print("megabytes after so many images:", results["memory"])
        if given.training:
            results["waiting"] = waiting(Path(scratch) / "2196x1958")
            print("share of an epoch that a CBR-Tiny waits for images:", results["waiting"])
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.exit(main())
