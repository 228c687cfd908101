"""The public sets as they lie on disk after their download: what each holds, and how it is read.

`--data NAME:FOLDER` or `--data NAME:FOLDER,option=value,…` reads one. Its labels and patients are known, so settings
that name columns are refused. To add a set, write an entry here, a parser in `public_parsers.py`, and a line in
`DATASETS`.
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

NUMBER = "a positive integer"  # among the values of an option: any such number

SPLIT = ("drawn", "official")  # folds that are drawn (by patient), or the split that was published with the set


@dataclass(frozen=True)
class PublicSet:
    """A data set as it lies on disk after its public download."""

    name: str  # in the table of datasets
    about: str  # what it is, its terms, where it comes from, and what its classes, patients, split and options mean
    tree: str  # what the folder holds, as messages print it
    parse: Callable[[Path, Mapping[str, str], DataSettings], ImageTable]  # folder, value of every option, settings
    holds: tuple[str, ...] = ()  # the names that must stand in the folder
    inside: tuple[str, ...] = ()  # folders of the archive in which they may stand instead
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the first value is the default
    columns: tuple[str, ...] = ()  # the settings that name columns and make sense here

    def __call__(self, settings: DataSettings, location: str | None = None) -> ImageTable:
        """The images of the folder `location`, after which options may follow.

        Raises DataError if the folder is missing or has another layout or contents, or a setting that makes no
        sense here, and ConfigError for an option that the set does not have, or a value that it does not take.
        """
        root, options = self.open(settings, location)
        try:
            return self.parse(root, options, settings)
        except WrongTreeError as error:
            raise self._error(f"{error.folder or root} {error}.", error.folder or root) from None

    def open(self, settings: DataSettings, location: str | None) -> tuple[Path, dict[str, str]]:
        """The folder that holds the tree, and the value of every option; errors as of a call."""
        folder, given = split_location(location or "")
        for name in ("path_column", "label_column", "patient_column", "image_root"):
            if getattr(settings, name) and name not in self.columns:
                raise DataError(
                    f"--{name.replace('_', '-')} makes no sense for {self.name}, which brings its own images, labels "
                    "and patients. Leave it out, or read one of the set's tables as a CSV.",
                    settings=(name,),
                )
        options = {name: choices[0] for name, choices in self.options.items()}
        for place, (name, value) in enumerate(given):
            if name not in self.options:
                raise UnknownNameError(f"option of {self.name}", name, self.options)
            choices, twice = self.options[name], name in dict(given[:place])
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
            for place in (root, *(root / name for name in self.inside)):
                if all((place / name).exists() for name in self.holds):
                    return place, options
        except PermissionError:
            raise DataError(f"The folder {root} may not be read. Check its permissions.") from None
        missing = [name for name in self.holds if not (root / name).exists()]
        raise self._error(f"{root} has no {' and no '.join(missing)}.", root)

    def _error(self, problem: str, folder: Path | None = None) -> DataError:
        """What is wrong, which tree is expected, and what the folder holds."""
        expected = "Expected:\n" + "\n".join(f"  {line}" for line in self.tree.strip().splitlines())
        found = ""
        if folder is not None:
            entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
            found = f"\nFound: {listed(entries) or 'nothing'}."
        return DataError(f"{self.name}: {problem} {expected}{found}")


CHEST_XRAY = PublicSet(
    name="chest_xray",
    about="""
Paediatric chest X-rays, normal or with pneumonia: 5,856 images (Kermany, Zhang, Goldbaum 2018,
doi:10.17632/rscbjbr9sj; CC BY 4.0). Kaggle's `paultimothymooney/chest-xray-pneumonia`, whose second copy in
`chest_xray/chest_xray` is not read, or `chest_xray` of the original at Mendeley Data, with other file names.

Classes: NORMAL, PNEUMONIA (bacteria and virus together, as Juodelyte et al. 2023). Do not flip these images.
Patients: in the file names. Juodelyte et al. take `person1` and `0115` whatever stands beside them; so does
`split=drawn`. These are too few: `person1_bacteria` and `person1_virus`, `IM-0115` and `NORMAL2-IM-0115` are
numbered apart (taken together, 264 of the 2,790 would stand in both train and test of the official split, taken
apart none of 4,097), but merging two patients leaks nothing. `split=official` takes them apart.
Split: `split=drawn` pools all three folders, as Juodelyte et al.; `split=official` keeps them (`val` has 16 images).
""",
    tree="""
