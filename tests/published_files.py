"""Published results that tests make up: any targets and sources, with similarity and gain on a known line."""

import csv
from pathlib import Path

import numpy as np

LAYERS = ("conv1", "block1", "block2")


def write_csv(path: Path, header, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])


def write_published(
    folder: Path, *, targets=("lung", "brain-mri"), sources=("ImageNet", "Other-Net"), folds=4, slope=-0.5, noise=0.01
) -> Path:
    """A folder whose relative gains are `slope` times the CCA of each layer plus 0.6, give or take `noise`."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    auc, similarity = [], []
    for target in targets:
        pairs = []
        for fold in (f"fold{k + 1}" for k in range(folds)):
            of_random = rng.uniform(0.5, 0.6)
            auc.append([target, "random", "freezeFalse", fold, of_random])
            for source in sources:
                x = rng.uniform(0.2, 0.9)
                gain = 0.6 + slope * x + rng.normal(scale=noise)
                auc.append([target, source, "freezeFalse", fold, of_random * (1 + gain)])
                auc.append([target, source, "freezeTrue", fold, 0.6])
                cca = [x] * len(LAYERS)
                pairs.append([f"{target}-{source}-freezeFalse", source, fold, target, *cca])
                pairs.append([f"{target}-{source}-freezeTrue", source, fold, target, *[0.99] * len(LAYERS)])
                pairs.append([f"{target}-{source}-freezeFalse", "random", fold, target, *[0.1] * len(LAYERS)])
            for prob, value in (("real", 0.8), ("rand", 0.6)):
                similarity.append([target, *sources[:2], "freezeFalse", fold, prob, value + rng.normal(scale=0.01)])
        write_csv(folder / f"CCA_{target}.csv", ["model1", "model2", "fold", "stimuli", *LAYERS], pairs)
    write_csv(folder / "AUC.csv", ["target", "source", "freeze", "fold", "AUC"], auc)
    write_csv(folder / "similarity.csv", ["target", "model1", "model2", "freeze", "fold", "prob", "value"], similarity)
    return folder


def change(path: Path, old: str, new: str) -> None:
    """Replace the first `old` in a file, which must be there."""
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{old!r} is not in {path}")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
