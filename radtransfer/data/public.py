"""What the readers of public downloads share: a folder with options, the tree expected in it, rows to a table.

A location is `FOLDER`, or `FOLDER,option=value,…`. Each reader says in its docstring which tree, patients, split
and options its set has; the set's labels and patients are known, so settings that name columns are refused.

Image files that are made once, in a folder of the cache that appears whole or not at all.

The five grades of diabetic retinopathy: none, mild, moderate, severe, proliferative (ICDR, 0 to 4).

Diabetic retinopathy, APTOS 2019: 3,662 graded fundus photographs (Aravind Eye Hospital; Kaggle competition rules).

Kaggle's `aptos2019-blindness-detection`, unpacked; its test images have no public labels and are not read:

    train.csv (id_code,diagnosis)        train_images/000c1434d8d7.png

Classes: the grades 0 to 4. Referable is 2 or worse (moderate), so the reported AUC is of that (`--positive-from`
changes it); for the AUC of each grade, read the table as a CSV.

Patients are not known. Split: none.

Breast ultrasound, BUSI: 780 images of 600 women (Al-Dhabyani et al. 2020; CC0 at Kaggle).

Kaggle's `aryashah2k/breast-ultrasound-images-dataset`, or the authors' own archive:

    Dataset_BUSI_with_GT/benign/{benign (1).png, benign (1)_mask.png, benign (100)_mask_1.png, …}
    Dataset_BUSI_with_GT/{malignant,normal}/…

The three folders may also stand in a folder `images/`. Masks are skipped. Patients are not known: images of one woman
may fall in both train and test.

Classes: `normal=benign` (default) counts normal images as benign, as Juodelyte et al. 2023 and RadImageNet's breast
task do (570 benign, 210 malignant); `normal=class` keeps three classes; `normal=leave_out` drops the 133 normal images.

Split: none. The five folds of Juodelyte et al. are tables of their own, read with --data FOLDS --image-root FOLDER.

References:
    Al-Dhabyani, Gomaa, Khaled, Fahmy 2020, Dataset of breast ultrasound images, Data in Brief 28.

Paediatric chest X-rays, normal or with pneumonia: 5,856 images (Kermany et al. 2018; CC BY 4.0).

Kaggle's `paultimothymooney/chest-xray-pneumonia`, or `chest_xray` of the original at Mendeley Data, which has no
`val` and other file names:

    chest_xray/{train,val,test}/NORMAL/{IM-0115-0001,NORMAL2-IM-1427-0001,NORMAL-28501-0001}.jpeg
    chest_xray/{train,val,test}/PNEUMONIA/{person1_bacteria_1,person1_virus_6,VIRUS-1980593-0001}.jpeg

Kaggle's archive holds everything a second time in `chest_xray/chest_xray`; that copy is not read.

Classes: NORMAL, PNEUMONIA (bacteria and virus together, as Juodelyte et al. 2023).

Patients: in the file names. Juodelyte et al. take `person1` and `0115` whatever stands beside them; so does
`split=drawn`. These are too few: `person1_bacteria` and `person1_virus`, `IM-0115` and `NORMAL2-IM-0115` are
numbered apart (taken together, 264 of the 2,790 would stand in both train and test of the official split, taken
apart none of 4,097), but merging two patients leaks nothing. `split=official` takes them apart.

Split: `split=drawn` (default) pools all three folders, as Juodelyte et al. do; `split=official` keeps them (`val` has
16 images). Do not flip these images.

References:
    Kermany, Zhang, Goldbaum 2018, Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images,
    doi:10.17632/rscbjbr9sj.

Thyroid ultrasound, DDTI: 480 images of 390 examinations of nodules (Pedraza et al. 2015; research use).

Kaggle's `dasmehdixtr/ddti-thyroid-ultrasound-images`; all files in one folder, the XML file of an examination beside
its images:

    1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …      <case><number>2</number>…<tirads>4a</tirads>…</case>

Classes: TI-RADS 1 to 3 is benign, 4a to 5 malignant, as in Juodelyte et al. 2023 and RadImageNet's thyroid task.
Examinations without a TI-RADS score are left out (`unscored=leave_out`, default), as RadImageNet does: 349 images, 61
benign. Juodelyte et al. count them as benign (`unscored=benign`): 131 of their 192 benign images have no score.

Patients: the examination, the number before the "_". Split: none.

References:
    Pedraza, Vargas, Narváez, Durán, Muñoz, Romero 2015, An open access thyroid ultrasound image database.

Diabetic retinopathy, EyePACS: 35,126 graded fundus photographs, two eyes each (Kaggle 2015; its competition rules).

Kaggle's `diabetic-retinopathy-detection`, unpacked; the test labels were published later, in a post of its forum:

    trainLabels.csv (image,level)                       train/{10_left,10_right}.jpeg
    retinopathy_solution.csv (image,level,Usage)        test/{1_left,1_right}.jpeg       (only for split=official)

Classes: the grades 0 to 4. Referable is 2 or worse (moderate), so the reported AUC is of that (`--positive-from`
changes it); for the AUC of each grade, read the table as a CSV.

Patients: the number before `_left` and `_right`. Split: `split=drawn` (default) has the images of `train/` alone;
`split=official` validates on the public and tests on the private part of `test/`, 88,702 images in all. Transfusion
(Raghu et al. 2019) used RETINA, a larger set of the same kind that is not public.

Skin lesions, HAM10000: the images of ISIC 2018 task 3, as Kaggle and the Harvard Dataverse give them (CC BY-NC 4.0).

Kaggle's `kmader/skin-cancer-mnist-ham10000`, whose second copies in lower-case folders are not read:

    HAM10000_metadata.csv (lesion_id,image_id,dx,…)
    HAM10000_images_part_1/ISIC_0024306.jpg …        HAM10000_images_part_2/…

Classes: `dx`, in the capitals of ISIC 2018 (AKIEC, BCC, BKL, DF, MEL, NV, VASC). Patients: the lesion. Split: none.

References:
    Tschandl, Rosendahl, Kittler 2018, The HAM10000 dataset, Scientific Data 5.

Skin lesions, ISIC 2018 task 3: 10,015 dermoscopic images of 7 diagnoses (HAM10000; CC BY-NC 4.0).

The archives of challenge.isic-archive.com, unpacked into one folder; each table stands in a folder of its name or
beside it:

    ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
    ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv   (image,MEL,NV,BCC,AKIEC,BKL,DF,VASC)
    ISIC2018_Task3_Training_LesionGroupings.csv                                   (image,lesion_id,…; may be missing)
    ISIC2018_Task3_{Validation,Test}_{Input,GroundTruth}/…                        (only for split=official)

Classes: the seven columns, of which one is 1. Patients: the lesion, where its table is there; several images of one
lesion are common (10,015 of 7,470). Without it, as in the folds of Juodelyte et al. 2023, they leak.

Split: `split=drawn` (default) has the training images alone, as Juodelyte et al.; `split=official` validates on 193 and
tests on 1,512 more.

References:
    Tschandl, Rosendahl, Kittler 2018, The HAM10000 dataset, Scientific Data 5.
    Codella et al. 2019, arXiv 1902.03368.

Endoscopy, Kvasir: 8 classes of 500 (v1) or 1,000 images (v2) (Pogorelov et al. 2017; for research and education).

`kvasir-dataset.zip` or `kvasir-dataset-v2.zip` of Simula:

    kvasir-dataset[-v2]/{dyed-lifted-polyps,dyed-resection-margins,esophagitis,normal-cecum,
                         normal-pylorus,normal-z-line,polyps,ulcerative-colitis}/<uuid>.jpg

Classes: the eight folders. Patients are not known, and frames of one examination may fall in both train and test.
Split: none.

References:
    Pogorelov et al. 2017, Kvasir: a multi-class image dataset for computer aided gastrointestinal disease detection.
"""

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_files import is_dangling, is_image_name, walk_files
from radtransfer.data.labels import listed, multilabel_targets, one_hot, plain
from radtransfer.data.readers import split_location
from radtransfer.data.sheet import read_sheet
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError, DiskError, UnknownNameError, near_path
from radtransfer.runs.cache import cache_note, new_folder


