"""InceptionV3 as Keras and as PyTorch build it, and InceptionResNetV2, which are also networks of RadImageNet.

`inception_v3_torch` is for weights converted from torchvision and RadImageNet's `.pt`. Differs from `inception_v3`:
batch norm has a scale, and the average pools count the padding around the image.

References:
    Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision (arXiv 1512.00567).
    `torchvision.models.inception`.
    Szegedy, Ioffe, Vanhoucke, Alemi 2017, Inception-v4, Inception-ResNet (arXiv 1602.07261).
"""

from functools import partial
from typing import TYPE_CHECKING

from radtransfer.models.backbone import Backbone, keras_application

if TYPE_CHECKING:
    import keras


def build_inception_v3_torch(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import Model, layers

    x = _convolution(image, "stem_1a", 32, (3, 3), stride=2, padding="valid")
    x = _convolution(x, "stem_2a", 32, (3, 3), padding="valid")
    x = _convolution(x, "stem_2b", 64, (3, 3))
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool1")(x)
    x = _convolution(x, "stem_3b", 80, (1, 1))
    x = _convolution(x, "stem_4a", 192, (3, 3), padding="valid")
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool2")(x)
    for name, pool_channels in (("mixed0", 32), ("mixed1", 64), ("mixed2", 64)):
        x = _block_a(x, name, pool_channels)
    halve = partial(_convolution, kernel=(3, 3), stride=2, padding="valid")
    three = halve(x, "mixed3_branch3x3", 384)
    double = halve(_sequence(x, "mixed3", *_DOUBLE_THREE[:2]), "mixed3_branch3x3dbl_3", 96)
    largest = layers.MaxPooling2D(3, strides=2, name="mixed3_pool")(x)
    x = layers.Concatenate(name="mixed3")([three, double, largest])
    for name, width in (("mixed4", 128), ("mixed5", 160), ("mixed6", 160), ("mixed7", 192)):
        x = _block_c(x, name, width)
    three = halve(_sequence(x, "mixed8", ("branch3x3_1", 192, (1, 1))), "mixed8_branch3x3_2", 320)
    kernels = ((1, 1), (1, 7), (7, 1))
    seven = _sequence(x, "mixed8", *((f"branch7x7x3_{n}", 192, kernel) for n, kernel in enumerate(kernels, start=1)))
    seven = halve(seven, "mixed8_branch7x7x3_4", 192)
    largest = layers.MaxPooling2D(3, strides=2, name="mixed8_pool")(x)
    x = layers.Concatenate(name="mixed8")([three, seven, largest])
    for name in ("mixed9", "mixed10"):
        x = _block_e(x, name)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return Model(image, x)


_DOUBLE_THREE = (("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3)))


def _block_a(x: "keras.KerasTensor", block: str, pool_channels: int) -> "keras.KerasTensor":
    from keras import layers

    one = _sequence(x, block, ("branch1x1", 64, (1, 1)))
    five = _sequence(x, block, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5)))
    branches = [one, five, _sequence(x, block, *_DOUBLE_THREE), _average_branch(x, block, pool_channels)]
    return layers.Concatenate(name=block)(branches)


def _block_c(x: "keras.KerasTensor", block: str, width: int) -> "keras.KerasTensor":
    from keras import layers

    one = _sequence(x, block, ("branch1x1", 192, (1, 1)))
    shapes = ((width, (1, 1)), (width, (1, 7)), (192, (7, 1)))
    single = _sequence(x, block, *((f"branch7x7_{number}", *shape) for number, shape in enumerate(shapes, start=1)))
    shapes = ((width, (1, 1)), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7)))
    double = _sequence(x, block, *((f"branch7x7dbl_{number}", *shape) for number, shape in enumerate(shapes, start=1)))
    return layers.Concatenate(name=block)([one, single, double, _average_branch(x, block, 192)])


def _block_e(x: "keras.KerasTensor", block: str) -> "keras.KerasTensor":
    from keras import layers

    branches = [_sequence(x, block, ("branch1x1", 320, (1, 1)))]
    three = _sequence(x, block, ("branch3x3_1", 384, (1, 1)))
    double = _sequence(x, block, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
    for start, name in ((three, "branch3x3_2"), (double, "branch3x3dbl_3")):
        branches.append(_sequence(start, block, (f"{name}a", 384, (1, 3))))
        branches.append(_sequence(start, block, (f"{name}b", 384, (3, 1))))
    return layers.Concatenate(name=block)([*branches, _average_branch(x, block, 192)])


def _sequence(
    x: "keras.KerasTensor", block: str, *convolutions: tuple[str, int, tuple[int, int]]
) -> "keras.KerasTensor":
    """A sequence of convolutions, each given by name, channels and kernel."""
    for name, channels, kernel in convolutions:
        x = _convolution(x, f"{block}_{name}", channels, kernel)
    return x


def _average_branch(x: "keras.KerasTensor", block: str, channels: int) -> "keras.KerasTensor":
    from keras import layers

    x = layers.ZeroPadding2D(1, name=f"{block}_pool_pad")(x)
    x = layers.AveragePooling2D(3, strides=1, name=f"{block}_pool")(x)
    return _convolution(x, f"{block}_branch_pool", channels, (1, 1))


def _convolution(
    x: "keras.KerasTensor", name: str, channels: int, kernel: tuple[int, int], stride: int = 1, padding: str = "same"
) -> "keras.KerasTensor":
    """A convolution, its batch norm and ReLU."""
    from keras import layers

    x = layers.Conv2D(channels, kernel, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def residual_sum(
    operation: "keras.Operation", inputs: tuple[list["keras.KerasTensor"]], *, name: str, dtype: str
) -> "keras.KerasTensor":
    """`x + scale · branch` with public layers, in place of the application's own `CustomScaleLayer`."""
    from keras import layers

    x, branch = inputs[0]
    number = name.removeprefix("custom_scale_layer")
    scaled = layers.Rescaling(operation.scale, name=f"rescaling{number}", dtype=dtype)(branch)
    return layers.Add(name=f"add{number}", dtype=dtype)([x, scaled])


INCEPTION_V3 = Backbone(
    name="inception_v3",
    build=keras_application("InceptionV3"),
    stages={"stem": "max_pooling2d_1", "stage1": "mixed2", "stage2": "mixed7", "stage3": "mixed10"},
    preprocessing="tf",
    parameters=21_802_784,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionV3: parallel branches; ImageNet and RadImageNet weights exist",
    application="InceptionV3",
)

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

INCEPTION_RESNET_V2 = Backbone(
    name="inception_resnet_v2",
    build=keras_application("InceptionResNetV2"),
    stages={"stem": "max_pooling2d_1", "stage1": "block35_10_ac", "stage2": "block17_20_ac", "stage3": "conv_7b_ac"},
    preprocessing="tf",
    parameters=54_336_736,
    minimum_size=75,
    batch_norm_momentum=0.99,
    description="InceptionResNetV2: branches and residuals; ImageNet and RadImageNet weights exist",
    application="InceptionResNetV2",
    replacements={"CustomScaleLayer": residual_sum},
)
