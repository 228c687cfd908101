"""The metadata of an exported model and the model card of a fold, from the files of the run.

The text of the card is in `reports/templates/model_card.md.j2`.

References:
    Mitchell et al. 2019, Model Cards for Model Reporting (arXiv 1810.03993): the sections.
"""

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from radtransfer import __version__
from radtransfer.config.schema import ImageSettings
from radtransfer.data.run_data import run_images
from radtransfer.errors import RadtransferError, RunError
from radtransfer.evaluation.calibration import edge_note
from radtransfer.evaluation.metrics import Predictions, shown_metrics, stored_metrics, summarize
from radtransfer.evaluation.predictions import read_predictions
from radtransfer.evaluation.scoring import Scoring, recorded_scoring
from radtransfer.images.preprocessing import MODES
from radtransfer.pretrained.read import sha256_of
from radtransfer.pretrained.source import spec_named, spec_of_file
from radtransfer.reports.page import render
from radtransfer.reports.statistics import count, number, plain_interval
from radtransfer.runs.folder import finished_folds, now, read_folds, read_run
from radtransfer.runs.read import read_record, read_settings, run_file

SPLITS = ("train", "val", "test")

FORMAT = 1  # version of the metadata, increased when the meaning of a key changes

NOT_A_DEVICE = "Research software, not a medical device."

FEW = 100  # with fewer test images of a class, the card calls the results uncertain
LARGEST_DIFFERENCE = 1e-5  # largest allowed difference of a probability after export


@dataclass(frozen=True)
class SplitCount:
    """One of the three sets of a fold."""

    images: int
    patients: int | None  # None if unknown
    classes: Mapping[str, int]  # images of each class, or with each label


@dataclass(frozen=True)
class RunFacts:
    """The records of one fold of a run."""

    run: Path
    fold: int
    record: Mapping[str, Any]  # run.json
    settings: Mapping[str, Any]  # config.yaml, section by section
    metrics: Mapping[str, Any]  # on the fold's test images
    overall: Mapping[str, Any]  # of the whole run; empty if it is not finished
    folds: tuple[int, ...]  # the finished ones

    @property
    def name(self) -> str:
        return self.run.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the outputs."""
        return tuple(self.record["classes"])

    @property
    def scoring(self) -> Scoring:
        return recorded_scoring(self.record, positive_from=(self.settings.get("data") or {}).get("positive_from"))

    @property
    def source(self) -> str:
        """The data set, without the folders of the machine."""
        given = str((self.record.get("data") or {}).get("source") or "not recorded")
        name, colon, place = given.partition(":")
        short = "/".join(Path(place if colon and len(name) > 1 else given).parts[-2:])
        return f"{name}:{short}" if colon and len(name) > 1 else short

    @property
    def notes(self) -> list[str]:
        """Notes on the data, without the folders of the machine."""
        data = self.settings.get("data") or {}
        places = [Path(place) for place in (data.get("source"), data.get("image_root")) if place]
        folders = {f"{place.parent}{os.sep}" for place in places if place.is_absolute()}
        notes = list(self.record.get("notes") or ())
        for folder in sorted(folders, key=len, reverse=True):
            notes = [note.replace(folder, "") for note in notes]
        return notes

    @property
    def scale_assumed(self) -> bool:
        """Whether the input scale is the default of the network, because neither user nor weights define it."""
        asked = (self.settings.get("model") or {}).get("preprocessing", "auto") != "auto"
        return not asked and (self.record.get("weights") or {}).get("preprocessing_from") == "assumed"

    @cached_property
    def reading(self) -> ImageSettings:
        """How the run read its images; the defaults if this is no longer known."""
        try:
            return run_images(self.run).images
        except RadtransferError:
            return ImageSettings()

    @cached_property
    def splits(self) -> Mapping[str, SplitCount]:
        """The sets of the fold, from `folds.csv`."""
        labels, patients = defaultdict(Counter), defaultdict(set)
        images: Counter[str] = Counter()
        several = self.record["task"] == "multilabel"
        for row in read_folds(self.run):
            if int(row["fold"]) == self.fold and row["split"] in SPLITS:
                images[row["split"]] += 1
                labels[row["split"]].update(filter(None, row["label"].split(";")) if several else [row["label"]])
                patients[row["split"]].add(row["patient"])
        known = all(patient for split in patients.values() for patient in split)
        return {
            split: SplitCount(images[split], len(patients[split]) if known else None, labels[split]) for split in SPLITS
        }

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The test metrics with their interval; None if labels are no longer available."""
        folder = self.run / f"fold_{self.fold}"
        try:
            found = read_predictions(str(folder))
        except RadtransferError as error:
            if isinstance(error, RunError) and (folder / "predictions.csv").is_file():
                raise
            return None
        predictions = Predictions(found.targets, found.probabilities, found.paths, found.patients)
        return summarize([predictions], found.scoring)

    @cached_property
    def model_sha256(self) -> str:
        return sha256_of(run_file(self.run, f"fold_{self.fold}/model.keras"))


