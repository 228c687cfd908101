"""Mammograms, CBIS-DDSM: 3,103 whole images of 1,566 patients (Lee et al. 2017; CC BY 3.0).

The four tables, in the folder itself or in `csv/`, and the whole mammograms in any of these forms anywhere below it:

    {mass,calc}_case_description_{train,test}_set.csv     (patient_id,pathology,image file path,…)
    jpeg/<series UID>/1-249.jpg                           Kaggle's awsaf49/cbis-ddsm-breast-cancer-image-dataset
    Mass-Training_P_00001_LEFT_CC/…/…/1-1.dcm             The Cancer Imaging Archive; converted in place (1-1.png) too
    images/Mass-Training_P_00001_LEFT_CC.png              one file per mammogram, as Juodelyte et al. 2023

A table's `image file path` is `Mass-Training_P_00001_LEFT_CC/<study UID>/<series UID>/000000.dcm`: a mammogram is the
file in a folder called as its series or as its case, or called as its case. Crops and masks have other names.

Classes: BENIGN, into which BENIGN_WITHOUT_CALLBACK is merged, and MALIGNANT, as Juodelyte et al. The tables have a row
per finding (3,568), which those count as images; here a mammogram is one image, malignant if any finding is (17
mammograms have both). `cases=all` (default), `mass` or `calc`.

Patients: patient_id. Split: `split=drawn` (default) pools all, as Juodelyte et al.; `split=official` keeps train and
test of the tables, and stops with cases=all at the 31 patients who have masses on one side and calcifications on the
other.

References:
    Lee, Gimenez, Hoogi, Miyake, Gorovoy, Rubin 2017, Scientific Data 4.

Chest X-rays, CheXpert: 223,648 images of 64,740 patients (Irvin et al. 2019; Stanford's research use agreement).

`CheXpert-v1.0-small`, or the full `CheXpert-v1.0`:

    train.csv, valid.csv       (Path,Sex,Age,Frontal/Lateral,AP/PA and 14 observations)
    train/patient00001/study1/view1_frontal.jpg …        valid/patient64541/study1/view1_frontal.jpg …

Labels: the five of the competition, as in Transfusion (Raghu et al. 2019); --label-column names others of the 14. 1 is
present, 0 absent, -1 uncertain (--uncertain), empty not mentioned (--unmentioned).

Patients: in the path. Split: `split=official` (default) tests on `valid.csv`, whose 234 images three radiologists
labelled, and draws the validation images from train by patient; its AUCs have wide intervals. `split=drawn` pools
both for drawn folds. Images: `view=all` (default), `frontal` or `lateral`. Do not flip them.

References:
    Irvin et al. 2019, CheXpert, arXiv 1901.07031.

Knee MRI, MRNet: 1,250 examinations with labels (Bien et al. 2018; Stanford's research use agreement).

`MRNet-v1.0`; volumes are uint8 (slices, 256, 256), tables have no header (`0000,1`):

    {train,valid}-{abnormal,acl,meniscus}.csv
    {train,valid}/{axial,coronal,sagittal}/0000.npy …

Options: `task=acl` (default), `meniscus` or `abnormal`; `plane=sagittal` (default), `coronal` or `axial`;
`slices=middle` (default), a number of slices around the middle, or `all`. Every slice has the label of its examination.

The slices are written once as PNG files to the cache. Juodelyte et al. 2023 and RadImageNet use sagittal slices that
radiologists had picked and labelled one by one (1,021 for ACL tears, about the middle; 4,201 for meniscus tears); read
those with `radimagenet_task`. The middle slice is the nearest that the volumes give; a tear may well lie beside it.

Classes: no, yes. Patients: the examination. Split: `split=drawn` (default) pools both parts, as Juodelyte et al.;
`split=official` tests on `valid`, the public test set being none.

References:
    Bien et al. 2018, Deep-learning-assisted diagnosis for knee magnetic resonance imaging, PLOS Medicine 15.

Lymph node sections, PatchCamelyon: 327,680 patches of 96×96 pixels (Veeling et al. 2018; CC0).

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

The tasks of RadImageNet's authors, with their folds: knee, thyroid, breast, lung and head (Mei et al. 2022; MIT).

A folder of github.com/BMEII-AI/RadImageNet, whose tables stand in `dataframe/`; the images of most tasks have to be
brought from their public sets, under the names in the tables:

    acl/dataframe/{train,val,test}_fold1.csv …              filename,acl_label     images/0001_sagittal_11.000000.png
    meniscus/dataframe/meniscus_{train,val,test}_fold1.csv …  img_dir,label        the same
    thyroid/dataframe/thyroid_{train,val,test}_fold1.csv …    img_dir,label        images/22_1.jpg
    breast/dataframe/breast_{train,val,test}_fold1.csv …      filename,label       images/normal (99).png
    pneumonia/dataframe/{train,val,test}.csv                  filename,Target,label
    hemorrhage/dataframe/hemorrhage_{train,val}.csv           pid,label,dir
    covid19, sarscovid2/dataframe/…_{train,val,test}.csv      filename,label       images/Bozhou_P20-00_0131.png

Classes: as written (yes and no, n and p, benign and malignant, positive and negative; CP, NCP, Normal). Patients: the
column `pid`, else the beginning of the file name; breast has none. Split: theirs; hemorrhage has no test table, so its
validation images are the test set. Bone age is a regression and cannot be read.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data import image_list as fold_directory
from radtransfer.data.image_files import FileIndex, index_files, is_image_name, walk_files
from radtransfer.data.image_list import find_split_tables
from radtransfer.data.public import SPLIT, Option, PublicSet, Row, fingerprint, read_columns, table_of_rows, write_once
from radtransfer.data.sheet import read_sheet
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError
from radtransfer.runs.cache import cache_folder

CBIS_DDSM = PublicSet(
    name="cbis_ddsm",
    tree="""
{mass,calc}_case_description_{train,test}_set.csv, here or in csv/
jpeg/<series UID>/1-249.jpg …                           (Kaggle), or
Mass-Training_P_00001_LEFT_CC/<study>/<series>/1-1.dcm  (The Cancer Imaging Archive), or
images/Mass-Training_P_00001_LEFT_CC.png …
""",
    options={"split": SPLIT, "cases": Option(("all", "mass", "calc"))},
)

PATHOLOGIES = {"BENIGN": "BENIGN", "BENIGN_WITHOUT_CALLBACK": "BENIGN", "MALIGNANT": "MALIGNANT"}


@dataclass
class Mammogram:
    """A whole image: case (`Mass-Training_P_00001_LEFT_CC`), series, patient, split and the labels of its findings."""

    case: str
    series: str
    patient: str
    split: str
    labels: set[str]


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official][,cases=all|mass|calc]`.

    Raises:
        DataError: Another tree, or a table that holds something else.
        ConfigError: An option it does not have.
    """
    root, options = CBIS_DDSM.open(settings, location)
    kinds = ("mass", "calc") if options["cases"] == "all" else (options["cases"],)
    mammograms: dict[str, Mammogram] = {}
    findings = sum(
        _collect(_table(root, kind, split), split, mammograms) for kind in kinds for split in ("train", "test")
    )
    places = Places(root)
    found = {case: places.find(mammogram) for case, mammogram in mammograms.items()}
    if not any(found.values()):
        raise CBIS_DDSM.error(root, f"has none of the {len(found)} mammograms in its tables")
    rows = [
        Row(
            found[case] or f"{case}.png",
            "MALIGNANT" if "MALIGNANT" in mammogram.labels else "BENIGN",
            mammogram.patient,
            mammogram.split if options["split"] == "official" else "",
        )
        for case, mammogram in mammograms.items()
    ]
    both = sum(len(mammogram.labels) > 1 for mammogram in mammograms.values())
    notes = [
        f"{findings} findings in {len(rows)} mammograms of {len({row.patient for row in rows})} patients; "
        f"{both} with benign and malignant findings are malignant",
        "BENIGN_WITHOUT_CALLBACK counted as BENIGN",
    ]
    return table_of_rows(rows, root, settings, notes=notes)


