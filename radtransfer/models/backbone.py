"""The networks by name, and their stages, on which freezing, transfer and analysis are based.

To add a network, write a `Backbone` in the module of its family, add it to `BACKBONES`, and append its line to
`layers.txt`, which the contract test prints.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radtransfer.errors import ConfigError, Table, UnknownNameError, close_matches

if TYPE_CHECKING:
    import keras

BACKBONES = Table(
    "backbone",
    {
        "resnet50": "radtransfer.models.resnet:RESNET50",
        "inception_v3": "radtransfer.models.inception:INCEPTION_V3",
        "densenet121": "radtransfer.models.densenet:DENSENET121",
        "resnet50_v1_5": "radtransfer.models.resnet:RESNET50_V1_5",
        "inception_v3_torch": "radtransfer.models.inception:INCEPTION_V3_TORCH",
        "inception_resnet_v2": "radtransfer.models.inception:INCEPTION_RESNET_V2",
        "cbr_large_t": "radtransfer.models.cbr:CBR_LARGE_T",
        "cbr_large_w": "radtransfer.models.cbr:CBR_LARGE_W",
        "cbr_small": "radtransfer.models.cbr:CBR_SMALL",
        "cbr_tiny": "radtransfer.models.cbr:CBR_TINY",
        "cbr_tiny_wide": "radtransfer.models.cbr:CBR_TINY_WIDE",
        "efficientnet_v2_b0": "radtransfer.models.applications:EFFICIENTNET_V2_B0",
        "convnext_tiny": "radtransfer.models.applications:CONVNEXT_TINY",
        "vit_tiny_16": "radtransfer.models.vit:VIT_TINY_16",
        "vit_small_16": "radtransfer.models.vit:VIT_SMALL_16",
        "vit_base_16": "radtransfer.models.vit:VIT_BASE_16",
        "vit_large_16": "radtransfer.models.vit:VIT_LARGE_16",
        "vit_small_14": "radtransfer.models.vit:VIT_SMALL_14",
        "vit_base_14": "radtransfer.models.vit:VIT_BASE_14",
        "vit_large_14": "radtransfer.models.vit:VIT_LARGE_14",
    },
    others="radtransfer.pretrained.any_network",
)
"""Name to `Backbone`; a spec is imported when it is used, and none imports TensorFlow."""

HEAD = "head"
"""The stage of layers after the last stage of the backbone."""

_LAYERS = Path(__file__).with_name("layers.txt")
"""The layers of each network, one line per network, to check names before a network is built."""

_AROUND = ("image", "preprocessing", "avg_pool", "global_average_pooling2d", "head_dropout", "head", "probabilities")
"""Layers of a classifier outside its backbone."""


@dataclass(frozen=True)
class Backbone:
    """The spec of a network: an architecture with named stages, without weights.

    Attributes:
        name: As in tables, files, YAML and on the command line.
        build: `build(image, pooling)` returns a functional `keras.Model` from `image`, a symbolic tensor of
            preprocessed images, float32 (batch, height, width, channels), to the last feature map (`pooling` None) or
            its average over positions ("avg"). Sequential parts and auto-numbered layer names are allowed, as
            `build_architecture` flattens and renames them.
        stages: Stage name to the name of its last layer, in order from the input.
        preprocessing: Mode of the network's ImageNet weights.
        parameters: Number of weights with 3 input channels and without a head.
        minimum_size: Smallest image side in pixels.
        batch_norm_momentum: Momentum of its batch-norm layers, which decides how long moving statistics are
            re-estimated. None for networks without batch norm.
        description: One line for `radtransfer backbones`.
        application: The class of `keras.applications` whose ImageNet weights fit, if any.
        paper_parameters: The number of parameters in the paper, if it differs.
        tail: Layers after the end of the last stage that belong to that stage.
        build_slim: `build_slim(image, pooling, widths)` returns the same network with fewer channels; `widths` maps
            every stage to its fraction of the full width, in (0, 1]. Layer names, their order, and the shapes up to the
            first narrower stage are those of `build`. None for networks with full width only.
        replacements: Class name of an operation that is not a public Keras layer to
            `replacement(operation, inputs, name=…, dtype=…)`, which does the same with public layers.
        patch: Side of a patch in pixels, of a vision transformer, which is built for one image size, a multiple of it;
            its layers give tokens (batch, tokens, channels).
        image_size: The only image side in pixels, if there is only one.
        options: Those of `build` that were set by `with_options`.
    """

    name: str
    build: Callable[["keras.KerasTensor", str | None], "keras.Model"]
    stages: Mapping[str, str]
    preprocessing: str
    parameters: int
    minimum_size: int
    batch_norm_momentum: float | None
    description: str
    application: str | None = None
    paper_parameters: int | None = None
    tail: tuple[str, ...] = ()
    build_slim: Callable[["keras.KerasTensor", str | None, Mapping[str, float]], "keras.Model"] | None = None
    replacements: Mapping[str, Callable[..., "keras.KerasTensor"]] = field(default_factory=dict)
    patch: int | None = None
    image_size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def graph_name(self) -> str:
        """The name of its Keras model, in which TensorFlow allows no ":" or "/"."""
        return re.sub(r"[^\w.-]+", "_", self.name).lstrip("_-")

    @property
    def pretrained(self) -> bool:
        return self.application is not None

    def check_image_size(self, image_size: int | None) -> None:
        """Raise ConfigError if images of `image_size` pixels are too small; None is any size."""
        if image_size is not None and image_size < self.minimum_size:
            raise ConfigError(f"Image size {image_size} is too small for {self.name} (minimum {self.minimum_size}).")
        if image_size is not None and self.image_size not in (None, image_size):
            raise ConfigError(f"{self.name} takes images of {self.image_size} pixels only. Received: {image_size}.")
        if image_size is not None and self.patch is not None and image_size % self.patch:
            near = sorted({max(1, image_size // self.patch + step) * self.patch for step in (0, 1)})
            raise ConfigError(
                f"{self.name} takes images whose side is a multiple of {self.patch}. Received: {image_size}. "
                f"Use {' or '.join(map(str, near))}."
            )

    def with_options(self, **options: Any) -> "Backbone":
        """The same network with other options of its `build`, as some weights ask for."""
        return replace(self, build=partial(self.build, **options), options=options) if options else self

    def check_layer(self, name: str) -> None:
        """Raise UnknownNameError if `name` is neither a stage nor a layer, as far as `layers.txt` has the network."""
        lines = (line.partition(": ") for line in _LAYERS.read_text(encoding="utf-8").splitlines())
        layers = next((names.split() for network, _, names in lines if network == self.name), None)
        if layers is not None and name not in (*self.stages, *layers, *_AROUND):
            raise self.unknown_layer(name, layers)

    def unknown_layer(self, name: str, layers: Iterable[str]) -> UnknownNameError:
        """The error that `name` is neither a stage nor one of `layers`, with the closest names."""
        # Without a close name the message lists all known ones, so only the stages.
        known = [*self.stages, *close_matches(name, layers)]
        return UnknownNameError(f"stage or layer of {self.name}", name, known, see=f"radtransfer backbones {self.name}")

    def stage_end(self, stage: str) -> str:
        """The last layer of `stage`; raises UnknownNameError for an unknown stage."""
        if stage not in self.stages:
            see = f"radtransfer backbones {self.name}"
            raise UnknownNameError(f"stage of {self.name}", stage, self.stages, see=see)
        return self.stages[stage]


def keras_application(name: str, **options: Any) -> Callable[["keras.KerasTensor", str | None], "keras.Model"]:
    """The `build` function of a network of `keras.applications`."""

    def build(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
        from keras import applications

        network = getattr(applications, name)
        return network(weights=None, include_top=False, input_tensor=image, pooling=pooling, **options)

    return build


def narrowed(channels: int, fraction: float) -> int:
    """`fraction` of `channels`, rounded half to even, at least 1."""
    return max(1, round(channels * fraction))


def stage_widths(spec: Backbone, widths: Mapping[str, float]) -> dict[str, float]:
    """The fraction of every stage of `spec`, in order; 1.0 for stages that are not in `widths`.

    Raises UnknownNameError for an unknown stage, ConfigError for a fraction outside (0, 1] or a network that cannot be
    slim.
    """
    for stage, fraction in widths.items():
        spec.stage_end(stage)  # raises for an unknown stage
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ConfigError(f"Width of {stage}: expected a fraction above 0 and at most 1. Received: {fraction!r}.")
    if spec.build_slim is None and any(fraction < 1 for fraction in widths.values()):
        slim = ", ".join(name for name in BACKBONES if BACKBONES[name].build_slim)
        raise ConfigError(
            f"{spec.name} has full width only. Set the widths of its stages to 1.0, or use one of {slim}."
        )
    return {stage: float(widths.get(stage, 1.0)) for stage in spec.stages}


def layer_stages(model: "keras.Model", spec: Backbone) -> dict[str, str]:
    """The stage of every layer of `model`, in the model's order.

    A layer belongs to the first stage whose end depends on it. Layers that no stage depends on (pooling, dropout,
    classifier) are "head"; layers before the backbone, such as preprocessing, belong to the stem.
    """
    sources = layer_sources(model)
    stages: dict[str, str] = {}
    for stage, end in spec.stages.items():
        stages.update(dict.fromkeys(_before(end, sources, known=stages), stage))
    stages.update(dict.fromkeys(spec.tail, list(spec.stages)[-1]))
    return {layer.name: stages.get(layer.name, HEAD) for layer in model.layers}


def layer_sources(model: "keras.Model") -> dict[str, list[str]]:
    """Each operation of the graph to the operations whose outputs it takes.

    Read from the config, which contains only the calls in this model; the layers may also be part of others.
    """

    def origins(nodes: Any) -> Iterator[str]:
        if isinstance(nodes, dict) and "keras_history" in nodes:
            yield nodes["keras_history"][0]
        elif isinstance(nodes, (dict, list, tuple)):
            for part in nodes.values() if isinstance(nodes, dict) else nodes:
                yield from origins(part)

    return {entry["name"]: list(origins(entry["inbound_nodes"])) for entry in model.get_config()["layers"]}


def _before(end: str, sources: Mapping[str, list[str]], *, known: Iterable[str] = ()) -> set[str]:
    """`end` and all operations that it depends on, without those in `known`."""
    found, pending = set(), [end]
    while pending:
        name = pending.pop()
        if name not in found and name not in known:
            found.add(name)
            pending += sources[name]
    return found


def resolve_layer(model: "keras.Model", spec: Backbone, name: str) -> str:
    """The layer `name`, or the last layer of stage `name`; raises UnknownNameError with the closest names."""
    if name in spec.stages:
        return spec.stages[name]
    layers = [layer.name for layer in model.layers]
    if name in layers:
        return name
    raise spec.unknown_layer(name, layers)


def layers_up_to(model: "keras.Model", spec: Backbone, name: str) -> frozenset[str]:
    """The layers of `model` up to and including stage or layer `name`, with all of the earlier stages."""
    end, stages = resolve_layer(model, spec, name), layer_stages(model, spec)
    last = [*spec.stages, HEAD].index(name if name in spec.stages else stages[end])
    whole = [*spec.stages, HEAD][: last + (name in spec.stages)]
    before = () if name in spec.stages else _before(end, layer_sources(model))
    return frozenset(layer for layer, stage in stages.items() if stage in whole or layer in before)


@dataclass(frozen=True)
class StageSummary:
    """One stage of a built model; `layers` without the input, `output_shape` without the batch."""

    name: str
    layers: tuple[str, ...]
    end: str
    output_shape: tuple[int | None, ...]
    parameters: int


def stage_summaries(model: "keras.Model", spec: Backbone) -> tuple[StageSummary, ...]:
    import keras

    stages, summaries = layer_stages(model, spec), []
    for stage, end in spec.stages.items():
        layers = [x for x in model.layers if stages[x.name] == stage and not isinstance(x, keras.layers.InputLayer)]
        names, shape = tuple(layer.name for layer in layers), tuple(model.get_layer(end).output.shape[1:])
        summaries.append(StageSummary(stage, names, end, shape, sum(layer.count_params() for layer in layers)))
    return tuple(summaries)