@dataclass(frozen=True)
class Option:
    """What an option may be: one of the choices, of which the first is the default; or a positive integer."""

    choices: tuple[str, ...]
    number: bool = False


SPLIT = Option(("drawn", "official"))
"""Whether folds are drawn (by patient), or the split is the one that was published with the set."""


@dataclass(frozen=True)
class PublicSet:
    """A data set as it lies on disk after its public download.

    Attributes:
        name: In the table of datasets.
        tree: What the folder holds, as messages print it.
        holds: The names that must stand in the folder.
        inside: Folders of the archive in which they may stand instead, when the folder that holds it is given.
        options: What may be asked for after the folder.
        columns: The settings that name columns and make sense here.
    """

    name: str
    tree: str
    holds: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def open(self, settings: DataSettings, location: str | None) -> tuple[Path, dict[str, str]]:
        """The folder that holds the tree, and the value of every option.

        Raises:
            DataError: No such folder, another tree in it, or a setting that makes no sense for the set.
            ConfigError: An option that the set does not have, or a value that it does not take.
        """
        folder, given = split_location(location or "")
        self._check_settings(settings)
        options = self._values(given)
        root = Path(folder).expanduser().absolute()
        if not folder or not root.is_dir():
            named = folder or "no folder given"
            raise DataError(f"{self.name}: {named} is not a folder.{near_path(folder)} {self._expected()}")
        try:
            places = [root, *(root / name for name in self.inside)]
            for place in places:
                if all((place / name).exists() for name in self.holds):
                    return place, options
        except PermissionError:
            raise DataError(f"The folder {root} may not be read. Check its permissions.") from None
        missing = [name for name in self.holds if not (root / name).exists()]
        raise self.error(root, f"has no {' and no '.join(missing)}")

    def error(self, root: Path, problem: str) -> DataError:
        """That the folder `root` does not hold the set: the problem, the tree that is expected, and what is there."""
        found = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
        return DataError(f"{self.name}: {root} {problem}. {self._expected()}\nFound: {listed(found) or 'nothing'}.")

    def _expected(self) -> str:
        tree = "\n".join(f"  {line}" for line in self.tree.strip().splitlines())
        return f"Expected:\n{tree}"

    def _check_settings(self, settings: DataSettings) -> None:
        for name in ("path_column", "label_column", "patient_column", "image_root"):
            if getattr(settings, name) and name not in self.columns:
                raise DataError(
                    f"--{name.replace('_', '-')} makes no sense for {self.name}, which brings its own images, labels "
                    "and patients. Leave it out, or read one of the set's tables as a CSV.",
                    misfits=(name,),
                )

    def _values(self, given: Sequence[tuple[str, str]]) -> dict[str, str]:
        values = {name: option.choices[0] for name, option in self.options.items()}
        seen: set[str] = set()
        for name, value in given:
            if name not in self.options:
                raise UnknownNameError(f"option of {self.name}", name, self.options)
            option = self.options[name]
            counts = option.number and value.isdecimal() and int(value) > 0
            if name in seen or not (value in option.choices or counts):
                kinds = [*option.choices, *(["a positive integer"] if option.number else [])]
                problem = "is given twice" if name in seen else f"is {value!r}"
                raise ConfigError(f"{self.name}: option {name} {problem}; expected one of {', '.join(kinds)}.")
            seen.add(name)
            values[name] = value
        return values


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        path: Relative to the folder of the set, with "/".
        label: Its class, or the cells of its label columns.
        patient: Who it is of, or None.
        split: "train", "val", "test"; "" where folds are to be drawn.
    """

    path: str
    label: str | tuple[str, ...]
    patient: str | None = None
    split: str = ""


def table_of_rows(
    rows: Sequence[Row],
    root: Path,
    settings: DataSettings,
    *,
    labels: Sequence[str] = (),
    positive_from: int | None = None,
    notes: Sequence[str] = (),
) -> ImageTable:
    """The table of the images in `root`.

    Args:
        rows: One per image; a repeated one counts once.
        root: The folder that the paths are relative to.
        settings: `patient_regex` goes before the patients of the rows.
        labels: Names of the label columns of a set with several labels per image.
        positive_from: The grade that counts as positive, for a set of grades.
        notes: To be shown before those that are made here.

    Raises:
        DataError: There are no images, none is on disk, or rows of one image contradict each other.
    """
    unique = list(dict.fromkeys(rows))
    _check_rows(unique, root)
    if not settings.outside_root:
        _check_inside(unique, root)
    files = [root / row.path for row in unique]
    files = [file if file.is_file() or is_dangling(file) else None for file in files]
    if not any(files):
        raise DataError(f"None of the {len(files)} images is on disk; expected, for example, {root / unique[0].path}.")
    if labels:
        cells = [row.label for row in unique]
        targets, classes = multilabel_targets(
            labels, cells, settings, error=lambda i, what: DataError(f"{unique[i].path}, {what}")
        )
    else:
        targets, classes = one_hot([row.label for row in unique])
    known = settings.patient_regex is None and all(row.patient is not None for row in unique)
    return ImageTable(
        paths=tuple(row.path for row in unique),
        files=tuple(files),
        targets=targets,
        classes=classes,
        task="multilabel" if labels else "multiclass",
        patients=tuple(row.patient for row in unique) if known else None,
        splits=np.array([[row.split for row in unique]], dtype="U5") if any(row.split for row in unique) else None,
        positive_from=positive_from,
        notes=(*notes, *_notes(unique, files, repeated=len(rows) - len(unique))),
    )


def _check_rows(rows: Sequence[Row], root: Path) -> None:
    if not rows:
        raise DataError(f"{root} holds no images of the set.")
    by_path: dict[str, Row] = {}
    for row in rows:
        other = by_path.setdefault(row.path, row)
        if other != row:
            differs = next(name for name in ("label", "patient", "split") if getattr(other, name) != getattr(row, name))
            raise DataError(
                f"{row.path!r} stands twice in the tables in {root}, with {differs} {getattr(other, differs)!r} and "
                f"{getattr(row, differs)!r}. Correct the wrong row."
            )


def _check_inside(rows: Sequence[Row], root: Path) -> None:
    top = os.path.join(os.path.normpath(root), "")  # noqa: PTH118
    out = [row.path for row in rows if not os.path.normpath(root / row.path).startswith(top)]
    if out:
        raise DataError(
            f"{len(out)} paths in the tables of {root} lead out of it, such as {out[0]!r}. Correct them, or allow it "
            "with --outside-root."
        )


def _notes(rows: Sequence[Row], files: Sequence[Path | None], *, repeated: int) -> list[str]:
    notes = [f"{repeated} repeated rows of one image counted once"] if repeated else []
    missing = [row.path for row, file in zip(rows, files, strict=True) if file is None]
    if missing:
        notes.append(f"{len(missing)} of {len(rows)} images are not on disk, such as {missing[0]!r}")
    return notes


def read_columns(file: Path, *names: str, labels: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The cells of the columns called `names`, then of those of `labels`, without spaces around them, a tuple per row.

    Raises:
        DataError: The file cannot be read, or a column is not there.
    """
    sheet = read_sheet(file)
    names += tuple(labels)
    missing = [name for name in names if name not in sheet.columns]
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}: expected {', '.join(names)}. "
            f"Columns: {', '.join(sheet.columns)}.",
            misfits=("label_column",) if labels and set(labels) <= set(missing) else (),
        )
    positions = [sheet.columns.index(name) for name in names]
    return [tuple(row[i].strip() for i in positions) for row in sheet.rows]


