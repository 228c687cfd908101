"""Thyroid ultrasound, DDTI: 480 images of 390 examinations of nodules (Pedraza et al. 2015; research use).

Kaggle's `dasmehdixtr/ddti-thyroid-ultrasound-images`; all files in one folder, the XML file of an examination beside
its images:

    1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …      <case><number>2</number>…<tirads>4a</tirads>…</case>

Classes: TI-RADS 1 to 3 is benign, 4a to 5 malignant, as in Juodelyte et al. 2023 and RadImageNet's thyroid task.
Examinations without a TI-RADS score are left out (`unscored=leave_out`, default), as RadImageNet does: 349 images, 61
benign. Juodelyte et al. count them as benign (`unscored=benign`): 131 of their 192 benign images have no score.

Patients: the examination, the number before the "_". Split: none.

References:
    Pedraza, Vargas, Narváez, Durán, Muñoz, Romero 2015, An open access thyroid ultrasound image database.
"""

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from radtransfer.datasets.image_table import ImageTable
from radtransfer.datasets.labels import listed, plain
from radtransfer.datasets.public_set import Option, PublicSet, Row, images_below, table_of_rows
from radtransfer.errors import DataError
from radtransfer.settings import DataSettings

DDTI = PublicSet(
    name="ddti",
    tree="""
1.xml, 1_1.jpg, 2.xml, 2_1.jpg, 2_2.jpg, …   (an XML file per examination beside its images)
""",
    options={"unscored": Option(("leave_out", "benign"))},
)

_IMAGE = re.compile(r"(\d+)_\d+\.\w+")
_SCORE = re.compile(r"([1-5])[abc]?", re.IGNORECASE)


def read(settings: DataSettings, location: str | None = None) -> ImageTable:
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
    notes = _notes(Counter(scores[case] is None for case in cases.values())[True], options["unscored"])
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


def _notes(unscored: int, option: str) -> list[str]:
    if not unscored:
        return []
    said = {"leave_out": "are left out", "benign": "count as benign"}[option]
    return [f"{unscored} images of examinations without a TI-RADS score {said}"]
