"""What is known of one fold of a run, read from its folder alone: what cards and metadata are made of."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from radtransfer.comparisons.comparison_images import run_file, run_images
from radtransfer.comparisons.run_predictions import read_predictions
from radtransfer.errors import RadtransferError, RunError
from radtransfer.metrics.evaluation import Predictions, Summary, summarize
from radtransfer.metrics.scoring import Scoring, recorded_scoring
from radtransfer.run_reading import read_record, read_settings
from radtransfer.runs import finished_folds, read_folds, read_run
from radtransfer.settings import ImageSettings
from radtransfer.weight_formats.reading import sha256_of

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitCount:
    """One of the three sets of a fold.

    Attributes:
        images: How many.
        patients: How many; None where they are not known.
        classes: Images of each class, or with each label.
    """

    images: int
    patients: int | None
    classes: Mapping[str, int]


@dataclass(frozen=True)
class RunFacts:
    """One fold of a run.

    Attributes:
        run: The folder.
        fold: Number.
        record: What `run.json` says.
        settings: What `config.yaml` says, section by section.
        metrics: Of the fold's test images.
        overall: Of the whole run; empty where it is not finished.
        folds: The finished ones.
    """

    run: Path
    fold: int
    record: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    overall: Mapping[str, Any]
    folds: tuple[int, ...]

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
        """The data set, without the folders of the machine it lay on."""
        given = str((self.record.get("data") or {}).get("source") or "not recorded")
        name, colon, place = given.partition(":")
        short = "/".join(Path(place if colon and len(name) > 1 else given).parts[-2:])
        return f"{name}:{short}" if colon and len(name) > 1 else short

    @property
    def notes(self) -> list[str]:
        """What was noticed about the data, without the folders of the machine it lay on."""
        data = self.settings.get("data") or {}
        places = [Path(place) for place in (data.get("source"), data.get("image_root")) if place]
        folders = {f"{place.parent}{os.sep}" for place in places if place.is_absolute()}
        notes = list(self.record.get("notes") or ())
        for folder in sorted(folders, key=len, reverse=True):
            notes = [note.replace(folder, "") for note in notes]
        return notes

    @property
    def scale_assumed(self) -> bool:
        """Whether the input scale is the network's usual one, for want of a word of the user or of the weights."""
        asked = (self.settings.get("model") or {}).get("preprocessing", "auto") != "auto"
        return not asked and (self.record.get("weights") or {}).get("preprocessing_from") == "assumed"

    @cached_property
    def reading(self) -> ImageSettings:
        """How the run read its images; the defaults where that is not known any more."""
        try:
            return run_images(self.run).images
        except RadtransferError:
            return ImageSettings()

    @cached_property
    def splits(self) -> Mapping[str, SplitCount]:
        """Of the fold, from `folds.csv`."""
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
    def summary(self) -> Summary | None:
        """The fold's test figures with their interval; None where labels are needed that are not there any more.

        Raises:
            RunError: The fold's predictions were cut or changed.
        """
        try:
            found = read_predictions(str(self.run / f"fold_{self.fold}"))
        except RadtransferError as error:
            there = (self.run / f"fold_{self.fold}" / "predictions.csv").is_file()
            if isinstance(error, RunError) and there:  # cut or changed, and not left out
                raise
            return None
        predictions = Predictions(found.targets, found.probabilities, found.paths, found.patients)
        return summarize([predictions], found.scoring)

    @cached_property
    def model_sha256(self) -> str:
        return sha256_of(run_file(self.run, f"fold_{self.fold}/model.keras"))


def read_facts(run: Path, fold: int) -> RunFacts:
    """The facts of a finished fold.

    Raises:
        RunError: A file of the run is not there.
    """
    document = read_settings(run)
    overall = run / "metrics.json"
    return RunFacts(
        run=run,
        fold=fold,
        record=read_run(run),
        settings=document,
        metrics=read_record(run_file(run, f"fold_{fold}/metrics.json")),
        overall=read_record(overall) if overall.is_file() else {},
        folds=tuple(finished_folds(run)),
    )
