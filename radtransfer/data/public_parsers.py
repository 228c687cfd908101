"""Parsers of the public data sets in `public.py`: folder, value of every option and settings to a table."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.csv import find_split_tables, read_fold_tables
from radtransfer.data.image_files import FileIndex, index_files, is_dangling, is_image_name, walk_files
from radtransfer.data.labels import cell_value, listed, multilabel_targets, one_hot
from radtransfer.data.sheet import read_sheet
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError
from radtransfer.runs.cache import cache_folder, fingerprint, write_once


class WrongTreeError(Exception):
    """Unexpected contents of a folder (default: that of the set); `public.py` adds the expected tree."""

    def __init__(self, problem: str, folder: Path | None = None):
        self.folder = folder
        super().__init__(problem)


class Row(NamedTuple):
    """One image; `path` is relative to the folder of the set."""

    path: str
    label: str | tuple[str, ...]  # class, or cells of the label columns
    patient: str | None = None
    split: str = ""  # "train", "val" or "test"; "": draw folds


def table_of_rows(
    rows: Sequence[Row],
    root: Path,
    settings: DataSettings,
    *,
    labels: Sequence[str] = (),
    positive_from: int | None = None,
    notes: Sequence[str] = (),
) -> ImageTable:
    """The table of the images in `root`; repeated rows count once, `settings.patient_regex` replaces the patients.

    `labels` names the label columns of a multi-label set, `positive_from` the lowest positive grade.
    """
    unique = list(dict.fromkeys(rows))
    if not rows:
        raise DataError(f"{root} contains no images of the set.")
    by_path: dict[str, Row] = {}
    for row in unique:
        other = by_path.setdefault(row.path, row)
        if other != row:
            differs = next(name for name in ("label", "patient", "split") if getattr(other, name) != getattr(row, name))
            raise DataError(
                f"{row.path!r} is listed twice in the tables in {root}, with {differs} {getattr(other, differs)!r} and "
                f"{getattr(row, differs)!r}. Correct the wrong row."
            )
    top = os.path.join(os.path.normpath(root), "")  # noqa: PTH118
    out = [row.path for row in unique if not os.path.normpath(root / row.path).startswith(top)]
    if out and not settings.outside_root:
        raise DataError(
            f"{len(out)} paths in the tables of {root} point outside it, such as {out[0]!r}. Correct them, or pass "
            "--outside-root."
        )
    files = [root / row.path for row in unique]
    files = [file if file.is_file() or is_dangling(file) else None for file in files]
    missing = [row.path for row, file in zip(unique, files, strict=True) if file is None]
    if len(missing) == len(files):
        raise DataError(f"None of the {len(files)} images is on disk; expected, for example, {root / unique[0].path}.")
    if labels:
        cells = [row.label for row in unique]
        targets, classes = multilabel_targets(
            labels, cells, settings, error=lambda i, what: DataError(f"{unique[i].path}, {what}")
        )
    else:
        targets, classes = one_hot([row.label for row in unique])
    notes = list(notes)
    if len(rows) > len(unique):
        notes.append(f"{len(rows) - len(unique)} repeated rows of one image counted once")
    if missing:
        notes.append(f"{len(missing)} of {len(unique)} images are not on disk, such as {missing[0]!r}")
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
        notes=tuple(notes),
    )


def read_columns(file: Path, *names: str, labels: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The cells of columns `names` and `labels`, stripped, a tuple per row."""
    sheet = read_sheet(file)
    names += tuple(labels)
    missing = [name for name in names if name not in sheet.columns]
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}: expected {', '.join(names)}. "
            f"Columns: {', '.join(sheet.columns)}.",
            settings=("label_column",) if labels and set(labels) <= set(missing) else (),
        )
    positions = [sheet.columns.index(name) for name in names]
    return [tuple(row[i].strip() for i in positions) for row in sheet.rows]


def images_below(folder: Path) -> tuple[list[str], int]:
    """Images below `folder`, sorted and relative to it, and the number of other files."""
    files = walk_files(folder, outside=True)  # links were checked before
    images = [file for file in files if is_image_name(file.rpartition("/")[2])]
    return images, len(files) - len(images)


