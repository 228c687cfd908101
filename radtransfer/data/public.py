"""Public data sets, read from the folder of their download: `--data NAME:FOLDER` or `NAME:FOLDER,option=value,…`.

To add one, write an entry here, a parser in `public_parsers.py`, and a line in `readers.DATASETS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from radtransfer.config.schema import DataSettings
from radtransfer.data import public_parsers as parsers
from radtransfer.data.labels import listed
from radtransfer.data.public_parsers import WrongTreeError
from radtransfer.data.readers import split_location
from radtransfer.data.table import ImageTable
from radtransfer.errors import ConfigError, DataError, UnknownNameError, suggest_path

NUMBER = "a positive integer"  # in the list of values of an option: any positive integer

SPLIT = ("drawn", "official")  # folds drawn by patient, or the published split


@dataclass(frozen=True)
class PublicSet:
    """How the download of a public data set is read."""

    name: str  # key in `DATASETS`
    about: str  # content, terms and source; classes, patients, split, options
    tree: str  # expected contents of the folder, for messages
    parse: Callable[[Path, Mapping[str, str], DataSettings], ImageTable]  # folder, value of every option, settings
    required: tuple[str, ...] = ()  # files and folders that the folder must contain
    subfolders: tuple[str, ...] = ()  # subfolders that may contain them instead
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # allowed values, the default first
    columns: tuple[str, ...] = ()  # settings of columns and folders that this set supports

    def __call__(self, settings: DataSettings, location: str | None = None) -> ImageTable:
        """The images of `location`, FOLDER or FOLDER,option=value,….

        Raises DataError for a folder with other contents or a setting that does not apply, and ConfigError for an
        unknown option or value.
        """
        root, options = self.open(settings, location)
        try:
            return self.parse(root, options, settings)
        except WrongTreeError as error:
            raise self._error(f"{error.folder or root} {error}.", error.folder or root) from None

    def open(self, settings: DataSettings, location: str | None) -> tuple[Path, dict[str, str]]:
        """The folder with the data and the value of every option; raises as `__call__`."""
        folder, given = split_location(location or "")
        for name in ("path_column", "label_column", "patient_column", "image_root"):
            if getattr(settings, name) and name not in self.columns:
                raise DataError(
                    f"--{name.replace('_', '-')} does not apply to {self.name}, which has its own images, labels and "
                    "patients. Leave it out, or read one of the set's tables as a CSV.",
                    settings=(name,),
                )
        options = {name: choices[0] for name, choices in self.options.items()}
        for number, (name, value) in enumerate(given):
            if name not in self.options:
                raise UnknownNameError(f"option of {self.name}", name, self.options)
            choices, twice = self.options[name], name in dict(given[:number])
            counts = NUMBER in choices and value.isdecimal() and int(value) > 0
            if twice or not (counts or (value in choices and value != NUMBER)):
                problem = "is given twice" if twice else f"is {value!r}"
                raise ConfigError(f"{self.name}: option {name} {problem}; expected one of {', '.join(choices)}.")
            options[name] = value
        root = Path(folder).expanduser().absolute()
        if not folder or not root.is_dir():
            named = folder or "no folder given"
            raise self._error(f"{named} is not a folder.{suggest_path(folder)}")
        try:
            for parent in (root, *(root / name for name in self.subfolders)):
                if all((parent / name).exists() for name in self.required):
                    return parent, options
        except PermissionError:
            raise DataError(f"Cannot read the folder {root}. Check its permissions.") from None
        missing = [name for name in self.required if not (root / name).exists()]
        raise self._error(f"{root} has no {' and no '.join(missing)}.", root)

    def _error(self, problem: str, folder: Path | None = None) -> DataError:
        """The error with the expected and the actual contents of the folder."""
        expected = "Expected:\n" + "\n".join(f"  {line}" for line in self.tree.strip().splitlines())
        found = ""
        if folder is not None:
            entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
            found = f"\nFound: {listed(entries) or 'nothing'}."
        return DataError(f"{self.name}: {problem} {expected}{found}")


CHEST_XRAY = PublicSet(
    name="chest_xray",
    about="""
