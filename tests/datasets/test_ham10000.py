"""HAM10000: the images of ISIC 2018 in two folders."""

import pytest

from radtransfer.errors import DataError

METADATA = (
    "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
    "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp\n"
    "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp\n"
    "HAM_0002730,ISIC_0026769,mel,histo,,female,scalp\n"
    "HAM_0002731,ISIC_0000001,nv,histo,,female,scalp\n"
)
PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2")


def test_images_are_found_in_both_parts_and_copies_are_not_read(tree, read):
    root = tree(
        *(f"{PARTS[0]}/ISIC_0027419.jpg", f"{PARTS[0]}/ISIC_0025030.jpg", f"{PARTS[1]}/ISIC_0026769.jpg"),
        "ham10000_images_part_2/ISIC_0026769.jpg",
        text={"HAM10000_metadata.csv": METADATA, "hmnist_8_8_L.csv": "pixel0000\n1\n"},
    )
    table = read(f"ham10000:{root}")
    assert table.labels == ("BKL", "BKL", "MEL", "NV")
    assert table.patients == ("HAM_0000118", "HAM_0000118", "HAM_0002730", "HAM_0002731")
    assert [file and file.parent.name for file in table.files] == [PARTS[0], PARTS[0], PARTS[1], None]
    assert "patients are lesions (3)" in table.notes
    assert "1 of 4 images are not on disk, such as 'HAM10000_images_part_1/ISIC_0000001.jpg'" in table.notes


def test_an_unknown_diagnosis_is_an_error(tree, read):
    root = tree(f"{PARTS[0]}/a.jpg", text={"HAM10000_metadata.csv": METADATA.replace("mel", "scar")})
    with pytest.raises(DataError, match="dx of ISIC_0026769 is 'scar'; expected one of mel, nv, bcc"):
        read(f"ham10000:{root}")
