"""Random variations of training images, by name.

Every augmentation has `build()`, which gives a function of one image, float32 (height, width, 3),
RGB, 0–255, and one seed, int32 (2,), that returns an image of the same shape and range. What it
returns depends on these two alone, never on earlier calls or on parallelism, so that an epoch can be
repeated exactly. To add a preset, write its values in `presets.py` and a line here.
"""

from radtransfer.registry import Table

AUGMENTATIONS = Table(
    "augmentation",
    {
        "none": "radtransfer.augmentations.presets:NONE",
        "light": "radtransfer.augmentations.presets:LIGHT",
        "fundus": "radtransfer.augmentations.presets:FUNDUS",
        "chest": "radtransfer.augmentations.presets:CHEST",
        "juodelyte": "radtransfer.augmentations.presets:JUODELYTE",
        "juodelyte_no_flip": "radtransfer.augmentations.presets:JUODELYTE_NO_FLIP",
        "randaugment": "radtransfer.augmentations.keras_cv_layers:RANDAUGMENT",
        "augmix": "radtransfer.augmentations.keras_cv_layers:AUGMIX",
        "random_flip": "radtransfer.augmentations.keras_cv_layers:RANDOM_FLIP",
        "random_rotation": "radtransfer.augmentations.keras_cv_layers:RANDOM_ROTATION",
        "random_zoom": "radtransfer.augmentations.keras_cv_layers:RANDOM_ZOOM",
        "random_shear": "radtransfer.augmentations.keras_cv_layers:RANDOM_SHEAR",
        "random_contrast": "radtransfer.augmentations.keras_cv_layers:RANDOM_CONTRAST",
        "random_color_jitter": "radtransfer.augmentations.keras_cv_layers:RANDOM_COLOR_JITTER",
        "random_gaussian_blur": "radtransfer.augmentations.keras_cv_layers:RANDOM_GAUSSIAN_BLUR",
        "random_cutout": "radtransfer.augmentations.keras_cv_layers:RANDOM_CUTOUT",
    },
)
