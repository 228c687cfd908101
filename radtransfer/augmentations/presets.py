"""The values of the augmentation presets, with their sources. Where a paper gives no number, it is ours.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix A: mild random crop, hue and contrast;
        flips for fundus photographs only. No numbers.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), and its code.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts: the same values.
"""

from dataclasses import replace

from radtransfer.augmentations.preset import Preset

NONE = Preset("images as they are")

LIGHT = Preset(
    "rotation 10°, shift 5 %, zoom 10 %, contrast 10 %, no flip: left and right can be the finding "
    "(heart, liver, laterality), so a default must not swap them",
    rotation=10.0,  # all ours
    shift=0.05,
    zoom=0.1,
    contrast=0.1,
)

FUNDUS = Preset(
    "crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, flips in both directions",
    crop=0.1,  # ours
    hue=0.02,  # ours
    contrast=0.2,  # ours
    flip_horizontal=True,
    flip_vertical=True,
)

CHEST = replace(
    FUNDUS,
    description="crop to 90–100 % of each side, hue 0.02 of a turn, contrast 20 %, no flip",
    flip_horizontal=False,
    flip_vertical=False,
)

# Shear: `shear_range=0.1` of Keras' ImageDataGenerator, which both papers used, is in degrees.
JUODELYTE = Preset(
    "rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, horizontal flip",
    rotation=10.0,
    shift=0.1,
    shear=0.1,
    zoom=0.1,
    flip_horizontal=True,
)

JUODELYTE_NO_FLIP = replace(
    JUODELYTE, description="rotation 10°, shift 10 %, shear 0.1°, zoom 10 %, no flip", flip_horizontal=False
)