Paediatric chest X-rays, 5,856 images (Kermany et al. 2018, doi:10.17632/rscbjbr9sj; CC BY 4.0), from Kaggle
(`paultimothymooney/chest-xray-pneumonia`) or Mendeley Data. Classes: NORMAL, PNEUMONIA. Do not flip the images.
Patients: from the file names. Split: `split=drawn` pools the three folders and merges `person1_bacteria` with
`person1_virus`, as Juodelyte et al. 2023 do, which leaks nothing; `split=official` keeps the folders and both apart.
""",
    tree="""
train/NORMAL/IM-0115-0001.jpeg …        train/PNEUMONIA/person1_bacteria_1.jpeg …
val/NORMAL/…                            val/PNEUMONIA/…                           (may be missing)
test/NORMAL/…                           test/PNEUMONIA/…
""",
    parse=parsers.chest_xray,
    required=("train", "test"),
    subfolders=("chest_xray",),
    options={"split": SPLIT},
)

BUSI = PublicSet(
    name="busi",
    about="""
Breast ultrasound, 780 images of 600 women (Al-Dhabyani et al. 2020, Data in Brief 28; CC0), from Kaggle
(`aryashah2k/breast-ultrasound-images-dataset`). Masks are skipped. Classes: `normal=benign` counts normal images as
benign, as Juodelyte et al. 2023; `normal=class` keeps three classes; `normal=leave_out` drops the 133 normal images.
Patients: unknown, so images of one woman may be in both train and test. Split: none.
""",
    tree="""
benign/benign (1).png, benign/benign (1)_mask.png, …
malignant/malignant (1).png, …
normal/normal (1).png, …
""",
    parse=parsers.busi,
    required=("benign", "malignant", "normal"),
    subfolders=("Dataset_BUSI_with_GT", "images"),
    options={"normal": ("benign", "class", "leave_out")},
)

DDTI = PublicSet(
    name="ddti",
    about="""
Thyroid ultrasound, 480 images of 390 examinations (Pedraza et al. 2015; research use), from Kaggle
(`dasmehdixtr/ddti-thyroid-ultrasound-images`). Classes: TI-RADS 1 to 3 is benign, 4a to 5 malignant. Examinations
without a score are dropped (`unscored=leave_out`, as RadImageNet) or benign (`unscored=benign`, as Juodelyte et al.).
Patients: the examination, the number before the "_". Split: none.
""",
    tree="1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …   (an XML file per examination beside its images)",
    parse=parsers.ddti,
    options={"unscored": ("leave_out", "benign")},
)

CBIS_DDSM = PublicSet(
    name="cbis_ddsm",
    about="""
Mammograms, 3,103 images of 1,566 patients (Lee et al. 2017, Scientific Data 4; CC BY 3.0), from Kaggle
(`awsaf49/cbis-ddsm-breast-cancer-image-dataset`) or The Cancer Imaging Archive; also converted to PNG or JPEG.
Classes: BENIGN (with BENIGN_WITHOUT_CALLBACK), MALIGNANT if any finding in the image is; `cases=all`, `mass` or `calc`.
Patients: patient_id. Split: `split=drawn` pools all; `split=official` keeps train and test of the tables, which share
31 patients with `cases=all`.
""",
    tree="""
{mass,calc}_case_description_{train,test}_set.csv, here or in csv/
jpeg/<series UID>/1-249.jpg …                           (Kaggle), or
Mass-Training_P_00001_LEFT_CC/<study>/<series>/1-1.dcm  (The Cancer Imaging Archive), or
images/Mass-Training_P_00001_LEFT_CC.png …
""",
    parse=parsers.cbis_ddsm,
    options={"split": SPLIT, "cases": ("all", "mass", "calc")},
)

MRNET = PublicSet(
    name="mrnet",
    about="""