def images_below(folder: Path) -> tuple[list[str], int]:
    """The images below `folder`, sorted and relative to it, and the number of other files."""
    files = walk_files(folder, outside=True)  # `check_folder` has looked
    images = [file for file in files if is_image_name(file.rpartition("/")[2])]
    return images, len(files) - len(images)


def class_folders(data: PublicSet, root: Path, classes: Sequence[str]) -> None:
    """Check that the folders in `root` are the classes of the set; files and hidden folders do not count.

    Raises:
        DataError: One is missing, or there is another.
    """
    found = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))}
    for problem, names in (("has no", set(classes) - found), ("holds, besides the classes,", found - set(classes))):
        if names:
            raise data.error(root, f"{problem} {', '.join(sorted(names))}")


def ignored_note(others: int) -> list[str]:
    """A note on the files that are not images, if there are any."""
    return [f"files that are not images, ignored: {others}"] if others else []


_instead: dict[Path, tempfile.TemporaryDirectory] = {}
"""By folder that the cache cannot take: the temporary one that this process uses."""


def write_once(folder: Path, write: Callable[[Path], None], *, what: str) -> tuple[Path, list[str]]:
    """Make `folder` by `write`, unless it is there; a temporary one where the cache cannot take it.

    Args:
        folder: To be made. Two processes may try at once: the first to finish stays.
        write: Writes into the empty folder it is given, a temporary neighbour that is then renamed.
        what: Is written, for the message.

    Returns:
        The folder, and what is to be said of it.

    Raises:
        DiskError: It fits neither into the cache nor into a temporary folder.
    """
    if folder in _instead:
        return Path(_instead[folder].name), []
    try:
        if not folder.is_dir():
            with new_folder(folder) as draft:
                write(draft)
        return folder, []
    except OSError as error:
        note = cache_note(error)
        other = None
        try:
            other = tempfile.TemporaryDirectory(prefix="radtransfer-")
            write(Path(other.name))
        except OSError:
            if other is not None:
                other.cleanup()
            raise DiskError(
                f"{what} could not be written to {folder} ({error}). "
                "Free some space, or name another folder in the environment variable RADTRANSFER_CACHE."
            ) from error
        _instead[folder] = other
        return Path(other.name), [note] if note else []


