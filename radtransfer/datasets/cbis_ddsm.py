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
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from radtransfer.datasets.image_files import is_image_name, walk_files
from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.public_set import SPLIT, Option, PublicSet, Row, read_columns, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

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
