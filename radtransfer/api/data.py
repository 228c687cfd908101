"""Data sets: their tables, batches for `model.fit`, and checks."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.api.progress import shown
from radtransfer.api.settings import ConfigLike, PathLike, frame, settings_of, table_html
from radtransfer.config.schema import Config
from radtransfer.process import Progress, require_keras, usable_cores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import tensorflow as tf

    from radtransfer.data.check import DataReport as Checked
    from radtransfer.data.image_check import CheckedImages
    from radtransfer.data.table import ImageTable


class Table:
    """The images of a data set with their labels; from `load_data`.

    Attributes:
        images: Paths, files, targets, classes, patients and splits, one row per image.
        config: Its sections `data` and `images` say how the data were read.
    """

    def __init__(self, images: "ImageTable", config: Config):
        self.images, self.config = images, config

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of `targets`."""
        return self.images.classes

    @property
    def targets(self) -> "np.ndarray":
        """float32 (images, classes): 0 or 1; NaN if unknown."""
        return self.images.targets

    def to_frame(self) -> "pd.DataFrame":
        """A row per image: `path`, `patient` if known, and a column of 0 and 1 per class."""
        patients = {} if self.images.patients is None else {"patient": self.images.patients}
        columns = {name: self.targets[:, column] for column, name in enumerate(self.classes)}
        return frame({"path": self.images.paths, **patients, **columns})

    def to_dataset(
        self,
        *,
        image_size: int = 224,
        batch_size: int = 32,
        augmentation: str = "none",
        preprocessing: str | None = None,
        shuffle: bool | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> "tf.data.Dataset":
        """Batches for `model.fit`: images, float32 (batch, size, size, 3), and targets, float32 (batch, classes).

        All images are decoded once first, to find unreadable ones.

        Args:
            image_size: Height and width in pixels.
            batch_size: Images per batch; the last may be smaller.
            augmentation: One of `radtransfer finetune --augmentation`.
            preprocessing: None for RGB, 0–255; a mode, such as "caffe", "torch" or "tf", for the input scale of a
                network.
            shuffle: Whether to shuffle in every epoch; by default only with augmentation.
            seed: Seed of shuffling and augmentation.
            workers: Images decoded in parallel; by default the number of cores.

        Raises:
            DataError: An image cannot be read.
            UnknownNameError: No such augmentation or mode.
        """
        require_keras()
        from radtransfer.images.pipeline import make_batches
        from radtransfer.images.preprocessing import preprocess, preprocessing_mode

        with shown():
            if preprocessing is not None:
                preprocessing_mode(preprocessing)
            checked = self._checked
            batches = make_batches(
                checked.table.paths,
                [place for place in checked.table.files if place is not None],
                checked.facts,
                checked.table.targets,
                image_size=image_size,
                reading=self.config.images,
                batch_size=batch_size,
                workers=workers or usable_cores(),
                augmentation=augmentation,
            )
            dataset = batches.to_dataset(shuffle=augmentation != "none" if shuffle is None else shuffle, seed=seed)
        if preprocessing is None:
            return dataset
        return dataset.map(lambda images, targets: (preprocess(images, preprocessing), targets))

    @cached_property
    def _checked(self) -> "CheckedImages":
        from radtransfer.data.image_check import check_images

        return check_images(
            self.images,
            workers=usable_cores(),
            on_bad_image=self.config.data.on_bad_image,
            report_file=None,
            reading=self.config.images,
        )

    def _summary(self) -> dict[str, Any]:
        counts = (self.targets == 1).sum(axis=0)
        patients = "unknown" if self.images.patients is None else len(set(self.images.patients))
        classes = ", ".join(f"{name} {count}" for name, count in zip(self.classes, counts, strict=True))
        return {"images": len(self), "patients": patients, "task": self.images.task, "classes": classes}

    def __repr__(self) -> str:
        return f"Table({', '.join(f'{name}: {value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return table_html(str(self.config.data.source), self._summary())


def load_data(
    data: Any,
    *,
    config: ConfigLike | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Table:
    """Read the table of a data set, its images and labels; no image is opened.

    The arguments are described in `radtransfer.api`; of the settings, those about reading data apply, such as
    `image_root`, `label_column`, `patient_column`, `aspect`, `window`.

    Raises:
        ConfigError, DataError: The data cannot be read as requested.

    Example:
        >>> table = rt.load_data("images.csv", image_root="images", quiet=True)
        >>> table
        Table(images: 48, patients: 24, task: multiclass, classes: sick 24, well 24)
        >>> images, targets = next(iter(table.to_dataset(image_size=24, batch_size=8)))
        >>> images.shape, targets.shape
        (TensorShape([8, 24, 24, 3]), TensorShape([8, 2]))
    """
    with shown(progress, quiet) as progress:
        checked = settings_of(data, config=config, settings=settings)
        from radtransfer.data.readers import read_table
        from radtransfer.data.table import show_notes

        table = read_table(checked.data, progress=progress)
        show_notes(table.notes, progress)
        return Table(table, checked)


class DataReport:
    """The result of `check_data`.

    Attributes:
        record: The whole report; `to_dict()` is the output of `radtransfer data check --json`.
        valid: True if no finding is an error, which would make results invalid.
        files: The files that were written.
    """

    def __init__(self, record: "Checked", files: tuple[Path, ...] = ()):
        self.record, self.valid, self.files = record, record.valid, files

    @cached_property
    def findings(self) -> "pd.DataFrame":
        """A row per finding: `severity` ("error", "warning", "note"), `kind`, `message`, `files`, `patients`."""
        names = ("severity", "kind", "message", "files", "patients")
        return frame([[getattr(item, name) for name in names] for item in self.record.findings], columns=names)

    def to_frame(self) -> "pd.DataFrame":
        """`findings`."""
        return self.findings

    def to_dict(self) -> dict[str, Any]:
        """The whole report, as `radtransfer data check --json` prints it."""
        return self.record.to_dict()

    def __repr__(self) -> str:
        kinds = self.record.kinds.items()
        found = ", ".join(f"{len(items)} × {severity} {kind}" for (severity, kind), items in kinds) or "nothing"
        return f"DataReport({self.record.data!r}, images: {self.record.images}, valid: {self.valid}, found: {found})"

    def _repr_html_(self) -> str:
        rows = {"images": self.record.images, "valid": "yes" if self.valid else "no"}
        table = self.findings.drop(columns=["files", "patients"]).to_html(index=False) if len(self.findings) else ""
        return table_html(self.record.data, rows) + table


def check_data(
    data: Any = None,
    *,
    config: ConfigLike | None = None,
    out: PathLike | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> DataReport:
    """Decode every image and find problems that would make results wrong; the command `radtransfer data check`.

    The arguments are described in `radtransfer.api`; of the settings, those about reading and splitting data
    apply, such as `image_root`, `label_column`, `folds`. `out` is a folder for check.json and check.html, a page.

    Raises:
        ConfigError: A setting cannot be used. Problems of the data are findings, not exceptions.

    Example:
        >>> report = rt.check_data("images.csv", image_root="images", quiet=True)
        >>> report.valid, sorted(set(report.findings["kind"]))
        (True, ['few_patients', 'small_image', 'table'])
    """
    with shown(progress, quiet) as progress:
        from radtransfer.files import atomic_folder, check_out
        from radtransfer.training.names import check_value

        checked = settings_of(data, config=config, settings=settings, check=check_value)
        if out is not None:
            check_out(Path(out))
        from radtransfer.data.check import check_data as check

        record = check(checked, progress=progress)
        if out is None:
            return DataReport(record)
        from radtransfer.data.pictures import check_page
        from radtransfer.runs.folder import write_json, write_text

        page = check_page(record, count=lambda done, total: progress.count("pictures", done, total))
        names = ("check.json", "check.html")
        with atomic_folder(Path(out), names) as folder:
            write_json(folder / names[0], record.to_dict())
            write_text(folder / names[1], page)
        return DataReport(record, tuple(Path(out) / name for name in names))