def delete_temporary() -> None:
    """Delete what `write_once` made instead, where the process ends in another way than Python's."""
    while _instead:
        _instead.popitem()[1].cleanup()


def fingerprint(files: Iterable[Path]) -> str:
    """Sixteen hexadecimal digits that change with the path, size or time of any file."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


GRADES = ("0", "1", "2", "3", "4")

REFERABLE = 2
"""The lowest grade that is referred to an ophthalmologist: moderate (Raghu et al. 2019, where grades count from 1)."""


def check_grade(text: str, image: str) -> str:
    """The grade that a cell holds.

    Raises:
        DataError: It holds something else.
    """
    grade = plain(text)
    if grade not in GRADES:
        raise DataError(f"The grade of {image} is {text!r}; expected 0, 1, 2, 3 or 4. Correct the table.")
    return grade


def referable_note(settings: DataSettings) -> list[str]:
    """That the AUC is of referable images, where the user has not said of what."""
    if settings.positive_from is not None:
        return []
    return [f"AUC of grade {REFERABLE} or worse (referable), the custom of this set; --positive-from changes it"]


APTOS2019 = PublicSet(
    name="aptos2019",
    tree="""
train.csv                      with the columns id_code,diagnosis
train_images/000c1434d8d7.png, …
""",
    holds=("train.csv", "train_images"),
)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree, or a table that holds something else.
    """
    root, _ = APTOS2019.open(settings, location)
    graded = read_columns(root / "train.csv", "id_code", "diagnosis")
    rows = [Row(f"train_images/{image}.png", check_grade(grade, image)) for image, grade in graded]
    return table_of_rows(rows, root, settings, positive_from=REFERABLE, notes=referable_note(settings))


