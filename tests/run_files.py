"""Run folders as fine-tuning leaves them, made up: no network is trained, the scores are drawn."""

import csv
import json
from pathlib import Path

import numpy as np
import yaml

from radtransfer.evaluation.metrics import Predictions, evaluate, summarize
from radtransfer.evaluation.scoring import Scoring

STAGES = ("stem", "stage1", "stage2")
SCORING = Scoring("multiclass", ("well", "sick"))


def write_run(
    folder: Path,
    *,
    shift: float = 1.0,
    seed: int = 0,
    folds: int = 3,
    patients: int = 60,
    backbone: str = "resnet50",
    parameters: int = 23_000_000,
    weights: str = "imagenet",
    starts_from: str = "pretrained",
    frozen: int = 0,
    noise: int = 0,
    curve: bool = True,
    status: str = "finished",
    settings: dict | None = None,
) -> Path:
    """A run whose scores of sick patients lie `shift` standard deviations above those of the others.

    Args:
        folder: Of the run.
        shift: What it learned.
        seed: The run's seed.
        folds: How many.
        patients: Two images each; every other one is sick. The same for every run.
        backbone: Its name.
        parameters: Its size.
        weights: Where they come from.
        starts_from: Of all stages.
        frozen: How many stages do not train.
        noise: Runs of one noise and shift give the same scores; those of another noise share half of the variance.
        curve: Whether AUC was watched.
        status: Of the run.
        settings: More dotted settings.
    """
    folder.mkdir(parents=True)
    images = 2 * patients
    truth = np.arange(images) // 2 % 2
    shared = np.random.default_rng(99).normal(size=images)
    own = np.random.default_rng([noise, seed]).normal(size=images)
    probabilities = 1 / (1 + np.exp(-(shift * truth + np.sqrt(0.5) * (shared + own))))
    fold_of = np.arange(images) // 2 % (2 * folds) // 2
    stages = [
        {"stage": name, "starts_from": starts_from, "trains": place >= frozen, "width": 1.0}
        for place, name in enumerate(STAGES)
    ]
    plan = {
        "scheme": "transfer",
        "head_first": False,
        "stages": stages,
        "total_parameters": parameters,
        "trainable_parameters": parameters * (len(STAGES) - frozen) // len(STAGES),
    }
    record = {"status": status, "backbone": backbone, "weights": {"source": weights}, "plan": plan, "seed": seed}
    _json(folder / "run.json", record | {"classes": list(SCORING.classes), "task": SCORING.task})
    document = {"seed": seed, "out": str(folder), "model": {"backbone": backbone, "weights": weights}}
    document |= {"transfer": {"scheme": starts_from, "frozen": frozen}, "training": {"learning_rate": 1e-3}}
    for name, value in (settings or {}).items():
        section, key = name.split(".")
        document[section] = document.get(section, {}) | {key: value}
    (folder / "config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    drawn = [
        [f"image_{row:03d}.png", f"p{row // 2}", SCORING.classes[truth[row]], number + 1, split]
        for number in range(folds)
        for row in range(images)
        for split in ["test" if fold_of[row] == number else "train"]
    ]
    _csv(folder / "folds.csv", ["path", "patient", "label", "fold", "split"], drawn)
    results = []
    for number in range(folds):
        rows = np.flatnonzero(fold_of == number)
        place = folder / f"fold_{number + 1}"
        place.mkdir()
        paths = [f"image_{row:03d}.png" for row in rows]
        results.append(
            Predictions(
                np.stack([1 - truth[rows], truth[rows]], axis=1).astype(float),
                np.stack([1 - probabilities[rows], probabilities[rows]], axis=1),
                paths,
                [f"p{row // 2}" for row in rows],
            )
        )
        lines = [
            [path, f"p{row // 2}", SCORING.classes[truth[row]], "test", 1 - probabilities[row], probabilities[row]]
            for path, row in zip(paths, rows, strict=True)
        ]
        _csv(place / "predictions.csv", ["path", "patient", "label", "split", "p_well", "p_sick"], lines)
        metrics = evaluate(results[-1], SCORING)
        _json(place / "metrics.json", metrics | {"fold": number + 1, "repeat": 0, "seed": seed})
        if curve:
            points = [
                [step, 1, "test", 0.5, 0.5 + (metrics["auc"] - 0.5) * min(step / 80, 1)] for step in range(0, 101, 10)
            ]
            _csv(place / "curve.csv", ["step", "epoch", "split", "loss", "auc"], points)
    _json(folder / "metrics.json", summarize(results, SCORING))
    return folder


def _json(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _csv(path: Path, header, rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])