def images_of_classes(root: Path, classes: Sequence[str], folder: str = "") -> tuple[list[tuple[str, str]], int]:
    """Path and class of the images in the class folders of `root`/`folder`, and the number of other files."""
    parent = root / folder
    found = {entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))}
    for problem, names in (("has no", set(classes) - found), ("has unexpected folders:", found - set(classes))):
        if names:
            raise WrongTreeError(f"{problem} {', '.join(sorted(names))}", parent)
    images, others = [], 0
    for name in classes:
        below, ignored = images_below(parent / name)
        images += [(str(PurePosixPath(folder, name, image)), name) for image in below]
        others += ignored
    return images, others


def ignored_note(others: int) -> list[str]:
    return [f"files that are not images, ignored: {others}"] if others else []


def patient_count(rows: Sequence[Row]) -> int:
    return len({row.patient for row in rows})


Options = Mapping[str, str]

KVASIR_CLASSES = (
    *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum"),
    *("normal-pylorus", "normal-z-line", "polyps", "ulcerative-colitis"),
)
SKIN_CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
CHEXPERT_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")  # of the competition

REFERABLE = 2
"""Lowest referable grade (ICDR 0 to 4) of diabetic retinopathy: moderate (Raghu et al. 2019)."""

PATCHES_PER_FOLDER = 1000  # PCam patches read at once and stored in one folder of the cache