CLASSES = ("benign", "malignant", "normal")

BUSI = PublicSet(
    name="busi",
    tree="""
benign/benign (1).png, benign/benign (1)_mask.png, …
malignant/malignant (1).png, …
normal/normal (1).png, …
""",
    holds=CLASSES,
    inside=("Dataset_BUSI_with_GT", "images"),
    options={"normal": Option(("benign", "class", "leave_out"))},
)

_MASK = re.compile(r".*_mask(_\d+)?\.\w+", re.IGNORECASE)


def read_busi(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,normal=benign|class|leave_out]`.

    Raises:
        DataError: Another tree.
        ConfigError: An option it does not have.
    """
    root, options = BUSI.open(settings, location)
    class_folders(BUSI, root, CLASSES)
    merge = options["normal"]
    rows, masks, ignored, normal = [], 0, 0, 0
    for folder in CLASSES:
        images, others = images_below(root / folder)
        ignored += others
        kept = [image for image in images if not _MASK.fullmatch(image)]
        masks += len(images) - len(kept)
        if folder == "normal":
            normal = len(kept)
            if merge == "leave_out":
                continue
        label = "benign" if folder == "normal" and merge == "benign" else folder
        rows += [Row(f"{folder}/{image}", label) for image in kept]
    said = {"benign": [f"{normal} normal images counted as benign"], "leave_out": [f"{normal} normal images left out"]}
    notes = said.get(merge, []) + ([f"masks skipped: {masks}"] if masks else []) + ignored_note(ignored)
    return table_of_rows(rows, root, settings, notes=notes)


CHEST_XRAY = PublicSet(
    name="chest_xray",
    tree="""
train/NORMAL/IM-0115-0001.jpeg …        train/PNEUMONIA/person1_bacteria_1.jpeg …
val/NORMAL/…                            val/PNEUMONIA/…                           (may be missing)
test/NORMAL/…                           test/PNEUMONIA/…
""",
    holds=("train", "test"),
    inside=("chest_xray",),
    options={"split": SPLIT},
)

CLASSES_CHEST_XRAY = ("NORMAL", "PNEUMONIA")

_NAME = re.compile(
    r"(?P<person>person\d+)_(?P<kind>bacteria|virus)_.+"
    r"|(?P<series>NORMAL2-)?IM-(?P<number>\d+)-.+"
    r"|(?P<original>(?:NORMAL|BACTERIA|VIRUS)-\d+)-.+"
)


def read_chest_xray(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or file names that do not tell the patient.
        ConfigError: An option it does not have.
    """
    root, options = CHEST_XRAY.open(settings, location)
    official = options["split"] == "official"
    named = settings.patient_regex is None
    rows, ignored = [], 0
    for split in filter(lambda name: (root / name).is_dir(), ("train", "val", "test")):
        class_folders(CHEST_XRAY, root / split, CLASSES_CHEST_XRAY)
        for label in CLASSES_CHEST_XRAY:
            images, others = images_below(root / split / label)
            ignored += others
            paths = [f"{split}/{label}/{image}" for image in images]
            rows += [_row(path, label, split if official else "", apart=official, named=named) for path in paths]
    notes = [f"{len({row.patient for row in rows})} patients by the file names"] if named else []
    return table_of_rows(rows, root, settings, notes=notes + ignored_note(ignored))


def patient_of(name: str, *, apart: bool) -> str | None:
    """The patient that a file name tells, None if it tells none.

    Args:
        name: Of the file.
        apart: Take series and kinds that number their patients apart as such.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    if match["person"]:
        return f"{match['person']}_{match['kind']}" if apart else match["person"]
    if match["number"]:
        return f"{match['series'] or ''}IM-{match['number']}" if apart else match["number"]
    return match["original"]


def _row(path: str, label: str, split: str, *, apart: bool, named: bool) -> Row:
    patient = patient_of(path.rpartition("/")[2], apart=apart)
    if patient is None and named:
        raise DataError(
            f"chest_xray: {path!r} does not tell its patient; expected a name such as "
            "person1_bacteria_1.jpeg or NORMAL2-IM-1427-0001.jpeg. Remove it, or give --patient-regex."
        )
    return Row(path, label, patient, split)


DDTI = PublicSet(
    name="ddti",
    tree="""
1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …   (an XML file per examination beside its images)
""",
    options={"unscored": Option(("leave_out", "benign"))},
)

_IMAGE = re.compile(r"(\d+)_\d+\.\w+")
_SCORE = re.compile(r"([1-5])[abc]?", re.IGNORECASE)


def read_ddti(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,unscored=leave_out|benign]`.

    Raises:
        DataError: Another tree, an XML file that cannot be read or holds another score, or one that is not there.
        ConfigError: An option it does not have.
    """
    root, options = DDTI.open(settings, location)
    images = [image for image in images_below(root)[0] if "/" not in image]
    cases = {image: match[1] for image in images if (match := _IMAGE.fullmatch(image))}
    files = {file.stem: file for file in sorted(root.glob("*.xml")) if not file.name.startswith(".")}
    if not cases or not files:
        raise DDTI.error(root, f"has {len(cases)} images called N_M.jpg and {len(files)} XML files")
    without = [image for image, case in cases.items() if case not in files]
    if without:
        raise DDTI.error(root, f"has no XML file for {len(without)} images, such as {without[0]}")
    scores = {case: score_of(files[case]) for case in dict.fromkeys(cases.values())}
    rows = []
    for image, case in cases.items():
        if scores[case] is not None or options["unscored"] == "benign":
            rows.append(Row(image, "malignant" if (scores[case] or 0) >= 4 else "benign", case))
    notes = _notes_ddti(Counter(scores[case] is None for case in cases.values())[True], options["unscored"])
    other = [image for image in images if image not in cases]
    if other:
        notes.append(f"images that are not called N_M.jpg, ignored: {listed(other, limit=3)}")
    return table_of_rows(rows, root, settings, notes=notes)


def score_of(file: Path) -> int | None:
    """The TI-RADS score of an examination without its letter, 1 to 5; None where it has none.

    Raises:
        DataError: The file is no XML, or holds another score.
    """
    try:
        found = ElementTree.parse(file).getroot().findtext("tirads")
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(f"Cannot read {file}: {error}. Download it again.") from None
    text = plain(found or "")
    if not text:
        return None
    match = _SCORE.fullmatch(text)
    if match is None:
        raise DataError(f"{file}: expected a TI-RADS score of 1 to 5 (4a, 4b, 4c), received {text!r}. Correct it.")
    return int(match[1])


def _notes_ddti(unscored: int, option: str) -> list[str]:
    if not unscored:
        return []
    said = {"leave_out": "are left out", "benign": "count as benign"}[option]
    return [f"{unscored} images of examinations without a TI-RADS score {said}"]


EYEPACS = PublicSet(
    name="eyepacs",
    tree="""
