"""Input scaling of pretrained weights, built into the model as Keras layers. To add one, add it to `_MODES`.

References:
    `keras.applications.imagenet_utils.preprocess_input`: caffe, tf, torch.
    Mei et al. 2022, RadImageNet, fine-tuning scripts (github.com/BMEII-AI/RadImageNet): caffe_unit
    in the TensorFlow ones (`rescale=1/255` after caffe), bgr_tf in the PyTorch ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from radtransfer.errors import UnknownNameError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Preprocessing:
    """`(channel * scale - mean) / std`, after the channels are put in `order`."""

    name: str
    description: str
    order: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0  # applied to 0–255 values first
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def output_range(self) -> tuple[float, float]:
        """Smallest and largest output for an image of 0–255."""
        channels = tuple(zip(self.mean, self.std, strict=True))
        low = min(-mean / std for mean, std in channels)
        high = max((255 * self.scale - mean) / std for mean, std in channels)
        return low, high


_CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, in blue, green, red

_MODES = (
    Preprocessing("caffe", "BGR minus the ImageNet mean, -123.68 to 151.06", order="BGR", mean=_CAFFE_MEAN),
    Preprocessing("tf", "RGB, -1 to 1", scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
    Preprocessing(
        "torch",
        "RGB, 0 to 1, then ImageNet mean and standard deviation",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    Preprocessing("unit", "RGB, 0 to 1", scale=1 / 255),
    Preprocessing(
        "clip",
        "RGB, 0 to 1, then CLIP's mean and standard deviation",
        scale=1 / 255,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    Preprocessing(
        "rad_dino",
        "RGB, 0 to 1, then RAD-DINO's mean and standard deviation",
        scale=1 / 255,
        mean=(0.5307, 0.5307, 0.5307),
        std=(0.2583, 0.2583, 0.2583),
    ),
    Preprocessing(
        "caffe_unit",
        "(BGR minus the ImageNet mean) / 255, as the RadImageNet .h5 weights",
        order="BGR",
        mean=_CAFFE_MEAN,
        std=(255.0, 255.0, 255.0),
    ),
    Preprocessing(
        "bgr_tf", "BGR, -1 to 1, as the RadImageNet .pt weights", order="BGR", scale=1 / 127.5, mean=(1.0, 1.0, 1.0)
    ),
    Preprocessing("raw", "RGB, 0 to 255, for networks that scale their own input"),
)

RANDOM_PREPROCESSING = "torch"  # for random weights (Transfusion, Appendix A)
LAYER = "preprocessing"  # name of the scaling layer in a model

MODES: Mapping[str, Preprocessing] = MappingProxyType({mode.name: mode for mode in _MODES})


def preprocessing_mode(name: str) -> Preprocessing:
    """The mode called `name`, or UnknownNameError."""
    if name not in MODES:
        raise UnknownNameError("preprocessing mode", name, MODES)
    return MODES[name]


def preprocess(images: "keras.KerasTensor", mode: str) -> "keras.KerasTensor":
    """Images scaled as in the training with `mode`, float32; a slice and a `Rescaling` layer in a functional model.

    Args:
        images: (batch, height, width, 3), RGB, 0–255; a symbolic Keras tensor or a tensor.
        mode: Key of `MODES`, else UnknownNameError.
    """
    import keras

    spec = preprocessing_mode(mode)
    if spec.order == "BGR":
        images = images[..., ::-1]
    scale = [spec.scale / std for std in spec.std]
    offset = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    # Nested lists, as Keras reads a flat list as (channels, 1, 1) with channels_first in keras.json.
    return keras.layers.Rescaling([[scale]], offset, dtype="float32", name=LAYER)(images)