Knee MRI, 1,250 labelled examinations (Bien et al. 2018, PLOS Medicine 15; research use). Classes: no, yes, for
`task=acl`, `meniscus` or `abnormal`; every slice has the label of its examination. `slices=middle`, `all` or a number
around the middle of `plane=sagittal`, `coronal` or `axial` are written to the cache as PNG. A tear may be visible in
other slices only: Juodelyte et al. 2023 used slices that radiologists picked (`radimagenet_task`).
Patients: the examination. Split: `split=drawn` pools both parts, `split=official` tests on `valid`.
""",
    tree="""
train-acl.csv, valid-acl.csv, train-meniscus.csv, …        without a header: 0000,1
train/sagittal/0000.npy …, train/coronal/…, train/axial/…
valid/sagittal/1130.npy …
""",
    parse=parsers.mrnet,
    required=("train", "valid"),
    subfolders=("MRNet-v1.0",),
    options={
        "task": ("acl", "meniscus", "abnormal"),
        "plane": ("sagittal", "coronal", "axial"),
        "slices": ("middle", "all", NUMBER),
        "split": SPLIT,
    },
)

PCAM = PublicSet(
    name="pcam",
    about="""
Lymph node sections, PatchCamelyon, 327,680 patches of 96×96 pixels (Veeling et al. 2018, arXiv 1806.03962; CC0), from
github.com/basveeling/pcam. Classes: no, yes (tumour in the centre). Patients: the slide, if the meta tables are there.
Split: `split=official` is that of the files, `split=drawn` pools them. Patches are written to the cache as PNG (6 GB);
`images=10000` draws and writes only so many of all (seed 0).
""",
    tree="""
camelyonpatch_level_2_split_train_x.h5, …_train_y.h5, …_train_meta.csv   (unpacked; the meta tables may be missing)
camelyonpatch_level_2_split_valid_x.h5, …_valid_y.h5, …_valid_meta.csv
camelyonpatch_level_2_split_test_x.h5, …_test_y.h5, …_test_meta.csv
""",
    parse=parsers.pcam,
    options={"split": ("official", "drawn"), "images": ("all", NUMBER)},
)

ISIC2018 = PublicSet(
    name="isic2018",
    about="""
Skin lesions, ISIC 2018 task 3, 10,015 images (Tschandl et al. 2018, Scientific Data 5; Codella et al. 2019, arXiv
1902.03368; CC BY-NC 4.0), from challenge.isic-archive.com. Classes: MEL, NV, BCC, AKIEC, BKL, DF, VASC.
Patients: the lesion, if its table is there; without it, images of one lesion leak between splits.
Split: `split=drawn` uses the training images; `split=official` validates on 193 and tests on 1,512 others.
""",
    tree="""
ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
ISIC2018_Task3_Training_LesionGroupings.csv                  (may be missing)
ISIC2018_Task3_Validation_Input/… and _GroundTruth/…         (only for split=official)
ISIC2018_Task3_Test_Input/… and _GroundTruth/…               (only for split=official)
""",
    parse=parsers.isic2018,
    required=("ISIC2018_Task3_Training_Input",),
    options={"split": SPLIT},
)

HAM10000 = PublicSet(
    name="ham10000",
    about="""
The images of ISIC 2018 task 3 as Kaggle (`kmader/skin-cancer-mnist-ham10000`) and the Harvard Dataverse give them
(Tschandl et al. 2018, Scientific Data 5; CC BY-NC 4.0). Classes: `dx` in capitals. Patients: the lesion. Split: none.
""",
    tree="""
HAM10000_metadata.csv                      with the columns lesion_id,image_id,dx
HAM10000_images_part_1/ISIC_0024306.jpg …
HAM10000_images_part_2/ISIC_0029306.jpg …
""",
    parse=parsers.ham10000,
    required=("HAM10000_metadata.csv", "HAM10000_images_part_1"),
)

KVASIR = PublicSet(
    name="kvasir",
    about="""
