"""The table of data set readers, and `read_table`, which finds and calls the right one.

To add one, write `read(settings: DataSettings, location: str | None) -> ImageTable` in a module here, and a line in
`DATASETS`; `--data <name>:<location>` then uses it. It raises `DataError`; checks of task and classes, patients from
`--patient-regex` or DICOM headers, and `--frames` are applied to every table here.
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
    """Every image of the data set `settings.source`, with labels, patients and given splits.

    The source is NAME or NAME:LOCATION of a reader in `DATASETS`; a folder of images, a folder of `train_fold1.csv …`,
    a prepared data set, or a CSV; or the address of a prepared data set (`gs://…`), which is copied here first.

    Raises ConfigError for a missing source or contradictory settings, and DataError for unusable data or ambiguous
    patient ids.
    """
    from radtransfer.data.labels import check_labels
    from radtransfer.data.table import patient_id_errors, with_frames, with_header_patients, with_patients

    name, location = open_source(settings, progress)
    table = DATASETS[name](settings, location)
    check_image_links(table, name, location, settings)
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
    """The reader of `settings.source` and its location, after checks of settings and links."""
    from radtransfer.data.csv import find_split_tables
    from radtransfer.data.image_files import check_links, links_out, walk_files

    if settings.patient_column and settings.patient_regex:
        raise ConfigError(
            f"Expected one source of patients, received --patient-column {settings.patient_column} and "
            f"--patient-regex {settings.patient_regex}. Leave one out.",
            settings=("patient_regex", "patient_column"),
        )
    name, location = find_dataset(settings.source, progress)
    _check_columns(settings, name)
    text = (location or "").partition("?")[0] if name == "tfds" else location or ""
    folder = Path(split_location(text)[0]).expanduser().absolute()
    if text and folder.is_dir() and name != "csv_table" and not settings.outside_root:
        if name == "fold_directory":  # the folder may contain other things
            check_links(folder, links_out(folder, [table.file for table in find_split_tables(folder)]))
        elif name != "image_folder":  # which checks links while it lists its files
            walk_files(folder)
    return name, location


def _check_columns(settings: DataSettings, dataset: str) -> None:
    """Raises ConfigError for column settings that contradict each other or do not apply to the data set."""
    columns = {"--split-column": settings.split_column, "--fold-column": settings.fold_column}
    given = [option for option, name in columns.items() if name]
    if given and dataset != "csv_table":
        by_name = dataset in ("fold_directory", "radimagenet_task")
        why = "fold and split come from the file names" if by_name else "it has no columns"
        raise ConfigError(
            f"{given[0]} {columns[given[0]]} names a column of a table, but {settings.source} is a {dataset}: {why}. "
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


def check_image_links(table: "ImageTable", name: str, location: str | None, settings: DataSettings) -> None:
    """Raises DataError if images of a `fold_directory` are links out of the folder, without `--outside-root`."""
    from radtransfer.data.image_files import check_links, links_out
    from radtransfer.images.refs import file_of

    if name == "fold_directory" and settings.image_root is None and not settings.outside_root:
        folder = Path(location or "").expanduser().absolute()
        check_links(folder, links_out(folder, [file_of(ref) for ref in table.files if ref is not None]))


def find_dataset(source: str | None, progress: Progress | None = None) -> tuple[str, str | None]:
    """The reader of `source` and its location on this machine; a set at an address is copied here first."""
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
            raise DataError(f"Cannot read the folder {path}. Check its permissions.") from None
        is_tables = any(table.split == "train" for table in tables)
        return "fold_directory" if is_tables else "image_folder", str(path)
    if path.exists() or path.is_symlink():
        return "csv_table", str(path)
    # A single letter before the colon is a Windows drive.
    if colon and re.fullmatch(r"\w{2,}", name):
        raise UnknownNameError("dataset", name, DATASETS)
    known = f" Or name a data set, such as busi:FOLDER; known: {', '.join(DATASETS)}."
    raise DataError(
        f"No data at {source!r}: expected a folder with one sub-folder per class, a folder of train_fold1.csv …, or "
        f"a CSV.{known if path.name == source else ''}{suggest_path(path)}"
    )


def check_source(source: str | None) -> None:
    """Raise an error early if a local source does not exist."""
    if source is not None and remote_source(source) is None:
        find_dataset(source)


def absolute_source(source: str) -> str:
    """`source` with an absolute path."""
    name, _, location = source.partition(":")
    if name in DATASETS:
        return f"{name}:{absolute_location(location)}" if location else source
    return absolute_location(source)


def split_location(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The folder of `FOLDER,name=value,…` and the (name, value) pairs; existing folders are never split."""
    folder, options = text, []
    while not (folder and Path(folder).expanduser().exists()):
        start, comma, end = folder.rpartition(",")
        option = re.fullmatch(r"\s*(\w+)\s*=([^,/\\]*)", end)
        if not comma or option is None:
            break
        folder, options = start, [(option[1], option[2].strip()), *options]
    return folder, tuple(options)


def absolute_location(text: str) -> str:
    """`text` with the absolute path of its folder, unchanged if there is no such folder."""
    folder, options = split_location(text)
    path = Path(folder).expanduser()
    if folder and path.exists():
        return ",".join([str(path.absolute()), *(f"{name}={value}" for name, value in options)])
    before, mark, after = text.partition("?")
    return f"{absolute_location(before)}?{after}" if mark else text