def _table(root: Path, kind: str, split: str) -> Path:
    name = f"{kind}_case_description_{split}_set.csv"
    for file in (root / name, root / "csv" / name):
        if file.is_file():
            return file
    raise CBIS_DDSM.error(root, f"has no {name}")


def _collect(file: Path, split: str, mammograms: dict[str, Mammogram]) -> int:
    """Adds the findings of a table to their mammograms; the number of findings."""
    findings = read_columns(file, "patient_id", "pathology", "image file path")
    for patient, pathology, path in findings:
        parts = PurePosixPath(path.strip('"')).parts
        if pathology not in PATHOLOGIES or len(parts) < 3:
            raise DataError(
                f"{file}: expected a pathology ({', '.join(PATHOLOGIES)}) and an image file path "
                f"CASE/STUDY/SERIES/FILE, received {pathology!r} and {path!r}."
            )
        case, series = parts[0], parts[2]
        mammogram = mammograms.setdefault(case, Mammogram(case, series, patient, split, set()))
        if (mammogram.series, mammogram.patient, mammogram.split) != (series, patient, split):
            raise DataError(f"{file}: {case} has two series, patients or splits. Download the tables again.")
        mammogram.labels.add(PATHOLOGIES[pathology])
    return len(findings)


class Places:
    """The images below `root`, by every folder they are in and by their own names without suffix."""

    def __init__(self, root: Path):
        self._root = root
        self._files: dict[str, list[str]] = defaultdict(list)
        for file in walk_files(root, outside=True):
            *folders, name = file.split("/")
            if is_image_name(name):
                for key in dict.fromkeys((*folders, name.rpartition(".")[0])):
                    self._files[key].append(file)

    def find(self, mammogram: Mammogram) -> str | None:
        """Where it is, relative to the root; a converted image goes before its DICOM file.

        Raises:
            DataError: Several images could be it.
        """
        for key in (mammogram.series, mammogram.case):
            files = self._files.get(key, [])
            found = [file for file in files if not file.endswith(".dcm")] or files
            if len(found) > 1:
                raise DataError(
                    f"cbis_ddsm: {found[0]!r} and {found[1]!r} in {self._root} could both be {mammogram.case}. "
                    "Keep one."
                )
            if found:
                return found[0]
        return None


LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""Of the competition."""

CHEXPERT = PublicSet(
    name="chexpert",
    tree="""
train.csv, valid.csv       with the columns Path, Frontal/Lateral and the 14 observations
train/patient00001/study1/view1_frontal.jpg …
valid/patient64541/study1/view1_frontal.jpg …
""",
    holds=("train.csv", "valid.csv"),
    inside=("CheXpert-v1.0-small", "CheXpert-v1.0"),
    options={"split": Option(("official", "drawn")), "view": Option(("all", "frontal", "lateral"))},
    columns=("label_column",),
)

_PATH = re.compile(r"(?:.*/)?(?P<path>(?:train|valid)/(?P<patient>patient\d+)/.+)")


def read_chexpert(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=official|drawn][,view=all|frontal|lateral]`.

    Raises:
        DataError: Another tree, or a table that holds something else.
        ConfigError: An option it does not have.
    """
    root, options = CHEXPERT.open(settings, location)
    labels = settings.label_column or LABELS
    official, view = options["split"] == "official", options["view"]
    rows, left = [], 0
    for name, split in (("train.csv", "train"), ("valid.csv", "test")):
        file = root / name
        for path, side, *cells in read_columns(file, "Path", "Frontal/Lateral", labels=labels):
            if view in ("all", side.lower()):
                rows.append(_row(file, path, tuple(cells), split if official else ""))
            else:
                left += 1
    notes = [f"{len({row.patient for row in rows})} patients by the paths", f"labels: {', '.join(labels)}"]
    if left:
        notes.append(f"{left} images that are not {view} left out")
    if official:
        notes.append("valid.csv is the test set")
    return table_of_rows(rows, root, settings, labels=labels, notes=notes)


def _row(file: Path, path: str, cells: tuple[str, ...], split: str) -> Row:
    match = _PATH.fullmatch(path)
    if match is None:
        raise DataError(f"{file}: expected a Path such as train/patient00001/study1/view1_frontal.jpg, got {path!r}.")
    return Row(match["path"], cells, match["patient"], split)


