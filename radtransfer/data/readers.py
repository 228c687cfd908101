"""The datasets: where images, labels, patients and splits come from.

To add one, write a module here with `read(settings: DataSettings, location: str | None) -> ImageTable` and add one line
to `DATASETS`; `--data <name>:<location>` then reads it. Public downloads are entries of `data/public.py`. Errors are
`DataError`s. Task, classes and `--positive-from` are checked here for every dataset; `--patient-regex` and DICOM
headers serve all that bring no patients, and `--frames` all.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.config.schema import Config, DataSettings
from radtransfer.errors import ConfigError, DataError, Table, UnknownNameError, suggest_path
from radtransfer.images.refs import remote_source
from radtransfer.process import Progress

if TYPE_CHECKING:
    from radtransfer.data.table import ImageTable

DATASETS = Table(
    "dataset",
    {
        "image_folder": "radtransfer.data.image_list:read",
        "csv_table": "radtransfer.data.csv:read_csv",
        "fold_directory": "radtransfer.data.csv:read_fold_tables",
        "synthetic_fundus": "radtransfer.data.synthetic:read",
        "tfds": "radtransfer.data.tfds:read",
        "chest_xray": "radtransfer.data.public:CHEST_XRAY",
        "busi": "radtransfer.data.public:BUSI",
        "ddti": "radtransfer.data.public:DDTI",
        "cbis_ddsm": "radtransfer.data.public:CBIS_DDSM",
        "mrnet": "radtransfer.data.public:MRNET",
        "pcam": "radtransfer.data.public:PCAM",
        "isic2018": "radtransfer.data.public:ISIC2018",
        "ham10000": "radtransfer.data.public:HAM10000",
        "kvasir": "radtransfer.data.public:KVASIR",
        "chexpert": "radtransfer.data.public:CHEXPERT",
        "eyepacs": "radtransfer.data.public:EYEPACS",
        "aptos2019": "radtransfer.data.public:APTOS2019",
        "radimagenet_task": "radtransfer.data.public:RADIMAGENET_TASK",
    },
)


def read_table(settings: DataSettings, *, progress: Progress | None = None) -> "ImageTable":
    """Every image of the data set that `settings.source` names, with labels, patients and given splits.

    The source is NAME or NAME:LOCATION of a dataset in the table; otherwise a folder of images, a folder of
    `train_fold1.csv …`, a prepared data set, or a CSV, whichever stands there; or the address of a prepared data set,
    `gs://…`, which is copied to this machine first, of which `progress` is told.

    Raises ConfigError if no source is given, or settings contradict each other, and DataError if nothing usable is
    there, or patient ids mislead.
    """
    from radtransfer.data.labels import check_labels
    from radtransfer.data.table import patient_id_errors, with_frames, with_header_patients, with_patients

    name, location = open_source(settings, progress)
    table = DATASETS[name](settings, location)
    check_places(table, name, location, settings)
    notes = check_labels(table, settings)
    table = replace(table, notes=table.notes + notes, exact_patient_ids=settings.allow_alike_patients)
    table = with_patients(with_header_patients(table, settings), settings)
    for error in patient_id_errors(table):
        raise error
    return with_frames(table, settings)


def drop_unfit_settings(config: Config, progress: Progress, *, note: Callable[[str], None] | None = None) -> Config:
    """`config` without the settings in `config.optional` that do not fit the data; `note` gets a sentence about them.

    Errors as of `read_table`, for data that cannot be read without these settings either.
    """
    settings, default, dropped = config.data, DataSettings(), []
    while config.optional:
        try:
            read_table(settings, progress=progress)
            break
        except (ConfigError, DataError) as error:
            unfit = [name for name in error.settings if f"data.{name}" in config.optional]
            unfit = [name for name in unfit if getattr(settings, name) != getattr(default, name)]
            if not unfit:
                raise
            value = getattr(settings, unfit[0])
            dropped.append(f"data.{unfit[0]} ({','.join(value) if isinstance(value, tuple) else value})")
            settings = replace(settings, **{unfit[0]: getattr(default, unfit[0])})
    if dropped:
        (note or progress.note)(f"left out, as they do not fit {settings.source}: {', '.join(dropped)}")
    return replace(config, data=settings, optional=frozenset())


def open_source(settings: DataSettings, progress: Progress | None = None) -> tuple[str, str | None]:
    """The dataset that reads `settings.source`, and its location; settings fit, and no link leads out that may not."""
    from radtransfer.data.csv import find_split_tables
    from radtransfer.data.image_files import check_links, links_out, walk_files

    if settings.patient_column and settings.patient_regex:
        raise ConfigError(
            f"The patient comes from one place: got --patient-column {settings.patient_column} and "
            f"--patient-regex {settings.patient_regex}. Leave one out.",
            settings=("patient_regex", "patient_column"),
        )
    name, location = find_dataset(settings.source, progress)
    _check_columns(settings, name)
    place = (location or "").partition("?")[0] if name == "tfds" else location or ""
    folder = Path(split_location(place)[0]).expanduser().absolute()
    if place and folder.is_dir() and name != "csv_table" and not settings.outside_root:
        if name == "fold_directory":  # which may stand among other things
            check_links(folder, links_out(folder, [table.file for table in find_split_tables(folder)]))
        elif name != "image_folder":  # which looks while it lists its files
            walk_files(folder)
    return name, location


def _check_columns(settings: DataSettings, dataset: str) -> None:
    """Raises ConfigError if settings on columns do not fit each other, or a dataset that has no such columns."""
    placement = {"--split-column": settings.split_column, "--fold-column": settings.fold_column}
    given = [option for option, name in placement.items() if name]
    if given and dataset != "csv_table":
        by_name = dataset in ("fold_directory", "radimagenet_task")
        why = "the files' names give fold and split" if by_name else "it has none"
        raise ConfigError(
            f"{given[0]} {placement[given[0]]} names a column of a table, but {settings.source} is a {dataset}: {why}. "
            "Leave it out.",
            settings=(given[0].strip("-").replace("-", "_"),),
        )
    separator = settings.label_separator
    if separator is None:
        return
    if dataset not in ("csv_table", "fold_directory"):
        raise ConfigError(
            f"--label-separator is for a column of a table, but {settings.source} is a {dataset}. Leave it out.",
            settings=("label_separator",),
        )
    several = len(settings.label_column) > 1
    received = (
        "an empty text" if not separator else f"--label-column {','.join(settings.label_column)}" if several else ""
    )
    if settings.task in ("binary", "multiclass"):
        received = received or f"--task {settings.task}"
    if received:
        raise ConfigError(
            "--label-separator needs the text that separates the labels in the cells of one column, such as |, and "
            f"makes several labels per image. Received: {received}.",
            settings=("label_column" if several else "task", "label_separator"),
        )


def check_places(table: "ImageTable", name: str, location: str | None, settings: DataSettings) -> None:
    """Raises DataError if links lead the images of a folder of tables out of that folder, and may not."""
    from radtransfer.data.image_files import check_links, links_out
    from radtransfer.images.refs import file_of

    if name == "fold_directory" and settings.image_root is None and not settings.outside_root:
        folder = Path(location or "").expanduser().absolute()
        check_links(folder, links_out(folder, [file_of(place) for place in table.files if place is not None]))


def find_dataset(source: str | None, progress: Progress | None = None) -> tuple[str, str | None]:
    """The name of the dataset that reads `source`, and the location that it is given, on this machine.

    A set that is named by its address is copied here first, of which `progress` is told.
    """
    if not source:
        raise ConfigError("No data given. Pass --data with a folder of class folders, a CSV or a built-in set.")
    if (remote := remote_source(source)) is not None:
        from radtransfer.data.tfds import copied_set

        return "tfds", copied_set(remote, progress or Progress())
    name, colon, location = source.partition(":")
    if name in DATASETS:
        return name, location or None
    path = Path(source).expanduser()
    if path.is_dir():
        from radtransfer.data.csv import find_split_tables
        from radtransfer.data.tfds import is_prepared
        from radtransfer.data.tfds_files import METADATA

        if is_prepared(path) or (path / METADATA).is_file():
            return "tfds", str(path)
        try:
            tables = find_split_tables(path)
        except PermissionError:
            raise DataError(f"The folder {path} may not be read. Check its permissions.") from None
        is_tables = any(table.split == "train" for table in tables)
        return "fold_directory" if is_tables else "image_folder", str(path)
    if path.exists() or path.is_symlink():
        return "csv_table", str(path)
    # A single letter before the colon is a Windows drive.
    if colon and re.fullmatch(r"\w{2,}", name):
        raise UnknownNameError("dataset", name, DATASETS)
    names = "" if path.name != source else f", or one of {', '.join(DATASETS)}"
    raise DataError(
        f"No data at {source!r}: expected a folder with one sub-folder per class, a CSV, or a folder of "
        f"train_fold1.csv …{names}.{suggest_path(path)}"
    )


def check_source(source: str | None) -> None:
    """See that something lies at a source that is given, before a model is opened; an address is not asked."""
    if source is not None and remote_source(source) is None:
        find_dataset(source)


def absolute_source(source: str) -> str:
    """`source` as it reads the same data from every folder."""
    name, _, location = source.partition(":")
    if name in DATASETS:
        return f"{name}:{absolute_location(location)}" if location else source
    return absolute_location(source)


def split_location(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The folder of `FOLDER,name=value,…`, and the (name, value) pairs; a folder that is there is never cut."""
    folder, options = text, []
    while not (folder and Path(folder).expanduser().exists()):
        start, comma, end = folder.rpartition(",")
        option = re.fullmatch(r"\s*(\w+)\s*=([^,/\\]*)", end)
        if not comma or option is None:
            break
        folder, options = start, [(option[1], option[2].strip()), *options]
    return folder, tuple(options)


def absolute_location(text: str) -> str:
    """`text` with the full path of the folder that is there; where none is, `text` as it stands."""
    folder, options = split_location(text)
    path = Path(folder).expanduser()
    if folder and path.exists():
        return ",".join([str(path.absolute()), *(f"{name}={value}" for name, value in options)])
    before, mark, after = text.partition("?")
    return f"{absolute_location(before)}?{after}" if mark else text