train/NORMAL/IM-0115-0001.jpeg …        train/PNEUMONIA/person1_bacteria_1.jpeg …
val/NORMAL/…                            val/PNEUMONIA/…                           (may be missing)
test/NORMAL/…                           test/PNEUMONIA/…
""",
    parse=parsers.chest_xray,
    holds=("train", "test"),
    inside=("chest_xray",),
    options={"split": SPLIT},
)

BUSI = PublicSet(
    name="busi",
    about="""
Breast ultrasound: 780 images of 600 women (Al-Dhabyani, Gomaa, Khaled, Fahmy 2020, Dataset of breast ultrasound
images, Data in Brief 28; CC0 at Kaggle). Kaggle's `aryashah2k/breast-ultrasound-images-dataset`, or the authors'
archive. Masks are skipped.

Classes: `normal=benign` counts normal images as benign, as Juodelyte et al. 2023 and RadImageNet's breast task do (570
benign, 210 malignant); `normal=class` keeps three classes; `normal=leave_out` drops the 133 normal images.
Patients: not known, so images of one woman may fall in both train and test.
Split: none. The folds of Juodelyte et al. are tables of their own, read with --data FOLDS --image-root FOLDER.
""",
    tree="""
benign/benign (1).png, benign/benign (1)_mask.png, …
malignant/malignant (1).png, …
normal/normal (1).png, …
""",
    parse=parsers.busi,
    holds=("benign", "malignant", "normal"),
    inside=("Dataset_BUSI_with_GT", "images"),
    options={"normal": ("benign", "class", "leave_out")},
)

DDTI = PublicSet(
    name="ddti",
    about="""
Thyroid ultrasound: 480 images of 390 examinations of nodules (Pedraza, Vargas, Narváez, Durán, Muñoz, Romero 2015, An
open access thyroid ultrasound image database; research use). Kaggle's `dasmehdixtr/ddti-thyroid-ultrasound-images`;
the XML file of an examination holds <number>2</number> and <tirads>4a</tirads>.

Classes: TI-RADS 1 to 3 is benign, 4a to 5 malignant, as in Juodelyte et al. 2023 and RadImageNet's thyroid task.
Examinations without a score are left out (`unscored=leave_out`), as RadImageNet does: 349 images, 61 benign. Juodelyte
et al. count them as benign (`unscored=benign`): 131 of their 192 benign images have no score.
Patients: the examination, the number before the "_". Split: none.
""",
    tree="1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …   (an XML file per examination beside its images)",
    parse=parsers.ddti,
    options={"unscored": ("leave_out", "benign")},
)

CBIS_DDSM = PublicSet(
    name="cbis_ddsm",
    about="""
Mammograms: 3,103 whole images of 1,566 patients (Lee, Gimenez, Hoogi, Miyake, Gorovoy, Rubin 2017, Scientific Data 4;
CC BY 3.0). The whole mammograms as Kaggle's `awsaf49/cbis-ddsm-breast-cancer-image-dataset` or The Cancer Imaging
Archive have them (also converted in place), or one file each as Juodelyte et al. 2023, anywhere below the folder. A
table's `image file path` is `Mass-Training_P_00001_LEFT_CC/<study UID>/<series UID>/000000.dcm`: a mammogram is the
file in a folder called as its series or as its case, or called as its case. Crops and masks have other names.