MRNET = PublicSet(
    name="mrnet",
    tree="""
train-acl.csv, valid-acl.csv, train-meniscus.csv, …        without a header: 0000,1
train/sagittal/0000.npy …, train/coronal/…, train/axial/…
valid/sagittal/1130.npy …
""",
    holds=("train", "valid"),
    inside=("MRNet-v1.0",),
    options={
        "task": Option(("acl", "meniscus", "abnormal")),
        "plane": Option(("sagittal", "coronal", "axial")),
        "slices": Option(("middle", "all"), number=True),
        "split": SPLIT,
    },
)

_LINE = re.compile(r"\s*(\d{4})\s*,\s*([01])(?:\.0*)?\s*")


@dataclass(frozen=True)
class Examination:
    """A volume: its part ("train" or "valid"), number, label, file (None: not there) and the slices that are used."""

    part: str
    number: str
    label: str
    file: Path | None
    slices: tuple[int, ...]

    def path(self, index: int) -> str:
        """Of a slice, in the cache."""
        return f"{self.part}/{self.number}_{index:02d}.png"


def read_mrnet(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The slices of the folder `location`, `FOLDER[,task=…][,plane=…][,slices=middle|all|N][,split=drawn|official]`.

    Raises:
        DataError: Another tree, a table or volume that holds something else, or a cache that cannot be written.
        ConfigError: An option it does not have.
    """
    root, options = MRNET.open(settings, location)
    plane, slices = options["plane"], options["slices"]
    examinations = [
        _examination(root, part, number, label, plane=plane, slices=slices)
        for part in ("train", "valid")
        for number, label in _labels(root, part, options["task"])
    ]
    there = [examination for examination in examinations if examination.file is not None]
    if not there:
        raise MRNET.error(root, f"has no {plane} volume of the {len(examinations)} examinations in its tables")
    key = fingerprint(examination.file for examination in there)
    folder = cache_folder() / "mrnet" / f"{plane}-{slices}-{key}"
    folder, told = write_once(folder, lambda draft: _write(draft, there), what="The slices of MRNet")
    splits = {"train": "train", "valid": "test"} if options["split"] == "official" else {"train": "", "valid": ""}
    rows = [
        Row(examination.path(index), examination.label, examination.number, splits[examination.part])
        for examination in examinations
        for index in examination.slices
    ]
    notes = [
        *told,
        f"{len(rows)} {plane} slices ({slices}) of {len(examinations)} examinations, as PNG files in {folder}",
    ]
    if len(there) < len(examinations):
        notes.append(f"{len(examinations) - len(there)} examinations have no {plane} volume")
    return table_of_rows(rows, folder, settings, notes=notes)


def chosen_slices(count: int, wanted: str) -> tuple[int, ...]:
    """The numbers of the slices, of `count`, that "middle", "all" or a number of them around the middle means."""
    size = {"middle": 1, "all": count}.get(wanted) or min(int(wanted), count)
    first = (count - size + 1) // 2
    return tuple(range(first, first + size))


def _labels(root: Path, part: str, task: str) -> list[tuple[str, str]]:
    """The number and the label of each examination of a part."""
    file = root / f"{part}-{task}.csv"
    if not file.is_file():
        raise MRNET.error(root, f"has no {file.name}")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None and line.strip():
            raise DataError(f"{file} line {number}: expected an examination and 0 or 1 (0000,1), received {line!r}.")
        if match:
            found.append((match[1], "yes" if match[2] == "1" else "no"))
    return found


def _examination(root: Path, part: str, number: str, label: str, *, plane: str, slices: str) -> Examination:
    file = root / part / plane / f"{number}.npy"
    if not file.is_file():
        return Examination(part, number, label, None, (0,))
    return Examination(part, number, label, file, chosen_slices(len(_volume(file)), slices))


def _volume(file: Path) -> np.ndarray:
    try:
        volume = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Cannot read {file} ({error}). Download it again.") from None
    if volume.ndim != 3 or volume.dtype != np.uint8 or not len(volume):
        raise DataError(
            f"{file}: expected uint8 (slices, height, width), received {volume.dtype} {volume.shape}. "
            "Use the volumes as they were downloaded."
        )
    return volume


def _write(folder: Path, examinations: list[Examination]) -> None:
    for part in ("train", "valid"):
        (folder / part).mkdir()
    for examination in examinations:
        volume = _volume(examination.file)
        for index in examination.slices:
            Image.fromarray(np.ascontiguousarray(volume[index])).save(folder / examination.path(index))


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


def read_pcam(settings: DataSettings, location: str | None = None) -> ImageTable:
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
    folder, told = write_once(folder, lambda draft: _write_pcam(draft, parts, chosen), what="The patches of PCam")
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


def _write_pcam(folder: Path, parts: list[Part], chosen: list[np.ndarray]) -> None:
    for part, indices in zip(parts, chosen, strict=True):
        for block in np.unique(indices // _BLOCK).tolist():
            patches = _array(part.file, "x", slice(block * _BLOCK, (block + 1) * _BLOCK))
            (folder / part.path(block * _BLOCK)).parent.mkdir(parents=True)
            for index in indices[indices // _BLOCK == block].tolist():
                Image.fromarray(patches[index - block * _BLOCK]).save(folder / part.path(index), compress_level=1)


RADIMAGENET_TASK = PublicSet(
    name="radimagenet_task",
    tree="""
dataframe/train_fold1.csv, val_fold1.csv, test_fold1.csv …    (acl; or with a prefix: meniscus_, thyroid_, breast_)
dataframe/train.csv, val.csv, test.csv                        (pneumonia; or with a prefix: covid19_, hemorrhage_ …)
images/…
""",
    columns=("image_root",),
)

_PATHS, _LABELS = ("filename", "img_dir", "dir"), ("acl_label", "label")

PATIENTS = (
    r"(\d{4})_(?:sagittal|coronal|axial)_[\d.]+",  # MRNet: examination_plane_slice
    r"(\d+)_\d+",  # DDTI: examination_image
    r"([A-Za-z]+_[NP]\d+)-\d+_.+",  # COVID-19: hospital_patient-slice
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",  # RSNA pneumonia: an image per patient
)
"""Of file names without suffix; the first that fits all of them tells the patients."""


def read_radimagenet_task(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of a task, in the folder `location`, or below `image_root`.

    Raises:
        DataError: Another tree, bone age, or tables that contradict themselves.
    """
    root, _ = RADIMAGENET_TASK.open(settings, location)
    folder = root / "dataframe" if (root / "dataframe").is_dir() else root
    tables = [table for table in find_split_tables(folder) if table.split == "train"]
    if not tables:
        raise RADIMAGENET_TASK.error(root, "has no table train_fold1.csv or train.csv, with or without a prefix")
    columns = read_sheet(tables[0].file).columns
    if "boneage" in columns:
        raise DataError(
            f"{tables[0].file} gives bone age in months, a regression; radtransfer classifies. "
            "Make a table of classes of it, and read that as a CSV."
        )
    path = next((name for name in _PATHS if name in columns), None)
    label = next((name for name in _LABELS if name in columns), None)
    if path is None or label is None:
        raise DataError(
            f"{tables[0].file}: expected a column {', '.join(_PATHS[:-1])} or {_PATHS[-1]}, and acl_label or label. "
            f"Columns: {', '.join(columns)}."
        )
    own = replace(
        settings,
        path_column=path,
        label_column=(label,),
        patient_column="pid" if "pid" in columns and settings.patient_regex is None else None,
        image_root=settings.image_root or str(folder.parent if folder.name == "dataframe" else folder),
    )
    table = fold_directory.read(own, str(folder))
    return _with_test(_with_patients(table, settings))


def _with_patients(table: ImageTable, settings: DataSettings) -> ImageTable:
    if table.patients is not None or settings.patient_regex is not None:
        return table
    names = [PurePosixPath(path).name.rpartition(".")[0] for path in table.paths]
    for pattern in PATIENTS:
        matches = [re.fullmatch(pattern, name) for name in names]
        if all(matches):
            patients = tuple(match[1] for match in matches)
            note = f"{len(set(patients))} patients by the file names"
            return replace(table, patients=patients, notes=(*table.notes, note))
    return table


def _with_test(table: ImageTable) -> ImageTable:
    """Validation images become test images where there are none; validation is then drawn from train."""
    if (table.splits == "test").any():
        return table
    splits = np.where(table.splits == "val", "test", table.splits)
    return replace(table, splits=splits, notes=(*table.notes, "no test table: the validation images are the test set"))
