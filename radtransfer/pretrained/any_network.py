"""Networks outside the table: `keras:NAME`, `MODULE:FUNCTION` and `FILE.keras`, with stages found by downsampling.

keras:NAME         a classifier of `keras.applications`
MODULE:FUNCTION    your own: FUNCTION(image_size=N) returns a functional model of images (N, N, 3)
FILE.keras         your own, saved by Keras
NAME               of the entry-point group `radtransfer.backbones`, whose value is MODULE:FUNCTION

The network is built once in a separate process (`python -m radtransfer.pretrained.any_network NAME FILE`) to find its
stages, so that this process does not import TensorFlow early; the result is cached. The code of MODULE:FUNCTION runs
there, and whenever the network is built.
"""

import functools
import hashlib
import importlib
import importlib.machinery
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.errors import ConfigError, RadtransferError, UnknownNameError
from radtransfer.models.backbone import HEAD, Backbone, layer_sources, layer_stages

if TYPE_CHECKING:
    import keras

KERAS = "keras:"

_FAMILIES = {
    ("caffe", 32): "ResNet50 ResNet101 ResNet152 VGG16 VGG19",
    (
        "tf",
        32,
    ): "ResNet50V2 ResNet101V2 ResNet152V2 MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large NASNetMobile "
    "NASNetLarge EfficientNetV2S EfficientNetV2M EfficientNetV2L",
    ("tf", 71): "Xception",
    ("tf", 75): "InceptionV3 InceptionResNetV2",
    ("torch", 32): "DenseNet121 DenseNet169 DenseNet201 EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 "
    "EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 "
    "EfficientNetV2B3 ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge",
}
APPLICATIONS = {name: facts for facts, names in _FAMILIES.items() for name in names.split()}
"""Class of `keras.applications` to the preprocessing of its ImageNet weights and its smallest image."""

_SIZE = 224
_MOMENTUM = 0.9


@functools.cache
def _registered() -> Mapping[str, str]:
    """Name to MODULE:FUNCTION of the networks that installed packages register."""
    return {entry.name: entry.value for entry in entry_points(group="radtransfer.backbones")}


def is_other(name: object) -> bool:
    """Whether `name` has the form of a network outside the table."""
    return isinstance(name, str) and (name.endswith(".keras") or ":" in name or name in _registered())


def check_other(name: str) -> None:
    """Raise ConfigError if there is no network `name`, as far as that is known without building it."""
    if name.startswith(KERAS):
        application = name.removeprefix(KERAS)
        if application not in APPLICATIONS:
            raise UnknownNameError("network of keras.applications", application, APPLICATIONS)
    elif name.endswith(".keras"):
        if not Path(name).expanduser().is_file():
            raise ConfigError(f"--backbone {name}: there is no such file. Expected a model that Keras saved.")
    else:
        code_of(name)


def code_of(name: str) -> Path:
    """The file with the code of MODULE:FUNCTION, or the `.keras` file; no code is run."""
    if name.endswith(".keras"):
        return Path(name).expanduser()
    module, _, function = _registered().get(name, name).partition(":")
    with_folder = [str(Path.cwd()), *sys.path]
    try:
        found = importlib.machinery.PathFinder.find_spec(module.partition(".")[0], with_folder)
        for part in module.split(".")[1:]:
            path = f"{found.name}.{part}" if found else module
            found = found and importlib.machinery.PathFinder.find_spec(path, found.submodule_search_locations)
    except (ImportError, ValueError, TypeError):
        found = None
    if found is None or not found.origin or not function.isidentifier():
        raise ConfigError(
            f"--backbone {name}: expected MODULE:FUNCTION of a module that Python finds here, keras:NAME, or a .keras "
            "file."
        )
    return Path(found.origin)


