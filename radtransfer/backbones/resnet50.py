"""ResNet50, the network of both papers and of RadImageNet.

References:
    He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition (arXiv 1512.03385).
"""

from typing import TYPE_CHECKING

from radtransfer.backbones.backbone import Backbone

if TYPE_CHECKING:
    import keras


def build_resnet50(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    from keras import applications

    return applications.ResNet50(weights=None, include_top=False, input_tensor=image, pooling=pooling)


RESNET50 = Backbone(
    name="resnet50",
    build=build_resnet50,
    stages={
        "stem": "conv1_relu",
        "stage1": "conv2_block3_out",
        "stage2": "conv3_block4_out",
        "stage3": "conv4_block6_out",
        "stage4": "conv5_block3_out",
    },
    preprocessing="caffe",
    parameters=23_587_712,
    minimum_size=32,
    batch_norm_momentum=0.99,
    description="ResNet50: residual bottlenecks; ImageNet and RadImageNet weights exist",
    application="ResNet50",
)