def kvasir(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    images, others = images_of_classes(root, KVASIR_CLASSES)
    return table_of_rows([Row(*image) for image in images], root, settings, notes=ignored_note(others))


_MASK = re.compile(r".*_mask(_\d+)?\.\w+", re.IGNORECASE)


def busi(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    images, others = images_of_classes(root, ("benign", "malignant", "normal"))
    pictures = [(path, label) for path, label in images if not _MASK.fullmatch(path)]
    masks, normal = len(images) - len(pictures), sum(label == "normal" for _, label in pictures)
    notes, merged = [], {}
    if options["normal"] == "benign":
        notes, merged = [f"{normal} normal images counted as benign"], {"normal": "benign"}
    elif options["normal"] == "leave_out":
        notes = [f"{normal} normal images left out"]
        pictures = [(path, label) for path, label in pictures if label != "normal"]
    if masks:
        notes.append(f"masks skipped: {masks}")
    rows = [Row(path, merged.get(label, label)) for path, label in pictures]
    return table_of_rows(rows, root, settings, notes=notes + ignored_note(others))


_XRAY_NAME = re.compile(
    r"(?P<person>person\d+)_(?P<kind>bacteria|virus)_.+"
    r"|(?P<series>NORMAL2-)?IM-(?P<number>\d+)-.+"
    r"|(?P<original>(?:NORMAL|BACTERIA|VIRUS)-\d+)-.+"
)


def chest_xray(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    official, by_name = options["split"] == "official", settings.patient_regex is None
    rows, ignored = [], 0
    for split in ("train", "val", "test"):
        images, others = images_of_classes(root, ("NORMAL", "PNEUMONIA"), split) if (root / split).is_dir() else ([], 0)
        ignored += others
        for path, label in images:
            patient, match = None, _XRAY_NAME.fullmatch(path.rpartition("/")[2])
            # Each series and kind has its own patient numbers; only the official split keeps them apart.
            if match and match["person"]:
                patient = f"{match['person']}_{match['kind']}" if official else match["person"]
            elif match and match["number"]:
                patient = f"{match['series'] or ''}IM-{match['number']}" if official else match["number"]
            elif match:
                patient = match["original"]
            if patient is None and by_name:
                raise DataError(
                    f"chest_xray: no patient in the file name {path!r}; expected a name such as "
                    "person1_bacteria_1.jpeg or NORMAL2-IM-1427-0001.jpeg. Remove it, or give --patient-regex."
                )
            rows.append(Row(path, label, patient, split if official else ""))
    notes = [f"{patient_count(rows)} patients by the file names"] if by_name else []
    return table_of_rows(rows, root, settings, notes=notes + ignored_note(ignored))


def _of_grades(
    images: Sequence[tuple[str, str, str, str | None, str]],
    root: Path,
    settings: DataSettings,
    notes: Sequence[str] = (),
) -> ImageTable:
    """The table of graded fundus photographs from path, name, grade, patient and split of each."""
    rows = []
    for path, image, grade, patient, split in images:
        if cell_value(grade) not in ("0", "1", "2", "3", "4"):
            raise DataError(f"The grade of {image} is {grade!r}; expected 0, 1, 2, 3 or 4. Correct the table.")
        rows.append(Row(path, cell_value(grade), patient, split))
    if settings.positive_from is None:
        notes = [*notes, f"AUC for grade ≥ {REFERABLE} (referable), as usual for this set; --positive-from changes it"]
    return table_of_rows(rows, root, settings, positive_from=REFERABLE, notes=notes)


def aptos2019(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    graded = read_columns(root / "train.csv", "id_code", "diagnosis")
    images = [(f"train_images/{image}.png", image, grade, None, "") for image, grade in graded]
    return _of_grades(images, root, settings)


def eyepacs(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    official = options["split"] == "official"
    images = [
        ("train", "train" if official else "", *cells)
        for cells in read_columns(root / "trainLabels.csv", "image", "level")
    ]
    if official:
        solution, splits = root / "retinopathy_solution.csv", {"Public": "val", "Private": "test"}
        if not solution.is_file():
            raise WrongTreeError("has no retinopathy_solution.csv, which split=official needs")
        for image, level, usage in read_columns(solution, "image", "level", "Usage"):
            if usage not in splits:
                raise DataError(f"{solution}: Usage of {image} is {usage!r}; expected Public or Private.")
            images.append(("test", splits[usage], image, level))
    rows = []
    for folder, split, image, level in images:
        patient, _, eye = image.rpartition("_")
        if not patient or eye not in ("left", "right"):
            raise DataError(f"eyepacs: expected an image such as 10_left, received {image!r}.")
        rows.append((f"{folder}/{image}.jpeg", image, level, patient, split))
    patients = len({patient for *_, patient, _ in rows})
    return _of_grades(rows, root, settings, [f"{patients} patients by the image names"])


def ham10000(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    folders = ("HAM10000_images_part_1", "HAM10000_images_part_2")
    files = {
        Path(image).stem: f"{folder}/{image}"
        for folder in folders
        if (root / folder).is_dir()
        for image in images_below(root / folder)[0]
    }
    rows = []
    for lesion, image, dx in read_columns(root / "HAM10000_metadata.csv", "lesion_id", "image_id", "dx"):
        if dx.upper() not in SKIN_CLASSES:
            raise DataError(f"ham10000: dx of {image} is {dx!r}; expected one of {', '.join(SKIN_CLASSES).lower()}.")
        rows.append(Row(files.get(image, f"{folders[0]}/{image}.jpg"), dx.upper(), lesion))
    return table_of_rows(rows, root, settings, notes=[f"patients are lesions ({patient_count(rows)})"])


def isic2018(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    def find_table(name: str) -> Path | None:
        candidates = (
            root / f"ISIC2018_Task3_{name}.csv",
            root / f"ISIC2018_Task3_{name}" / f"ISIC2018_Task3_{name}.csv",
        )
        return next((file for file in candidates if file.is_file()), None)

    groups, lesions, without, rows = find_table("Training_LesionGroupings"), {}, 0, []
    if groups is None:
        notes = ["no ISIC2018_Task3_Training_LesionGroupings.csv, so images of one lesion are not kept together"]
    else:
        lesions = dict(read_columns(groups, "image", "lesion_id"))
        notes = [f"patients are lesions ({len(set(lesions.values()))})"]
    official = {"Training": "train", "Validation": "val", "Test": "test"}
    for part, split in official.items() if options["split"] == "official" else [("Training", "")]:
        truth = find_table(f"{part}_GroundTruth")
        if truth is None:
            raise WrongTreeError(f"has no ISIC2018_Task3_{part}_GroundTruth.csv")
        for image, *cells in read_columns(truth, "image", *SKIN_CLASSES):
            found = [name for name, cell in zip(SKIN_CLASSES, cells, strict=True) if cell_value(cell) == "1"]
            if len(found) != 1:
                raise DataError(f"isic2018: {image} has {len(found)} diagnoses ({', '.join(cells)}); expected one 1.0.")
            without += part == "Training" and image not in lesions
            lesion = None if groups is None else lesions.get(image, image)
            rows.append(Row(f"ISIC2018_Task3_{part}_Input/{image}.jpg", found[0], lesion, split))
    if without and groups is not None:
        notes.append(f"{without} training images have no lesion in the table and count as lesions of their own")
    return table_of_rows(rows, root, settings, notes=notes)


_CHEXPERT_PATH = re.compile(r"(?:.*/)?(?P<path>(?:train|valid)/(?P<patient>patient\d+)/.+)")


def chexpert(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    labels, view = settings.label_column or CHEXPERT_LABELS, options["view"]
    official, rows, left = options["split"] == "official", [], 0
    for file, split in ((root / "train.csv", "train"), (root / "valid.csv", "test")):
        for path, side, *cells in read_columns(file, "Path", "Frontal/Lateral", labels=labels):
            if view not in ("all", side.lower()):
                left += 1
                continue
            match = _CHEXPERT_PATH.fullmatch(path)
            if match is None:
                expected = "expected a Path such as train/patient00001/study1/view1_frontal.jpg"
                raise DataError(f"{file}: {expected}, got {path!r}.")
            rows.append(Row(match["path"], tuple(cells), match["patient"], split if official else ""))
    notes = [f"{patient_count(rows)} patients by the paths", f"labels: {', '.join(labels)}"]
    if left:
        notes.append(f"{left} images that are not {view} left out")
    if official:
        notes.append("valid.csv is the test set")
    return table_of_rows(rows, root, settings, labels=labels, notes=notes)


def ddti(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    images = [image for image in images_below(root)[0] if "/" not in image]
    matches = {image: re.fullmatch(r"(\d+)_\d+\.\w+", image) for image in images}
    cases = {image: match[1] for image, match in matches.items() if match}
    files = {file.stem: file for file in sorted(root.glob("*.xml")) if not file.name.startswith(".")}
    if not cases or not files:
        raise WrongTreeError(f"has {len(cases)} images called N_M.jpg and {len(files)} XML files")
    without = [image for image, case in cases.items() if case not in files]
    if without:
        raise WrongTreeError(f"has no XML file for {len(without)} images, such as {without[0]}")
    scores: dict[str, int | None] = {}  # 1 to 5, without the letter; None: no score
    for case in dict.fromkeys(cases.values()):
        file = files[case]
        try:
            text = cell_value(ElementTree.parse(file).getroot().findtext("tirads") or "")
        except (ElementTree.ParseError, OSError) as error:
            raise DataError(f"Cannot read {file}: {error}. Download it again.") from None
        match = re.fullmatch(r"([1-5])[abc]?", text, re.IGNORECASE)
        if text and match is None:
            raise DataError(f"{file}: expected a TI-RADS score of 1 to 5 (4a, 4b, 4c), received {text!r}. Correct it.")
        scores[case] = int(match[1]) if match else None
    rows = [
        Row(image, "malignant" if (scores[case] or 0) >= 4 else "benign", case)
        for image, case in cases.items()
        if scores[case] is not None or options["unscored"] == "benign"
    ]
    notes = []
    if unscored := sum(scores[case] is None for case in cases.values()):
        done = {"leave_out": "are left out", "benign": "count as benign"}[options["unscored"]]
        notes.append(f"{unscored} images of examinations without a TI-RADS score {done}")
    if other := [image for image in images if image not in cases]:
        notes.append(f"images that are not called N_M.jpg, ignored: {listed(other, limit=3)}")
    return table_of_rows(rows, root, settings, notes=notes)


PATHOLOGIES = {"BENIGN": "BENIGN", "BENIGN_WITHOUT_CALLBACK": "BENIGN", "MALIGNANT": "MALIGNANT"}


def cbis_ddsm(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    of_case: dict[str, tuple[str, str, str]] = {}  # series, patient, split
    labels: dict[str, set[str]] = defaultdict(set)
    findings = 0
    for kind in ("mass", "calc") if options["cases"] == "all" else (options["cases"],):
        for split in ("train", "test"):
            name = f"{kind}_case_description_{split}_set.csv"
            file = next((file for file in (root / name, root / "csv" / name) if file.is_file()), None)
            if file is None:
                raise WrongTreeError(f"has no {name}")
            for patient, pathology, path in read_columns(file, "patient_id", "pathology", "image file path"):
                findings += 1
                parts = PurePosixPath(path.strip('"')).parts
                if pathology not in PATHOLOGIES or len(parts) < 3:
                    raise DataError(
                        f"{file}: expected a pathology ({', '.join(PATHOLOGIES)}) and an image file path "
                        f"CASE/STUDY/SERIES/FILE, received {pathology!r} and {path!r}."
                    )
                case, _, series = parts[:3]
                if of_case.setdefault(case, (series, patient, split)) != (series, patient, split):
                    raise DataError(f"{file}: {case} has two series, patients or splits. Download the tables again.")
                labels[case].add(PATHOLOGIES[pathology])
    # An image is named after its case, or in a folder named after its series or case.
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in walk_files(root, outside=True):
        *folders, name = path.split("/")
        for key in dict.fromkeys((*folders, name.rpartition(".")[0])) if is_image_name(name) else ():
            by_name[key].append(path)
    images: dict[str, str | None] = {}
    for case, (series, _, _) in of_case.items():
        paths = by_name.get(series) or by_name.get(case) or []
        found = [path for path in paths if not path.endswith(".dcm")] or paths  # a converted image before its DICOM
        if len(found) > 1:
            raise DataError(f"cbis_ddsm: {found[0]!r} and {found[1]!r} in {root} both match {case}. Keep one.")
        images[case] = found[0] if found else None
    if not any(images.values()):
        raise WrongTreeError(f"has none of the {len(images)} mammograms in its tables")
    official = options["split"] == "official"
    rows = [
        Row(
            images[case] or f"{case}.png",
            "MALIGNANT" if "MALIGNANT" in labels[case] else "BENIGN",
            patient,
            split if official else "",
        )
        for case, (_, patient, split) in of_case.items()
    ]
    both = sum(len(found) > 1 for found in labels.values())
    notes = [
        f"{findings} findings in {len(rows)} mammograms of {patient_count(rows)} patients; "
        f"{both} with benign and malignant findings are malignant",
        "BENIGN_WITHOUT_CALLBACK counted as BENIGN",
    ]
    return table_of_rows(rows, root, settings, notes=notes)


def mrnet(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    plane, slices = options["plane"], options["slices"]
    splits = {"train": "train", "valid": "test"} if options["split"] == "official" else {"train": "", "valid": ""}
    examinations = []
    for part in splits:
        table = root / f"{part}-{options['task']}.csv"
        if not table.is_file():
            raise WrongTreeError(f"has no {table.name}")
        for line_number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), start=1):
            match = re.fullmatch(r"\s*(\d{4})\s*,\s*([01])(?:\.0*)?\s*", line)
            if match:
                examinations.append((part, match[1], "yes" if match[2] == "1" else "no"))
            elif line.strip():
                expected = "expected an examination and 0 or 1 (0000,1)"
                raise DataError(f"{table} line {line_number}: {expected}, received {line!r}.")
    volumes = {(part, number): root / part / plane / f"{number}.npy" for part, number, _ in examinations}
    existing = {examination: file for examination, file in volumes.items() if file.is_file()}
    taken = {examination: chosen_slices(len(_volume(file)), slices) for examination, file in existing.items()}
    if not existing:
        raise WrongTreeError(f"has no {plane} volume of the {len(examinations)} examinations in its tables")

    def write(draft: Path) -> None:
        for part in splits:
            (draft / part).mkdir()
        for (part, number), file in existing.items():
            volume = _volume(file)
            for index in taken[part, number]:
                image = Image.fromarray(np.ascontiguousarray(volume[index]))
                image.save(draft / f"{part}/{number}_{index:02d}.png")

    folder = cache_folder() / "mrnet" / f"{plane}-{slices}-{fingerprint(existing.values())}"
    folder, notes = write_once(folder, write, what="The slices of MRNet")
    rows = [
        Row(f"{part}/{number}_{index:02d}.png", label, number, splits[part])
        for part, number, label in examinations
        for index in taken.get((part, number), (0,))
    ]
    found = f"{len(rows)} {plane} slices ({slices}) of {len(examinations)} examinations, as PNG files in {folder}"
    notes = [*notes, found]
    if without := sum((part, number) not in existing for part, number, _ in examinations):
        notes.append(f"{without} examinations have no {plane} volume")
    return table_of_rows(rows, folder, settings, notes=notes)


def chosen_slices(count: int, wanted: str) -> tuple[int, ...]:
    """Numbers of the chosen slices of `count`: "middle", "all", or that many around the middle."""
    size = {"middle": 1, "all": count}.get(wanted) or min(int(wanted), count)
    first = (count - size + 1) // 2
    return tuple(range(first, first + size))


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


def pcam(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    index, splits = index_files(root, outside=True), {"train": "train", "valid": "val", "test": "test"}
    files, labels, slides = {}, {}, {}
    for part in splits:
        files[part], labels[part], slides[part] = _patch_files(root, index, part)
    total = sum(map(len, labels.values()))
    chosen = {part: np.arange(len(found)) for part, found in labels.items()}
    if options["images"] != "all":  # drawn from all parts together
        count, start = int(options["images"]), 0
        if count > total:
            raise ConfigError(
                f"pcam: images={options['images']}, but there are {total}. Ask for fewer, or leave it out."
            )
        drawn = np.sort(np.random.default_rng(0).choice(total, count, replace=False))
        for part, found in labels.items():
            chosen[part] = drawn[(drawn >= start) & (drawn < start + len(found))] - start
            start += len(found)

    def patch(part: str, number: int) -> str:
        return f"{part}/{number // PATCHES_PER_FOLDER:03d}/{number:06d}.png"

    def write(draft: Path) -> None:
        for part, numbers in chosen.items():
            for block in np.unique(numbers // PATCHES_PER_FOLDER).tolist():
                first = block * PATCHES_PER_FOLDER
                patches = _array(files[part], "x", slice(first, first + PATCHES_PER_FOLDER))
                (draft / patch(part, first)).parent.mkdir(parents=True)
                for number in numbers[numbers // PATCHES_PER_FOLDER == block].tolist():
                    Image.fromarray(patches[number - first]).save(draft / patch(part, number), compress_level=1)

    folder = cache_folder() / "pcam" / f"{options['images']}-{fingerprint(files.values())}"
    folder, notes = write_once(folder, write, what="The patches of PCam")
    known, official = None not in slides.values(), options["split"] == "official"
    rows = [
        Row(
            patch(part, number),
            "yes" if labels[part][number] else "no",
            slides[part][number] if known else None,
            splits[part] if official else "",
        )
        for part, numbers in chosen.items()
        for number in numbers.tolist()
    ]
    notes = [*notes, f"{len(rows)} of {total} patches, as PNG files in {folder}"]
    if known:
        notes.append(f"patients are slides ({patient_count(rows)})")
    return table_of_rows(rows, folder, settings, notes=notes)


def _patch_files(root: Path, index: FileIndex, part: str) -> tuple[Path, np.ndarray, tuple[str, ...] | None]:
    """Patch file of a part, labels (int, 0 or 1), and slides or None."""
    stem = f"camelyonpatch_level_2_split_{part}"
    patches, truth, meta = (index.find(f"{stem}_{kind}") for kind in ("x.h5", "y.h5", "meta.csv"))
    for kind, file in (("x.h5", patches), ("y.h5", truth)):
        if file is None:
            packed = " (only packed: run gunzip on it)" if index.find(f"{stem}_{kind}.gz") else ""
            raise WrongTreeError(f"has no {stem}_{kind}{packed}")
    labels = _array(truth, "y").reshape(-1)
    shape, dtype = _array(patches, "x", None)
    if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
        raise DataError(f"{patches}: expected uint8 (images, height, width, 3), received {dtype} {shape}.")
    slides = tuple(slide for (slide,) in read_columns(meta, "wsi")) if meta else None
    if len(labels) != shape[0] or not np.isin(labels, (0, 1)).all() or len(slides or labels) != shape[0]:
        raise DataError(
            f"pcam: {patches} has {shape[0]} patches, {truth.name} {len(labels)} labels (expected 0 or 1)"
            + (f", {meta.name} {len(slides)} rows" if slides else "")
            + ". Download them again."
        )
    return patches, labels, slides


def _array(file: Path, key: str, part: slice | None = slice(None)) -> Any:
    """A slice of an array of an HDF5 file; with None its shape and type."""
    import h5py

    try:
        with h5py.File(file) as handle:
            return (handle[key].shape, handle[key].dtype) if part is None else handle[key][part]
    except (OSError, KeyError) as error:
        raise DataError(f"Cannot read the array {key!r} of {file} ({error}). Download it again.") from None


# Patterns of file names without suffix; the first that matches all gives the patients.
TASK_PATIENTS = (
    r"(\d{4})_(?:sagittal|coronal|axial)_[\d.]+",  # MRNet: examination_plane_slice
    r"(\d+)_\d+",  # DDTI: examination_image
    r"([A-Za-z]+_[NP]\d+)-\d+_.+",  # COVID-19: hospital_patient-slice
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",  # RSNA pneumonia: an image per patient
)


def radimagenet_task(root: Path, options: Options, settings: DataSettings) -> ImageTable:
    folder = root / "dataframe" if (root / "dataframe").is_dir() else root
    file = next((table.file for table in find_split_tables(folder) if table.split == "train"), None)
    if file is None:
        raise WrongTreeError("has no table train_fold1.csv or train.csv, with or without a prefix")
    columns = read_sheet(file).columns
    if "boneage" in columns:
        raise DataError(
            f"{file} has bone age in months, a regression; radtransfer classifies. "
            "Make a table of classes of it, and read that as a CSV."
        )
    path = next((name for name in ("filename", "img_dir", "dir") if name in columns), None)
    label = next((name for name in ("acl_label", "label") if name in columns), None)
    if path is None or label is None:
        raise DataError(
            f"{file}: expected a column filename, img_dir or dir, and acl_label or label. "
            f"Columns: {', '.join(columns)}."
        )
    own = replace(
        settings,
        path_column=path,
        label_column=(label,),
        patient_column="pid" if "pid" in columns and settings.patient_regex is None else None,
        image_root=settings.image_root or str(folder.parent if folder.name == "dataframe" else folder),
    )
    table = read_fold_tables(own, str(folder))
    if table.patients is None and settings.patient_regex is None:
        names = [PurePosixPath(path).name.rpartition(".")[0] for path in table.paths]
        found = ([re.fullmatch(pattern, name) for name in names] for pattern in TASK_PATIENTS)
        if matches := next(filter(all, found), None):
            patients = tuple(match[1] for match in matches)
            note = f"{len(set(patients))} patients by the file names"
            table = replace(table, patients=patients, notes=(*table.notes, note))
    if (table.splits == "test").any():
        return table
    note = "no test table: the validation images are the test set"
    return replace(table, splits=np.where(table.splits == "val", "test", table.splits), notes=(*table.notes, note))
