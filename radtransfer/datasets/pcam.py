"""Lymph node sections, PatchCamelyon: 327,680 patches of 96×96 pixels (Veeling et al. 2018; CC0).

The HDF5 files of github.com/basveeling/pcam, unpacked (`gunzip`), anywhere below the folder; arrays `x`, uint8
(images, 96, 96, 3), and `y`, 0 or 1:

    camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5
    camelyonpatch_level_2_split_{train,valid,test}_meta.csv     (wsi,…; may be missing)

The patches are written once as PNG files to the cache (some minutes, 6 GB). `images=10000` draws so many of the three
files together (as they come, by a fixed seed), and writes only those. Juodelyte et al. 2023 use 10,000 as well, in five
drawn folds, but not the same: their PNG files of the three parts had the same names, so that later parts replaced some
of the earlier ones.

Classes: no, yes (a tumour in the centre). Patients: the slide, where the meta tables are there. Split:
`split=official` (default) is that of the files, `split=drawn` pools them for drawn folds.

References:
    Veeling, Linmans, Winkens, Cohen, Welling 2018, Rotation equivariant CNNs for digital pathology, arXiv 1806.03962.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from radtransfer.cache import cache_folder
from radtransfer.datasets.cached_images import fingerprint, write_once
from radtransfer.datasets.image_files import FileIndex, index_files
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import Option, PublicSet, Row, read_columns, table_of_rows
from radtransfer.errors import ConfigError, DataError
from radtransfer.settings import DataSettings

PCAM = PublicSet(
    name="pcam",
    tree="""
camelyonpatch_level_2_split_train_x.h5, …_train_y.h5, …_train_meta.csv   (unpacked; the meta tables may be missing)
camelyonpatch_level_2_split_valid_x.h5, …_valid_y.h5, …_valid_meta.csv
camelyonpatch_level_2_split_test_x.h5, …_test_y.h5, …_test_meta.csv
""",
    options={"split": Option(("official", "drawn")), "images": Option(("all",), number=True)},
)

_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_BLOCK = 1000
"""Patches that are read at once, and that share a folder of the cache."""


@dataclass(frozen=True)
class Part:
    """One of the three files: its name, the file of the patches, their labels (int, 0 or 1) and slides, or None."""

    name: str
    file: Path
    labels: np.ndarray
    slides: tuple[str, ...] | None

    def path(self, index: int) -> str:
        """Of a patch, in the cache."""
        return f"{self.name}/{index // _BLOCK:03d}/{index:06d}.png"


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The patches of the folder `location`, `FOLDER[,split=official|drawn][,images=all|N]`.

    Raises:
        DataError: Another tree, files that do not fit each other, or no room for the patches.
        ConfigError: An option it does not have, or more images than there are.
    """
    root, options = PCAM.open(settings, location)
    index = index_files(root, outside=True)
    parts = [_part(root, index, name) for name in _SPLITS]
    chosen = _chosen(parts, options["images"])
    key = fingerprint(part.file for part in parts)
    folder = cache_folder() / "pcam" / f"{options['images']}-{key}"
    folder, told = write_once(folder, lambda draft: _write(draft, parts, chosen), what="The patches of PCam")
    known = all(part.slides is not None for part in parts)
    rows = [
        Row(
            part.path(index),
            "yes" if part.labels[index] else "no",
            part.slides[index] if known else None,
            _SPLITS[part.name] if options["split"] == "official" else "",
        )
        for part, indices in zip(parts, chosen, strict=True)
        for index in indices.tolist()
    ]
    notes = [*told, f"{len(rows)} of {sum(len(part.labels) for part in parts)} patches, as PNG files in {folder}"]
    if known:
        notes.append(f"patients are slides ({len({row.patient for row in rows})})")
    return table_of_rows(rows, folder, settings, notes=notes)


def _part(root: Path, index: FileIndex, name: str) -> Part:
    stem = f"camelyonpatch_level_2_split_{name}"
    files = {kind: index.find(f"{stem}_{kind}") for kind in ("x.h5", "y.h5", "meta.csv")}
    for kind in ("x.h5", "y.h5"):
        if files[kind] is None:
            packed = " (only packed: run gunzip on it)" if index.find(f"{stem}_{kind}.gz") else ""
            raise PCAM.error(root, f"has no {stem}_{kind}{packed}")
    labels = _array(files["y.h5"], "y").reshape(-1)
    count = _count(files["x.h5"])
    slides = None
    if files["meta.csv"] is not None:
        slides = tuple(slide for (slide,) in read_columns(files["meta.csv"], "wsi"))
    if len(labels) != count or not np.isin(labels, (0, 1)).all() or len(slides or labels) != count:
        raise DataError(
            f"pcam: {files['x.h5']} holds {count} patches, {files['y.h5'].name} {len(labels)} labels (expected 0 or 1)"
            + (f", {files['meta.csv'].name} {len(slides)} rows" if slides else "")
            + ". Download them again."
        )
    return Part(name, files["x.h5"], labels, slides)


def _array(file: Path, key: str, part: slice = slice(None)) -> np.ndarray:
    import h5py

    try:
        with h5py.File(file) as handle:
            return handle[key][part]
    except (OSError, KeyError) as error:
        raise DataError(f"Cannot read the array {key!r} of {file} ({error}). Download it again.") from None


def _count(file: Path) -> int:
    """The number of patches.

    Raises:
        DataError: The file holds something else.
    """
    import h5py

    try:
        with h5py.File(file) as handle:
            shape, dtype = handle["x"].shape, handle["x"].dtype
    except (OSError, KeyError) as error:
        raise DataError(f"Cannot read the array 'x' of {file} ({error}). Download it again.") from None
    if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
        raise DataError(f"{file}: expected uint8 (images, height, width, 3), received {dtype} {shape}.")
    return shape[0]


def _chosen(parts: list[Part], images: str) -> list[np.ndarray]:
    """The patches of each part that are used, sorted."""
    counts = [len(part.labels) for part in parts]
    total = sum(counts)
    if images == "all":
        return [np.arange(count) for count in counts]
    if int(images) > total:
        raise ConfigError(f"pcam: images={images}, but there are {total}. Ask for fewer, or leave it out.")
    drawn = np.sort(np.random.default_rng(0).choice(total, int(images), replace=False))
    starts = np.cumsum([0, *counts])
    return [drawn[(drawn >= low) & (drawn < high)] - low for low, high in zip(starts, starts[1:], strict=False)]


def _write(folder: Path, parts: list[Part], chosen: list[np.ndarray]) -> None:
    for part, indices in zip(parts, chosen, strict=True):
        for block in np.unique(indices // _BLOCK).tolist():
            patches = _array(part.file, "x", slice(block * _BLOCK, (block + 1) * _BLOCK))
            (folder / part.path(block * _BLOCK)).parent.mkdir(parents=True)
            for index in indices[indices // _BLOCK == block].tolist():
                Image.fromarray(patches[index - block * _BLOCK]).save(folder / part.path(index), compress_level=1)
