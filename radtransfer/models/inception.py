"""InceptionV3, also a RadImageNet network.

References:
    Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision (arXiv 1512.00567).

InceptionV3 as PyTorch builds it: for weights converted from torchvision and RadImageNet's `.pt`.

Differs from `inception_v3`: batch norm has a scale, and the average pools count the padding around the image.

References:
    Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision (arXiv 1512.00567).
    `torchvision.models.inception`.

InceptionResNetV2, also a RadImageNet network.

References:
    Szegedy, Ioffe, Vanhoucke, Alemi 2017, Inception-v4, Inception-ResNet (arXiv 1602.07261).
"""

from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_inception_v3(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.InceptionV3(weights=None, include_top=False, input_tensor=image, pooling=pooling)


INCEPTION_V3 = Backbone(
    name="inception_v3",
    build=build_inception_v3,
    stages={"stem": "max_pooling2d_1", "stage1": "mixed2", "stage2": "mixed7", "stage3": "mixed10"},
    preprocessing="tf",
    parameters=21_802_784,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionV3: parallel branches; ImageNet and RadImageNet weights exist",
    application="InceptionV3",
)


if TYPE_CHECKING:
    import keras

_EPSILON = 1e-3

Branch = tuple[tuple[str, int, tuple[int, int]], ...]
"""Convolutions in a row: name, channels, kernel."""


def build_inception_v3_torch(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import Model, layers

    x = _convolution(image, "stem_1a", 32, (3, 3), stride=2, padded=False)
    x = _convolution(x, "stem_2a", 32, (3, 3), padded=False)
    x = _convolution(x, "stem_2b", 64, (3, 3))
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool1")(x)
    x = _convolution(x, "stem_3b", 80, (1, 1))
    x = _convolution(x, "stem_4a", 192, (3, 3), padded=False)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool2")(x)
    for name, pool_channels in (("mixed0", 32), ("mixed1", 64), ("mixed2", 64)):
        x = _block_a(x, name, pool_channels)
    x = _block_b(x, "mixed3")
    for name, channels in (("mixed4", 128), ("mixed5", 160), ("mixed6", 160), ("mixed7", 192)):
        x = _block_c(x, name, channels)
    x = _block_d(x, "mixed8")
    for name in ("mixed9", "mixed10"):
        x = _block_e(x, name)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


def _block_a(x: "keras.KerasTensor", name: str, pool_channels: int) -> "keras.KerasTensor":
    return _joined(
        name,
        _row(x, name, (("branch1x1", 64, (1, 1)),)),
        _row(x, name, (("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5)))),
        _row(x, name, _double_three(64, 96)),
        _pooled(x, name, pool_channels),
    )


def _block_b(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    *rest, last = _double_three(64, 96)
    return _joined(
        name,
        _strided(x, name, "branch3x3", 384),
        _strided(_row(x, name, tuple(rest)), name, *last[:2]),
        _largest(x, name),
    )


def _block_c(x: "keras.KerasTensor", name: str, width: int) -> "keras.KerasTensor":
    single = (("branch7x7_1", width, (1, 1)), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1)))
    double = (
        ("branch7x7dbl_1", width, (1, 1)),
        ("branch7x7dbl_2", width, (7, 1)),
        ("branch7x7dbl_3", width, (1, 7)),
        ("branch7x7dbl_4", width, (7, 1)),
        ("branch7x7dbl_5", 192, (1, 7)),
    )
    one = (("branch1x1", 192, (1, 1)),)
    return _joined(name, _row(x, name, one), _row(x, name, single), _row(x, name, double), _pooled(x, name, 192))


def _block_d(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    seven = (("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)))
    return _joined(
        name,
        _strided(_row(x, name, (("branch3x3_1", 192, (1, 1)),)), name, "branch3x3_2", 320),
        _strided(_row(x, name, seven), name, "branch7x7x3_4", 192),
        _largest(x, name),
    )


def _block_e(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    one = _row(x, name, (("branch1x1", 320, (1, 1)),))
    three = _row(x, name, (("branch3x3_1", 384, (1, 1)),))
    double = _row(x, name, (("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3))))
    return _joined(
        name,
        one,
        _row(three, name, (("branch3x3_2a", 384, (1, 3)),)),
        _row(three, name, (("branch3x3_2b", 384, (3, 1)),)),
        _row(double, name, (("branch3x3dbl_3a", 384, (1, 3)),)),
        _row(double, name, (("branch3x3dbl_3b", 384, (3, 1)),)),
        _pooled(x, name, 192),
    )


def _double_three(first: int, then: int) -> Branch:
    return (
        ("branch3x3dbl_1", first, (1, 1)),
        ("branch3x3dbl_2", then, (3, 3)),
        ("branch3x3dbl_3", then, (3, 3)),
    )


def _row(x: "keras.KerasTensor", block: str, branch: Branch) -> "keras.KerasTensor":
    for name, channels, kernel in branch:
        x = _convolution(x, f"{block}_{name}", channels, kernel)
    return x


def _strided(x: "keras.KerasTensor", block: str, name: str, channels: int) -> "keras.KerasTensor":
    return _convolution(x, f"{block}_{name}", channels, (3, 3), stride=2, padded=False)


def _pooled(x: "keras.KerasTensor", block: str, channels: int) -> "keras.KerasTensor":
    from keras import layers

    x = layers.ZeroPadding2D(1, name=f"{block}_pool_pad")(x)
    x = layers.AveragePooling2D(3, strides=1, name=f"{block}_pool")(x)
    return _convolution(x, f"{block}_branch_pool", channels, (1, 1))


def _largest(x: "keras.KerasTensor", block: str) -> "keras.KerasTensor":
    from keras import layers

    return layers.MaxPooling2D(3, strides=2, name=f"{block}_pool")(x)


def _joined(name: str, *branches: "keras.KerasTensor") -> "keras.KerasTensor":
    from keras import layers

    return layers.Concatenate(name=name)(list(branches))


def _convolution(
    x: "keras.KerasTensor", name: str, channels: int, kernel: tuple[int, int], *, stride: int = 1, padded: bool = True
) -> "keras.KerasTensor":
    """A convolution, its batch norm and ReLU."""
    from keras import layers

    padding = "same" if padded else "valid"
    x = layers.Conv2D(channels, kernel, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


INCEPTION_V3_TORCH = Backbone(
    name="inception_v3_torch",
    build=build_inception_v3_torch,
    stages={"stem": "stem_pool2", "stage1": "mixed2", "stage2": "mixed7", "stage3": "mixed10"},
    preprocessing="tf",
    parameters=21_820_000,
    minimum_size=75,
    batch_norm_momentum=0.9,
    description="InceptionV3 as PyTorch builds it (scale in batch norm): for weights from `weights convert`",
)


if TYPE_CHECKING:
    import keras


def build_inception_resnet_v2(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.InceptionResNetV2(weights=None, include_top=False, input_tensor=image, pooling=pooling)


def residual_sum(
    operation: "keras.Operation", inputs: tuple[list["keras.KerasTensor"]], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """`x + scale · branch` with public layers, in place of the application's own `CustomScaleLayer`."""
    from keras import layers

    x, branch = inputs[0]
    number = name.removeprefix("custom_scale_layer")
    scaled = layers.Rescaling(operation.scale, name=f"rescaling{number}", dtype=dtype)(branch)
    return layers.Add(name=f"add{number}", dtype=dtype)([x, scaled])


INCEPTION_RESNET_V2 = Backbone(
    name="inception_resnet_v2",
    build=build_inception_resnet_v2,
    stages={
        "stem": "max_pooling2d_1",
        "stage1": "block35_10_ac",
        "stage2": "block17_20_ac",
        "stage3": "conv_7b_ac",
    },
    preprocessing="tf",
    parameters=54_336_736,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionResNetV2: branches and residuals; ImageNet and RadImageNet weights exist",
    application="InceptionResNetV2",
    replacements={"CustomScaleLayer": residual_sum},
)