Classes: BENIGN, into which BENIGN_WITHOUT_CALLBACK is merged, and MALIGNANT, as Juodelyte et al. The tables have a row
per finding (3,568), which those count as images; here a mammogram is one image, malignant if any finding is (17
mammograms have both). `cases=all`, `mass` or `calc`.
Patients: patient_id. Split: `split=drawn` pools all, as Juodelyte et al.; `split=official` keeps train and test of the
tables, and stops with cases=all at the 31 patients who have masses on one side and calcifications on the other.
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
Knee MRI: 1,250 examinations with labels (Bien et al. 2018, Deep-learning-assisted diagnosis for knee magnetic resonance
imaging, PLOS Medicine 15; Stanford's research use agreement). Volumes are uint8 (slices, 256, 256).

Classes: no, yes, for `task=acl`, `meniscus` or `abnormal`; every slice has the label of its examination. The slices of
`plane=sagittal`, `coronal` or `axial` are written once as PNG files to the cache: `slices=middle`, a number of slices
around the middle, or `all`. Juodelyte et al. 2023 and RadImageNet use sagittal slices that radiologists had picked and
labelled one by one (1,021 for ACL tears, about the middle; 4,201 for meniscus tears); read those with
`radimagenet_task`. The middle slice is the nearest that the volumes give; a tear may well lie beside it.
Patients: the examination. Split: `split=drawn` pools both parts, as Juodelyte et al.; `split=official` tests on
`valid`, the public test set being none.
""",
    tree="""
train-acl.csv, valid-acl.csv, train-meniscus.csv, …        without a header: 0000,1
train/sagittal/0000.npy …, train/coronal/…, train/axial/…
valid/sagittal/1130.npy …
""",
    parse=parsers.mrnet,
    holds=("train", "valid"),
    inside=("MRNet-v1.0",),
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
Lymph node sections, PatchCamelyon: 327,680 patches of 96×96 pixels (Veeling, Linmans, Winkens, Cohen, Welling 2018,
Rotation equivariant CNNs for digital pathology, arXiv 1806.03962; CC0). The HDF5 files of github.com/basveeling/pcam,
anywhere below the folder: `x` is uint8 (images, 96, 96, 3), `y` is 0 or 1.

Classes: no, yes (a tumour in the centre). Patients: the slide, where the meta tables are there.
Split: `split=official` is that of the files, `split=drawn` pools them for drawn folds.
The patches are written once as PNG files to the cache (some minutes, 6 GB). `images=10000` draws so many of the three
files together (as they come, by a fixed seed), and writes only those. Juodelyte et al. 2023 use 10,000 as well, in five
drawn folds, but not the same: their PNG files of the three parts had the same names, so that later ones replaced some.
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
Skin lesions, ISIC 2018 task 3: 10,015 dermoscopic images of 7 diagnoses (Tschandl, Rosendahl, Kittler 2018, The
HAM10000 dataset, Scientific Data 5; Codella et al. 2019, arXiv 1902.03368; CC BY-NC 4.0). The archives of
challenge.isic-archive.com in one folder; each table stands in a folder of its name or beside it.

Classes: the columns MEL, NV, BCC, AKIEC, BKL, DF, VASC, of which one is 1.
Patients: the lesion, where its table is there; several images of one lesion are common (10,015 of 7,470). Without it,
as in the folds of Juodelyte et al. 2023, they leak.
Split: `split=drawn` has the training images alone, as Juodelyte et al.; `split=official` validates on 193 and tests on
1,512 more.
""",
    tree="""
ISIC2018_Task3_Training_Input/ISIC_0024306.jpg …
ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
ISIC2018_Task3_Training_LesionGroupings.csv                  (may be missing)
ISIC2018_Task3_Validation_Input/… and _GroundTruth/…         (only for split=official)
ISIC2018_Task3_Test_Input/… and _GroundTruth/…               (only for split=official)
""",
    parse=parsers.isic2018,
    holds=("ISIC2018_Task3_Training_Input",),
    options={"split": SPLIT},
)

HAM10000 = PublicSet(
    name="ham10000",
    about="""
Skin lesions: the images of ISIC 2018 task 3, as Kaggle and the Harvard Dataverse give them (Tschandl, Rosendahl,
Kittler 2018, The HAM10000 dataset, Scientific Data 5; CC BY-NC 4.0). Kaggle's `kmader/skin-cancer-mnist-ham10000`,
whose second copies in lower-case folders are not read.

Classes: `dx`, in the capitals of ISIC 2018. Patients: the lesion. Split: none.
""",
    tree="""
HAM10000_metadata.csv                      with the columns lesion_id,image_id,dx
HAM10000_images_part_1/ISIC_0024306.jpg …
HAM10000_images_part_2/ISIC_0029306.jpg …
""",
    parse=parsers.ham10000,
    holds=("HAM10000_metadata.csv", "HAM10000_images_part_1"),
)