trainLabels.csv                with the columns image,level
train/10_left.jpeg, train/10_right.jpeg, …
retinopathy_solution.csv       with the columns image,level,Usage   (only for split=official)
test/1_left.jpeg, …                                                 (only for split=official)
""",
    holds=("trainLabels.csv", "train"),
    options={"split": SPLIT},
)

_USAGE = {"Public": "val", "Private": "test"}


def read_eyepacs(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or a table that holds something else.
        ConfigError: An option it does not have.
    """
    root, options = EYEPACS.open(settings, location)
    official = options["split"] == "official"
    graded = read_columns(root / "trainLabels.csv", "image", "level")
    rows = [_row_eyepacs("train", image, level, "train" if official else "") for image, level in graded]
    if official:
        solution = root / "retinopathy_solution.csv"
        if not solution.is_file():
            raise EYEPACS.error(root, "has no retinopathy_solution.csv, which split=official needs")
        for image, level, usage in read_columns(solution, "image", "level", "Usage"):
            if usage not in _USAGE:
                raise DataError(f"{solution}: Usage of {image} is {usage!r}; expected Public or Private.")
            rows.append(_row_eyepacs("test", image, level, _USAGE[usage]))
    notes = [f"{len({row.patient for row in rows})} patients by the image names", *referable_note(settings)]
    return table_of_rows(rows, root, settings, positive_from=REFERABLE, notes=notes)