def read_facts(run: Path, fold: int) -> RunFacts:
    """Read the records of a finished fold; RunError if a file is missing."""
    settings, overall = read_settings(run), run / "metrics.json"
    return RunFacts(
        run=run,
        fold=fold,
        record=read_run(run),
        settings=settings,
        metrics=read_record(run_file(run, f"fold_{fold}/metrics.json")),
        overall=read_record(overall) if overall.is_file() else {},
        folds=tuple(finished_folds(run)),
    )


_DEEP = 20  # longest chain of runs whose initial weights come from a run


@dataclass(frozen=True)
class WeightTerms:
    """The origin and terms of the initial weights of a run."""

    source: str  # without the folders of the machine
    sha256: str | None  # of their file, if any
    terms: str  # one or more sentences


def weight_terms(record: Mapping[str, Any]) -> WeightTerms:
    """The origin and terms from `run.json` and the manifest; for weights of a run, those of its initial weights."""
    weights = record.get("weights") or {}
    source = weights.get("source") or "random"
    return WeightTerms(_short(source), weights.get("sha256"), _terms(record, _DEEP))


def _terms(record: Mapping[str, Any], deep: int) -> str:
    weights, backbone = record.get("weights") or {}, record.get("backbone")
    given, file = weights.get("source") or "random", weights.get("file")
    if given == "random":
        return "It was initialized at random; no terms of third parties apply."
    card = spec_named(given, backbone=backbone) or (spec_of_file(Path(file)) if file else None)
    if card is not None and card.backbone == backbone:
        return card.terms
    # The run of a model file, if it still exists.
    runs = [folder for folder in list(Path(file).parents)[:2] if (folder / "run.json").is_file()] if file else []
    if runs and deep:
        with contextlib.suppress(RunError):
            source = read_run(runs[0])
            before = (source.get("weights") or {}).get("source") or "random"
            before = "random weights" if before == "random" else _short(before)
            return f"They come from another run, which started from {before}. {_terms(source, deep - 1)}"
    return "Not known to radtransfer. The terms of whoever published the file apply."


def _short(given: str) -> str:
    """A name unchanged; the last part of a path, with the run of a fold."""
    parts = Path(given).parts
    if len(parts) < 2:
        return given
    return "/".join(parts[-2:]) if parts[-1].startswith("fold_") else parts[-1]


_SQUARES = {
    "stretch": "resize it to {size}×{size} without keeping the aspect ratio",
    "pad": "resize it to fit into {size}×{size} and center it on a black square of that size",
    "crop": "crop it to its central square and resize that to {size}×{size}",
}


def inside_text(mode: str) -> str:
    """The input scale that the model applies."""
    return f"input scale {mode} ({MODES[mode].description})" if mode in MODES else "its own input scale"


def caller_text(size: int, reading: ImageSettings) -> str:
    """What the caller has to do with an image file before the model takes it, as a sentence without its full stop."""
    disc = "crop it to the disc of the retina, " if reading.fundus_crop else ""
    square = _SQUARES[reading.aspect].format(size=size)
    return (
        f"decode the image to RGB, apply its EXIF orientation, {disc}{square}, with antialiasing (Pillow's BILINEAR, "
        "TensorFlow's antialias=True, OpenCV's INTER_AREA when shrinking), and pass the values as float32, 0–255"
    )


def depth_text(reading: ImageSettings) -> str:
    """How values of more than 8 bits were scaled."""
    scaled = {
        "auto": "DICOM by the window in its header, PNG and TIFF of 16 bits from the full 16-bit range",
        "minmax": "from the minimum and maximum of each image",
    }
    return scaled.get(reading.window, f"by the window {reading.window} (center, width)") + " to 0–255"


