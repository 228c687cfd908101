"""How much faster a frozen epoch is when the frozen part runs once per image instead of once per epoch.

    python tests/benchmarks/bench_features.py [--backbone resnet50] [--image-size 96] [--depths stage3,stage4]
        [--rounds 5] [--json FILE]

Images are noise on disk. For each depth, an epoch on images and an epoch on kept features take turns on one network;
each ratio is the median of the ratios within rounds. The first pass, which computes the features, is timed apart.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RADTRANSFER_CACHE"] = folder
        rows = [measure(options, depth, Path(folder)) for depth in depths(options)]
    for row in rows:
        spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        print(
            f"{row['frozen through']:<8} epoch on images {row['images_s']:6.2f} s, "
            f"on features {row['features_s']:6.2f} s: ratio {row['ratio']:6.2f} {spread}; "
            f"the first pass takes {row['first_s']:.2f} s"
        )
    if options.json:
        options.json.write_text(json.dumps({"settings": {**vars(options), "json": None}, "rows": rows}, indent=2))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--depths", help="stages, comma-separated; all without it")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def depths(options):
    from radtransfer.models.backbone import BACKBONES

    return options.depths.split(",") if options.depths else list(BACKBONES[options.backbone].stages)


def measure(options, depth, folder):
    from radtransfer.config.schema import TrainingSettings
    from radtransfer.models.backbone import BACKBONES, layers_up_to
    from radtransfer.models.classifier import build_classifier
    from radtransfer.training.step import Learner
    from radtransfer.transfer.frozen import cached_features

    card = BACKBONES[options.backbone]
    classifier = build_classifier(
        card, classes=2, image_size=options.image_size, activation="softmax", dropout=0.5, preprocessing="torch"
    )
    frozen = layers_up_to(classifier.backbone, card, depth)
    learners = [
        Learner(
            classifier,
            TrainingSettings(),
            batch_size=options.batch_size,
            jit=False,
            frozen=frozen,
            from_features=from_features,
        )
        for from_features in (False, True)
    ]
    images, targets = batches(options, folder)
    started = time.perf_counter()
    features = cached_features(
        learners[1].cut, images, targets, batch_size=options.batch_size, count=lambda done, total: None
    )
    first = time.perf_counter() - started
    rows = np.arange(options.images)
    times = [[], []]
    for turn in range(options.rounds + 1):
        for place, (learner, source) in enumerate(zip(learners, (images, features), strict=True)):
            started = time.perf_counter()
            for batch in source.shuffled(turn, rows=rows, seed=0, fold=0):
                learner.train(*batch)
            if turn:  # the first traces
                times[place].append(time.perf_counter() - started)
    ratios = [on_images / on_features for on_images, on_features in zip(*times, strict=True)]
    return {
        "frozen through": depth,
        "images_s": statistics.median(times[0]),
        "features_s": statistics.median(times[1]),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "first_s": first,
    }


def batches(options, folder):
    from radtransfer.images.formats import inspect_image
    from radtransfer.images.pipeline import make_batches

    rng, files = np.random.default_rng(0), []
    for i in range(options.images):
        files.append(folder / f"{i}.png")
        if not files[-1].exists():
            noise = rng.integers(0, 256, (options.image_size, options.image_size, 3), np.uint8)
            Image.fromarray(noise).save(files[-1])
    targets = np.eye(2, dtype=np.float32)[np.arange(options.images) % 2]
    facts = [inspect_image(file) for file in files]
    made = make_batches(
        [file.name for file in files],
        files,
        facts,
        targets,
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=2,
    )
    return made, targets


if __name__ == "__main__":
    main()