def _row_eyepacs(folder: str, image: str, level: str, split: str) -> Row:
    patient, _, eye = image.rpartition("_")
    if not patient or eye not in ("left", "right"):
        raise DataError(f"eyepacs: expected an image such as 10_left, received {image!r}.")
    return Row(f"{folder}/{image}.jpeg", check_grade(level, image), patient, split)


ISIC2018 = PublicSet(
    name="isic2018",
    tree="""
ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
ISIC2018_Task3_Training_LesionGroupings.csv                  (may be missing)
ISIC2018_Task3_Validation_Input/… and _GroundTruth/…         (only for split=official)
ISIC2018_Task3_Test_Input/… and _GroundTruth/…               (only for split=official)
""",
    holds=("ISIC2018_Task3_Training_Input",),
    options={"split": SPLIT},
)

CLASSES_ISIC2018 = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")

_PARTS = {"Training": "train", "Validation": "val", "Test": "test"}


def read_isic2018(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`, `FOLDER[,split=drawn|official]`.

    Raises:
        DataError: Another tree, or an image that has no diagnosis or several.
        ConfigError: An option it does not have.
    """
    root, options = ISIC2018.open(settings, location)
    official = options["split"] == "official"
    lesions, notes = _lesions(root)
    rows, without = [], 0
    for part, split in _PARTS.items() if official else [("Training", "")]:
        truth = _find_table(root, f"ISIC2018_Task3_{part}_GroundTruth")
        if truth is None:
            raise ISIC2018.error(root, f"has no ISIC2018_Task3_{part}_GroundTruth.csv")
        for image, *cells in read_columns(truth, "image", *CLASSES_ISIC2018):
            lesion = None if lesions is None else lesions.get(image, image)
            without += lesions is not None and part == "Training" and image not in lesions
            rows.append(Row(f"ISIC2018_Task3_{part}_Input/{image}.jpg", diagnosis(image, cells), lesion, split))
    if without:
        notes.append(f"{without} training images have no lesion in the table and count as lesions of their own")
    return table_of_rows(rows, root, settings, notes=notes)


def diagnosis(image: str, cells: list[str]) -> str:
    """The class whose cell is 1.

    Raises:
        DataError: None is, or several are.
    """
    found = [name for name, cell in zip(CLASSES_ISIC2018, cells, strict=True) if plain(cell) == "1"]
    if len(found) != 1:
        raise DataError(f"isic2018: {image} has {len(found)} diagnoses ({', '.join(cells)}); expected one 1.0.")
    return found[0]


def _find_table(root: Path, name: str) -> Path | None:
    places = (root / f"{name}.csv", root / name / f"{name}.csv")
    return next((file for file in places if file.is_file()), None)


def _lesions(root: Path) -> tuple[dict[str, str] | None, list[str]]:
    file = _find_table(root, "ISIC2018_Task3_Training_LesionGroupings")
    if file is None:
        return None, ["no ISIC2018_Task3_Training_LesionGroupings.csv, so images of one lesion are not kept together"]
    lesions = dict(read_columns(file, "image", "lesion_id"))
    return lesions, [f"patients are lesions ({len(set(lesions.values()))})"]


HAM10000 = PublicSet(
    name="ham10000",
    tree="""
HAM10000_metadata.csv                      with the columns lesion_id,image_id,dx
HAM10000_images_part_1/ISIC_0024306.jpg …
HAM10000_images_part_2/ISIC_0029306.jpg …
""",
    holds=("HAM10000_metadata.csv", "HAM10000_images_part_1"),
)


def read_ham10000(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree, or a diagnosis that the set does not have.
    """
    root, _ = HAM10000.open(settings, location)
    places = _places(root)
    rows = []
    for lesion, image, dx in read_columns(root / "HAM10000_metadata.csv", "lesion_id", "image_id", "dx"):
        if dx.upper() not in CLASSES_ISIC2018:
            raise DataError(
                f"ham10000: dx of {image} is {dx!r}; expected one of {', '.join(CLASSES_ISIC2018).lower()}."
            )
        path = places.get(image, f"HAM10000_images_part_1/{image}.jpg")
        rows.append(Row(path, dx.upper(), lesion))
    return table_of_rows(rows, root, settings, notes=[f"patients are lesions ({len({row.patient for row in rows})})"])


def _places(root: Path) -> dict[str, str]:
    """Image names to their paths in the two parts."""
    parts = [
        f"HAM10000_images_part_{number}" for number in (1, 2) if (root / f"HAM10000_images_part_{number}").is_dir()
    ]
    found = [(part, image) for part in parts for image in images_below(root / part)[0]]
    return {Path(image).stem: f"{part}/{image}" for part, image in found}


CLASSES_KVASIR = (
    *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum"),
    *("normal-pylorus", "normal-z-line", "polyps", "ulcerative-colitis"),
)

KVASIR = PublicSet(
    name="kvasir",
    tree="\n".join(f"{name}/….jpg" for name in CLASSES_KVASIR),
    holds=CLASSES_KVASIR,
    inside=("kvasir-dataset", "kvasir-dataset-v2"),
)


def read_kvasir(settings: DataSettings, location: str | None = None) -> ImageTable:
    """The images of the folder `location`.

    Raises:
        DataError: Another tree.
    """
    root, _ = KVASIR.open(settings, location)
    class_folders(KVASIR, root, CLASSES_KVASIR)
    rows, ignored = [], 0
    for label in CLASSES_KVASIR:
        images, others = images_below(root / label)
        rows += [Row(f"{label}/{image}", label) for image in images]
        ignored += others
    return table_of_rows(rows, root, settings, notes=ignored_note(ignored))
