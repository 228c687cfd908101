"""The backbones: one card per network, one file per card (the CBR family shares one).

To add a network, write `radtransfer/backbones/<name>.py` with a `Backbone` and name it here.
"""

from radtransfer.registry import Table

BACKBONES = Table(
    "backbone",
    {
        "resnet50": "radtransfer.backbones.resnet50:RESNET50",
        "inception_v3": "radtransfer.backbones.inception_v3:INCEPTION_V3",
        "densenet121": "radtransfer.backbones.densenet121:DENSENET121",
        "resnet50_v1_5": "radtransfer.backbones.resnet50_v1_5:RESNET50_V1_5",
        "inception_v3_torch": "radtransfer.backbones.inception_v3_torch:INCEPTION_V3_TORCH",
        "inception_resnet_v2": "radtransfer.backbones.inception_resnet_v2:INCEPTION_RESNET_V2",
        "cbr_large_t": "radtransfer.backbones.cbr:CBR_LARGE_T",
        "cbr_large_w": "radtransfer.backbones.cbr:CBR_LARGE_W",
        "cbr_small": "radtransfer.backbones.cbr:CBR_SMALL",
        "cbr_tiny": "radtransfer.backbones.cbr:CBR_TINY",
        "cbr_tiny_wide": "radtransfer.backbones.cbr:CBR_TINY_WIDE",
        "efficientnet_v2_b0": "radtransfer.backbones.efficientnet_v2_b0:EFFICIENTNET_V2_B0",
        "convnext_tiny": "radtransfer.backbones.convnext_tiny:CONVNEXT_TINY",
    },
)
"""Name to `Backbone`; a card is imported when it is asked for, and none imports TensorFlow."""