KVASIR = PublicSet(
    name="kvasir",
    about="""
Endoscopy: 8 classes of 500 (v1) or 1,000 images (v2) (Pogorelov et al. 2017, Kvasir: a multi-class image dataset for
computer aided gastrointestinal disease detection; for research and education). `kvasir-dataset.zip` or
`kvasir-dataset-v2.zip` of Simula.

Classes: the eight folders. Patients: not known, and frames of one examination may fall in both train and test.
Split: none.
""",
    tree="\n".join(f"{name}/….jpg" for name in parsers.KVASIR_CLASSES),
    parse=parsers.kvasir,
    holds=parsers.KVASIR_CLASSES,
    inside=("kvasir-dataset", "kvasir-dataset-v2"),
)

CHEXPERT = PublicSet(
    name="chexpert",
    about="""
Chest X-rays: 223,648 images of 64,740 patients (Irvin et al. 2019, CheXpert, arXiv 1901.07031; Stanford's research use
agreement). `CheXpert-v1.0-small`, or the full `CheXpert-v1.0`.

Labels: the five of the competition, as in Transfusion (Raghu et al. 2019); --label-column names others of the 14. 1 is
present, 0 absent, -1 uncertain (--uncertain), empty not mentioned (--unmentioned). Do not flip the images, of which
`view=all`, `frontal` or `lateral` are read.
Patients: in the path. Split: `split=official` tests on `valid.csv`, whose 234 images three radiologists labelled, and
draws the validation images from train by patient; its AUCs have wide intervals. `split=drawn` pools both.
""",
    tree="""
train.csv, valid.csv       with the columns Path, Frontal/Lateral and the 14 observations
train/patient00001/study1/view1_frontal.jpg …
valid/patient64541/study1/view1_frontal.jpg …
""",
    parse=parsers.chexpert,
    holds=("train.csv", "valid.csv"),
    inside=("CheXpert-v1.0-small", "CheXpert-v1.0"),
    options={"split": ("official", "drawn"), "view": ("all", "frontal", "lateral")},
    columns=("label_column",),
)

EYEPACS = PublicSet(
    name="eyepacs",
    about="""
Diabetic retinopathy: 35,126 graded fundus photographs, two eyes each (Kaggle 2015; its competition rules). Kaggle's
`diabetic-retinopathy-detection`; the test labels were published later, in a post of its forum. Transfusion (Raghu et
al. 2019) used RETINA, a larger set of the same kind that is not public.

Classes: the grades 0 to 4. Referable is 2 or worse (moderate), so the reported AUC is of that (`--positive-from`
changes it); for the AUC of each grade, read the table as a CSV.
Patients: the number before `_left` and `_right`. Split: `split=drawn` has the images of `train/` alone;
`split=official` validates on the public and tests on the private part of `test/`, 88,702 images in all.
""",
    tree="""
trainLabels.csv                with the columns image,level
train/10_left.jpeg, train/10_right.jpeg, …
retinopathy_solution.csv       with the columns image,level,Usage   (only for split=official)
test/1_left.jpeg, …                                                 (only for split=official)
""",
    parse=parsers.eyepacs,
    holds=("trainLabels.csv", "train"),
    options={"split": SPLIT},
)

APTOS2019 = PublicSet(
    name="aptos2019",
    about="""
Diabetic retinopathy: 3,662 graded fundus photographs (Aravind Eye Hospital; Kaggle competition rules). Kaggle's
`aptos2019-blindness-detection`; its test images have no public labels and are not read.

Classes: the grades 0 to 4, and the AUC is that of referable images, as of eyepacs. Patients: not known. Split: none.
""",
    tree="""
train.csv                      with the columns id_code,diagnosis
train_images/000c1434d8d7.png, …
""",
    parse=parsers.aptos2019,
    holds=("train.csv", "train_images"),
)

RADIMAGENET_TASK = PublicSet(
    name="radimagenet_task",
    about="""
The tasks of RadImageNet's authors, with their folds: knee, thyroid, breast, lung and head (Mei et al. 2022; MIT). A
folder of github.com/BMEII-AI/RadImageNet; the images of most tasks have to be brought from their public sets, under the
names in the tables: columns filename,acl_label (acl), img_dir,label (meniscus, thyroid), filename,label (breast,
covid19, sarscovid2), filename,Target,label (pneumonia), pid,label,dir (hemorrhage).

Classes: as written (yes and no, n and p, benign and malignant, positive and negative; CP, NCP, Normal).
Patients: the column `pid`, else the beginning of the file name; breast has none. Split: theirs; hemorrhage has no test
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