def export_metadata(facts: RunFacts, *, size: int) -> dict[str, Any]:
    """The metadata of an exported model for images of `size` pixels: plain values, without folders of the machine."""
    record, reading, weights = facts.record, facts.reading, weight_terms(facts.record)
    plan = record.get("plan") or {}
    columns = ("stage", "starts_from", "trains", "width")
    return {
        "format": FORMAT,
        "written_by": f"radtransfer {__version__}",
        "written": now(),
        "notice": NOT_A_DEVICE,
        "task": record["task"],
        "classes": list(facts.classes),
        "activation": record["head"],
        "positive_from": record.get("positive_from"),
        "positive_class": facts.scoring.positive_class,
        "input": {
            "name": "image",
            "shape": [None, size, size, 3],
            "dtype": "float32",
            "channels": "RGB",
            "range": [0, 255],
            "preprocessing": record["preprocessing"],
            "inside": inside_text(record["preprocessing"]),
            "caller": caller_text(size, reading),
            "aspect": reading.aspect,
            "fundus_crop": reading.fundus_crop,
            "window": reading.window,
            "deep_values": depth_text(reading),
        },
        "output": {
            "name": "probabilities",
            "shape": [None, len(facts.classes)],
            "meaning": "a probability for each class, in the order of classes",
        },
        "provenance": {
            "run": facts.name,
            "fold": facts.fold,
            "started": record.get("started"),
            "model_sha256": facts.model_sha256,
            "versions": record.get("versions"),
            "seed": record.get("seed"),
            "backbone": record["backbone"],
            "plan": {
                "scheme": plan.get("scheme"),
                "through": plan.get("through"),
                "stages": [{name: part.get(name) for name in columns} for part in plan.get("stages", ())],
            },
            "weights": vars(weights),
            "data": {
                "source": facts.source,
                "images": (record.get("data") or {}).get("images"),
                "table_sha256": record.get("table_sha256"),
            },
            "test": {
                name: facts.metrics.get(name) for name in ("auc", *stored_metrics("exports"), "n_images", "n_patients")
            },
        },
    }


@dataclass(frozen=True)
class Exported:
    """One exported model."""

    path: Path  # the file or folder
    card: Path  # its model card
    size: int  # bytes
    difference: float  # largest absolute difference of a probability, after reloading in a new process
    bytes_difference: float | None  # the same if it decodes the files itself; None if it does not
    images: int  # number of compared images of the run; 0 if these are missing and random ones were used
    inside: str  # preprocessing in the model
    caller: str  # preprocessing by the caller
    usage: str
    positive_class: str | None  # of two classes


def model_card(
    facts: RunFacts, *, size: int, check: Exported | None = None, values: Mapping[str, Any] | None = None
) -> str:
    """The card; for an export, with its check, and `temperature` and `operating_point` of its metadata."""
    record, splits, tests = facts.record, facts.splits, facts.splits["test"].classes
    temperature, point = ((values or {}).get(name) for name in ("temperature", "operating_point"))
    versions = record.get("versions") or {}
    made_with = (f"{name} {versions[name]}" for name in ("radtransfer", "tensorflow", "keras") if name in versions)
    training = facts.settings.get("training") or {}
    named = {"optimizer": "", "learning_rate": "learning rate ", "schedule": "", "batch_size": "batch "}
    named |= {name: f"{name} " for name in ("augmentation", "loss", "ema_momentum") if training.get(name) is not None}
    return render(
        "model_card.md.j2",
        not_a_device=NOT_A_DEVICE,
        facts=facts,
        size=size,
        made_with=", ".join(made_with),
        images=(record.get("data") or {}).get("images") or sum(split.images for split in splits.values()),
        sets=[
            (name, count(splits[name].images), count(splits[name].patients))
            + tuple(count(splits[name].classes.get(label, 0)) for label in facts.scoring.in_order)
            for name in SPLITS
        ],
        leakage=(facts.settings.get("data") or {}).get("allow_leakage"),
        train_size=(facts.settings.get("splits") or {}).get("train_size"),
        results=_results(facts),
        overall=facts.overall.get("auc") or {},
        temperature=temperature,
        edge=edge_note([temperature]) if temperature else None,
        point=point,
        thresholds=point
        and [
            (name, f"{value:.4g}", number(point["sensitivity"].get(name)), number(point["specificity"].get(name)))
            for name, value in point["thresholds"].items()
        ],
        steps=[f"{word}{training[name]}" for name, word in named.items() if name in training],
        stages=[
            (part["stage"], part["starts_from"], "yes" if part["trains"] else "no", f"{part['width']:g}")
            for part in (record.get("plan") or {}).get("stages", ())
        ],
        terms=weight_terms(record),
        from_random=(record.get("weights") or {}).get("source") == "random",
        inside=inside_text(record["preprocessing"]),
        caller=caller_text(size, facts.reading),
        depth=depth_text(facts.reading),
        few=[f"{name} ({tests.get(name, 0)})" for name in facts.classes if tests.get(name, 0) < FEW],
        few_images=FEW,
        check=check,
        allowed=LARGEST_DIFFERENCE,
    )


def _results(facts: RunFacts) -> list[tuple[str, str, str]]:
    """Name, value and interval of each figure."""
    metrics, scoring = facts.metrics, facts.scoring
    per_class = metrics.get("per_class") or {}
    of = f" ({scoring.subject})" if scoring.subject else ""
    return [
        ("AUC", number(metrics.get("auc")), plain_interval(facts.summary["auc"]["ci95"] if facts.summary else None)),
        *((f"AUC, {name}", number(per_class[name]), "–") for name in scoring.in_order if name in per_class),
        *(
            (item.label + (of if item.names_subject else ""), number(metrics.get(item.name)), "–")
            for item in shown_metrics(metrics)
        ),
    ]