Endoscopy, 8 classes of 500 (v1) or 1,000 images (v2) (Pogorelov et al. 2017; research and education), from Simula.
Classes: the eight folders. Patients: unknown, so one examination may be in both train and test. Split: none.
""",
    tree="\n".join(f"{name}/….jpg" for name in parsers.KVASIR_CLASSES),
    parse=parsers.kvasir,
    required=parsers.KVASIR_CLASSES,
    subfolders=("kvasir-dataset", "kvasir-dataset-v2"),
)

CHEXPERT = PublicSet(
    name="chexpert",
    about="""
Chest X-rays, 223,648 images of 64,740 patients (Irvin et al. 2019, arXiv 1901.07031; research use). Labels: the five of
the competition, or those of --label-column: 1 present, 0 absent, -1 uncertain (--uncertain), empty not mentioned
(--unmentioned). `view=all`, `frontal` or `lateral`. Do not flip the images. Patients: from the path.
Split: `split=official` tests on `valid.csv` (234 images), `split=drawn` pools both.
""",
    tree="""
train.csv, valid.csv       with the columns Path, Frontal/Lateral and the 14 observations
train/patient00001/study1/view1_frontal.jpg …
valid/patient64541/study1/view1_frontal.jpg …
""",
    parse=parsers.chexpert,
    required=("train.csv", "valid.csv"),
    subfolders=("CheXpert-v1.0-small", "CheXpert-v1.0"),
    options={"split": ("official", "drawn"), "view": ("all", "frontal", "lateral")},
    columns=("label_column",),
)

EYEPACS = PublicSet(
    name="eyepacs",
    about="""
Diabetic retinopathy, 35,126 graded fundus photographs (Kaggle 2015, `diabetic-retinopathy-detection`; its rules).
Classes: grades 0 to 4; the reported AUC is for grade ≥ 2 (referable) unless --positive-from says otherwise.
Patients: the number before `_left` and `_right`. Split: `split=drawn` uses the images of `train/`; `split=official`
validates on the public and tests on the private part of `test/` (88,702 images in all).
""",
    tree="""
trainLabels.csv                with the columns image,level
train/10_left.jpeg, train/10_right.jpeg, …
retinopathy_solution.csv       with the columns image,level,Usage   (only for split=official)
test/1_left.jpeg, …                                                 (only for split=official)
""",
    parse=parsers.eyepacs,
    required=("trainLabels.csv", "train"),
    options={"split": SPLIT},
)

APTOS2019 = PublicSet(
    name="aptos2019",
    about="""
Diabetic retinopathy, 3,662 graded fundus photographs (Kaggle 2019, `aptos2019-blindness-detection`; its rules).
Classes: grades 0 to 4, AUC as for eyepacs. Patients: unknown. Split: none; the test images have no public labels.
""",
    tree="""
train.csv                      with the columns id_code,diagnosis
train_images/000c1434d8d7.png, …
""",
    parse=parsers.aptos2019,
    required=("train.csv", "train_images"),
)

RADIMAGENET_TASK = PublicSet(
    name="radimagenet_task",
    about="""
The tasks of RadImageNet's authors with their folds (Mei et al. 2022; MIT): a folder of github.com/BMEII-AI/RadImageNet.
Most images must be added from their public sets, under the names in the tables. Classes: as written in the tables.
Patients: the column `pid`, else the start of the file name; breast has none. Split: theirs; hemorrhage has no test
table, so its validation images are the test set. Bone age is a regression and cannot be read.
""",
    tree="""
dataframe/train_fold1.csv, val_fold1.csv, test_fold1.csv …    (acl; or with a prefix: meniscus_, thyroid_, breast_)
dataframe/train.csv, val.csv, test.csv                        (pneumonia; or with a prefix: covid19_, hemorrhage_ …)
images/…
""",
    parse=parsers.radimagenet_task,
    columns=("image_root",),
)