def code_record(name: str) -> dict[str, str]:
    """File and SHA-256 of the user's own code of a network; empty for all others."""
    if name.startswith(KERAS) or not is_other(name):
        return {}
    file = code_of(name)
    return {"file": str(file.absolute()), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def open_other(name: str) -> Backbone:
    """The spec of a network outside the table; ConfigError if it cannot be built or has no stages."""
    check_other(name)
    facts = _facts(name)
    mode, minimum = APPLICATIONS.get(name.removeprefix(KERAS), ("torch", 1)) if name.startswith(KERAS) else ("torch", 1)
    return Backbone(
        name=name,
        build=partial(_build, name),
        stages=facts["stages"],
        preprocessing=mode,
        parameters=facts["parameters"],
        minimum_size=minimum,
        batch_norm_momentum=_MOMENTUM if facts["batch_norm"] else None,
        description=facts["description"],
        application=name.removeprefix(KERAS) if name.startswith(KERAS) else None,
        tail=tuple(facts["tail"]),
        replacements=_replacements(name),
        image_size=facts["image_size"],
    )


def _facts(name: str) -> dict[str, Any]:
    """The result of `describe`, from the cache or a separate process."""
    from radtransfer.files import atomic_write
    from radtransfer.runs.cache import cache_folder

    key = [name, version("keras")]
    key += code_record(name).values()
    cached = cache_folder() / "networks" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    if cached.is_file():
        return json.loads(cached.read_text(encoding="utf-8"))
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "network.json"  # the user's code may print
        command = [sys.executable, "-m", "radtransfer.pretrained.any_network", name, str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not result.is_file():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"--backbone {name} cannot be built: {reason}")
        facts = json.loads(result.read_text(encoding="utf-8"))
    if "error" in facts:
        raise ConfigError(f"--backbone {name}: {facts['error']}")
    with atomic_write(cached) as part:
        part.write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _build(name: str, image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
    """The network with random weights, to its last map or, with `pooling`, one vector; it has its own input."""
    from keras import Model, applications, layers

    from radtransfer.models.activations import flat_model

    size = image.shape[1]
    if name.startswith(KERAS):
        application = getattr(applications, name.removeprefix(KERAS))
        options = (
            {"include_preprocessing": False} if "include_preprocessing" in application.__code__.co_varnames else {}
        )
        return application(weights=None, include_top=False, input_tensor=image, pooling=pooling, **options)
    if name.endswith(".keras"):
        from radtransfer.pretrained.saved_model import open_model

        model = open_model(Path(name).expanduser())
    else:
        module, _, function = _registered().get(name, name).partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        model = getattr(importlib.import_module(module), function)(image_size=size or _SIZE)
    if not isinstance(model, Model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(f"{name}: expected a functional model of one image. Received: {type(model).__name__}.")
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or shape[2] != image.shape[3] or any(side not in (None, size) for side in shape[:2] if size):
        raise ConfigError(f"{name}: expected an input of {(size, size, 3)}. Received: {shape}. Give --image-size.")
    model = flat_model(model)
    if pooling == "avg" and len(model.outputs[0].shape) == 4:
        return Model(model.input, layers.GlobalAveragePooling2D(name="avg_pool")(model.outputs[0]))
    return model


def _replacements(name: str) -> Mapping[str, Any]:
    """Public layers for private ones and for sums; the scaling inside EfficientNet is left to `preprocessing`."""
    from radtransfer.models.applications import channel_scale

    if name.startswith(f"{KERAS}EfficientNetB"):
        return dict.fromkeys(("Rescaling", "Normalization"), lambda operation, inputs, *, name, dtype: inputs[0])
    return {"Add": _sum} | ({"LayerScale": channel_scale} if name.startswith(f"{KERAS}ConvNeXt") else {})


def _sum(operation: "keras.Operation", inputs: tuple, *, name: str, dtype: str) -> "keras.KerasTensor":
    """`a + b` as a layer, at which a stage can end."""
    import keras

    if len(inputs) == 2 and all(isinstance(x, keras.KerasTensor) for x in inputs):
        return keras.layers.Add(name=name, dtype=dtype)(list(inputs))
    return operation(*inputs)


def find_stages(model: "keras.Model") -> dict[str, str]:
    """Stage to the name of its last layer, by downsampling; ConfigError for a network without feature maps.

    The stem ends at half of the image size or more, stage1 at a quarter, and so on, each at a layer on every path to
    the output. Pooling at the end of a stage, and padding, do not begin a new one.
    """
    sources, size = layer_sources(model), model.inputs[0].shape[1]
    weighted = {layer.name for layer in model.layers if layer.weights}
    whole = [layer for layer in model.layers if type(layer).__name__ not in ("ZeroPadding2D", "Cropping2D")]
    maps = {layer.name: shape for layer in whole if len(shape := getattr(layer.output, "shape", ())) == 4}
    # For each operation, those on every path to it, itself included, as the bits of a number.
    bit = {name: 1 << number for number, name in enumerate(sources)}
    passed: dict[str, int] = {}
    for name, inputs in sources.items():
        passed[name] = bit[name] | (
            functools.reduce(int.__and__, (passed[source] for source in inputs)) if inputs else 0
        )
    trunk = [name for name in sources if passed[list(sources)[-1]] & bit[name]]
    ends: list[tuple[int, int, str]] = []  # level, weighted layers so far, name
    order = list(sources)
    for name in trunk:
        count = sum(other in weighted for other in order[: order.index(name) + 1])
        if name not in maps or not count:
            continue
        level = max(1, round(math.log2(size / maps[name][1])))
        if ends and (level <= ends[-1][0] or count == ends[-1][1]) and len(ends) > (ends[0][0] > 1):
            ends[-1] = (ends[-1][0] if count == ends[-1][1] else level, count, name)
        else:
            ends.append((level, count, name))
    if not ends:
        raise ConfigError("expected a network with feature maps (height, width, channels) behind its first weights")
    return {f"stage{number}" if number else "stem": name for number, (_, _, name) in enumerate(ends)}


def describe(name: str) -> dict[str, Any]:
    """Stages, parameters and the like of a network beyond the table; builds it."""
    import keras

    from radtransfer.models.architecture import build_architecture
    from radtransfer.models.layers import sub_layers

    fixed = None
    if name.endswith(".keras"):
        from radtransfer.pretrained.saved_model import open_model

        fixed = open_model(Path(name).expanduser()).inputs[0].shape[1]
    nameless = Backbone(name, partial(_build, name), {}, "torch", 0, 1, _MOMENTUM, "", replacements=_replacements(name))
    model = build_architecture(nameless, image_size=fixed or _SIZE)
    stages = find_stages(model)
    inside = layer_stages(model, replace(nameless, stages=stages))
    tail = [layer.name for layer in model.layers if layer.weights and inside[layer.name] == HEAD]
    parts = [part for layer in model.layers for part in sub_layers(layer).values()]
    kind = "keras.applications" if name.startswith(KERAS) else "your own"
    return {
        "stages": stages,
        "tail": tail,
        "parameters": model.count_params(),
        "image_size": fixed,
        "batch_norm": any(isinstance(part, keras.layers.BatchNormalization) for part in parts),
        "description": f"{name.removeprefix(KERAS)}: {kind}; stages by downsampling",
    }


if __name__ == "__main__":
    try:
        found = describe(sys.argv[1])
    except (RadtransferError, ImportError, AttributeError, ValueError, TypeError) as error:
        found = {"error": f"{type(error).__name__}: {error}" if not isinstance(error, RadtransferError) else str(error)}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
