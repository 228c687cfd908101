"""Finds a TFDS data set on this machine; nothing is ever downloaded or prepared without being asked for."""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from radtransfer.datasets.tfds.known import KNOWN_SETS
from radtransfer.environment import require_keras
from radtransfer.errors import DataError, closest_names
from radtransfer.near_path import near_path

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

METADATA = "dataset_info.json"
"""The file that makes a folder a data set of TFDS."""

_MANUAL = Path("downloads") / "manual"


def open_builder(location: str, data_dir: str | None) -> "tfds.core.DatasetBuilder":
    """The builder of the set in the folder `location`, or of the set of that NAME[/CONFIG][:VERSION].

    Args:
        location: A folder that holds the set, or exactly one below it; or a name that TFDS knows.
        data_dir: Where TFDS keeps its sets; default: its own default.

    Raises:
        DataError: No such folder, set, config or version.
    """
    folder = Path(location).expanduser()
    if folder.is_dir():
        return _from_folder(set_folder(folder))
    require_keras()
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return tfds.builder(location, data_dir=data_dir)
        except tfds.core.registered.DatasetNotFoundError:
            raise DataError(_unknown(location)) from None
        except (AssertionError, ValueError, RuntimeError, FileNotFoundError) as error:
            reason = re.sub(r'^Failed to construct dataset .*?}": ', "", str(error)).strip().splitlines()[0]
            raise DataError(f"tfds:{location}: {reason}{_configs(location)}") from None


def set_folder(folder: Path) -> Path:
    """The folder of the one TFDS set that lies in `folder` or below it.

    Raises:
        DataError: There is none, or there are several.
    """
    if (folder / METADATA).is_file():
        return folder
    # NAME/CONFIG/VERSION is as deep as TFDS goes.
    found = sorted(file.parent for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/{METADATA}"))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(str(item.relative_to(folder)) for item in found[:6])
        raise DataError(f"{folder} holds {len(found)} TFDS data sets ({shown}). Name the folder of one of them.")
    raise DataError(
        f"{folder} holds no TFDS data set: expected a {METADATA} in it or below it. Give the folder that TFDS or "
        "`radtransfer data prepare` wrote."
    )


def read_split(
    builder: "tfds.core.DatasetBuilder", split: str, *, image: str, location: str, data_dir: str | None
) -> "tf.data.Dataset":
    """The examples of one split in the order in which they are stored, the feature `image` undecoded.

    Raises:
        DataError: The set was not prepared; gives the tree of files that must be downloaded by hand, and the command.
    """
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return builder.as_dataset(
                split=split,
                shuffle_files=False,
                decoders={image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
            )
        except AssertionError:
            raise DataError(_not_prepared(builder, location, data_dir)) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the remarks of TFDS to its own developers off the terminal."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _from_folder(folder: Path) -> "tfds.core.DatasetBuilder":
    require_keras()
    import tensorflow_datasets as tfds

    with quiet():
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # whatever its parsers meet in a damaged file
            raise DataError(f"{folder}: TFDS cannot open this data set ({error}). Prepare it again.") from None


def _unknown(location: str) -> str:
    import tensorflow_datasets as tfds

    hint = closest_names(re.split("[/:]", location)[0], tfds.list_builders(with_community_datasets=False))
    # Hundreds of names help nobody.
    hint = hint if hint.startswith("Did") else "A prepared set is also found by its folder."
    meant = near_path(location) or f" {hint}"
    return f"tfds:{location} is neither a folder nor a data set that TFDS knows.{meant}"


def _configs(location: str) -> str:
    """A sentence with the configs of the set, if there is one and it has some."""
    import tensorflow_datasets as tfds

    try:
        configs = list(tfds.builder_cls(re.split("[/:]", location)[0]).builder_configs)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        return ""
    return f" Its configs: {', '.join(configs)}." if configs else ""


def _not_prepared(builder: "tfds.core.DatasetBuilder", location: str, data_dir: str | None) -> str:
    import tensorflow_datasets as tfds

    root, known = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser(), KNOWN_SETS.get(builder.name)
    where = f", data_dir={str(root)!r}" if data_dir else ""
    # Not `tfds build`: that command also needs Apache Beam.
    command = f"import tensorflow_datasets as tfds; tfds.builder({location!r}{where}).download_and_prepare()"
    lines = [f"tfds:{location} is not prepared in {root}"]
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        terms = f" ({builder.info.homepage})" if builder.info.homepage else ""
        lines[0] += f", and its images must be downloaded by hand{terms}. Put them exactly there:"
        lines.append(f"  {root / _MANUAL}/")
        # What a builder says of itself, where nothing better is known.
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS.strip().splitlines()
        lines += [f"    {entry.strip()}" for entry in (known.tree if known else instructions)]
        lines.append("Then prepare it once:")
    else:
        lines[0] += ". Prepare it once, which downloads it:"
    lines.append(f'  python -c "{command}"')
    if known and known.advice:
        lines.append(known.advice)
    if importlib.util.find_spec("importlib_resources") is None:
        lines.append("TFDS needs `pip install importlib_resources` for that, which it does not say.")
    return "\n".join(lines)
