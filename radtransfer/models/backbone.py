"""The networks by name, and the stages of each: the ground that freezing, transfusion and analysis stand on.

To add a network, write a `Backbone` in the module of its family, name it in `BACKBONES`, and append its line to
`layers.txt`; the contract test prints that line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
    },
)
"""Name to `Backbone`; a spec is imported when it is asked for, and none imports TensorFlow."""

HEAD = "head"
"""Where layers belong that come after the last stage."""

_LAYERS = Path(__file__).with_name("layers.txt")
"""The layers of the networks, a line each, so that a name is looked up before a network is built."""

_AROUND = ("image", "preprocessing", "avg_pool", "global_average_pooling2d", "head_dropout", "head", "probabilities")
"""Layers of a classifier that are not its backbone's."""


@dataclass(frozen=True)
class Backbone:
    """The spec of one network: an architecture with named stages, and nothing learned.

    Attributes:
        name: As in tables, files, YAML and on the command line.
        build: `build(image, pooling)` gives a functional `keras.Model` from `image`, a symbolic
            tensor of preprocessed images, float32 (batch, height, width, channels), to the last
            feature map (`pooling` None) or to its average over positions ("avg"). Sequential parts
            and auto-numbered layer names are fine: `build_architecture` flattens and renames them.
        stages: Stage name to the name of its last layer, in order from the input.
        preprocessing: Mode that the network's ImageNet weights were trained with.
        parameters: Weights with 3 input channels, without a head.
        minimum_size: Smallest image side in pixels.
        batch_norm_momentum: Momentum that its batch-norm layers are built with; decides when moving
            statistics are re-estimated. None for networks without batch norm.
        description: One line for `radtransfer backbones`.
        application: The class of `keras.applications` whose ImageNet weights fit it, if any.
        paper_parameters: The parameters as the network's paper counts them, where that differs.
        tail: Layers after the last stage's end that still belong to that stage.
        build_slim: `build_slim(image, pooling, widths)` gives the same network with fewer channels;
            `widths` names every stage and its fraction of the full width, in (0, 1]. Layer names and
            their order are those of `build`, and so are the shapes up to the first narrower stage.
            None for networks that are built at full width only.
        replacements: Class name of an operation that is no public Keras layer to
            `replacement(operation, inputs, name=…, dtype=…)`, which does the same with public ones.
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

    @property
    def pretrained(self) -> bool:
        return self.application is not None

    def check_image_size(self, image_size: int | None) -> None:
        """Raises ConfigError if images of `image_size` pixels are too small for it; None is any size."""
        if image_size is not None and image_size < self.minimum_size:
            raise ConfigError(f"Image size {image_size} is too small for {self.name} (minimum {self.minimum_size}).")

    def check_layer(self, name: str) -> None:
        """Raises UnknownNameError if `name` is known to be neither a stage nor a layer.

        A network that is not in `layers.txt` has to be built to know.
        """
        lines = (line.partition(": ") for line in _LAYERS.read_text(encoding="utf-8").splitlines())
        layers = next((names.split() for network, _, names in lines if network == self.name), None)
        if layers is not None and name not in (*self.stages, *layers, *_AROUND):
            raise self.unknown_layer(name, layers)

    def unknown_layer(self, name: str, layers: Iterable[str]) -> UnknownNameError:
        """The error that `name` is neither a stage nor one of `layers`; it names the closest of both."""
        # Without a close name the message lists all it is given: hundreds of layers would help nobody.
        known = [*self.stages, *close_matches(name, layers)]
        return UnknownNameError(f"stage or layer of {self.name}", name, known, see=f"radtransfer backbones {self.name}")

    def stage_end(self, stage: str) -> str:
        """The last layer of `stage`; raises UnknownNameError if the network has no such stage."""
        if stage not in self.stages:
            see = f"radtransfer backbones {self.name}"
            raise UnknownNameError(f"stage of {self.name}", stage, self.stages, see=see)
        return self.stages[stage]


def keras_application(name: str, **options: Any) -> Callable[["keras.KerasTensor", str | None], "keras.Model"]:
    """The `build` of a network that is class `name` of `keras.applications`."""

    def build(image: "keras.KerasTensor", pooling: str | None) -> "keras.Model":
        from keras import applications

        network = getattr(applications, name)
        return network(weights=None, include_top=False, input_tensor=image, pooling=pooling, **options)

    return build


def narrowed(channels: int, fraction: float) -> int:
    """`fraction` of `channels` to the nearest whole number (of two, the even one), and never less than 1."""
    return max(1, round(channels * fraction))


def stage_widths(spec: Backbone, widths: Mapping[str, float]) -> dict[str, float]:
    """The fraction of every stage of `spec`, in order; 1.0 where `widths` names none.

    Raises:
        UnknownNameError: `widths` names a stage that the network lacks.
        ConfigError: A fraction is not in (0, 1], or the network cannot be slim.
    """
    for stage, fraction in widths.items():
        spec.stage_end(stage)  # raises for an unknown stage
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ConfigError(f"The width of {stage} is a fraction above 0, at most 1. Received: {fraction!r}.")
    if spec.build_slim is None and any(fraction < 1 for fraction in widths.values()):
        slim = ", ".join(name for name in BACKBONES if BACKBONES[name].build_slim)
        raise ConfigError(f"{spec.name} cannot be slim: leave its stages at 1.0, or use one of {slim}.")
    return {stage: float(widths.get(stage, 1.0)) for stage in spec.stages}


def layer_stages(model: "keras.Model", spec: Backbone) -> dict[str, str]:
    """The stage of every layer of `model`, in the model's order.

    A layer belongs to the first stage whose end depends on it; what no stage depends on (pooling,
    dropout, classifier) is "head". Layers before the backbone, such as preprocessing, count as stem.
    """
    sources = layer_sources(model)
    stages: dict[str, str] = {}
    for stage, end in spec.stages.items():
        stages.update(dict.fromkeys(_before(end, sources, known=stages), stage))
    stages.update(dict.fromkeys(spec.tail, list(spec.stages)[-1]))
    return {layer.name: stages.get(layer.name, HEAD) for layer in model.layers}


def layer_sources(model: "keras.Model") -> dict[str, list[str]]:
    """Each operation of the graph to those whose outputs it takes.

    Read from the config, the public form of the graph, which holds only the calls made in this model:
    the same layers may also be part of another.
    """
    return {entry["name"]: list(_origins(entry["inbound_nodes"])) for entry in model.get_config()["layers"]}


def _origins(nodes: Any) -> Iterator[str]:
    if isinstance(nodes, dict) and "keras_history" in nodes:
        yield nodes["keras_history"][0]
    elif isinstance(nodes, (dict, list, tuple)):
        for part in nodes.values() if isinstance(nodes, dict) else nodes:
            yield from _origins(part)


def _before(end: str, sources: Mapping[str, list[str]], *, known: Iterable[str] = ()) -> set[str]:
    """`end` and all that it depends on, as far as that is not `known`, with all before it."""
    found, pending = set(), [end]
    while pending:
        name = pending.pop()
        if name not in found and name not in known:
            found.add(name)
            pending += sources[name]
    return found


def resolve_layer(model: "keras.Model", spec: Backbone, name: str) -> str:
    """The layer that `name` means: a stage means its last layer. Raises UnknownNameError, with the closest names."""
    if name in spec.stages:
        return spec.stages[name]
    layers = [layer.name for layer in model.layers]
    if name in layers:
        return name
    raise spec.unknown_layer(name, layers)


def layers_up_to(model: "keras.Model", spec: Backbone, name: str) -> frozenset[str]:
    """The layers of `model` up to and including `name`, a stage or a layer: all that its output depends on.

    With a stage or a layer of a later stage, whole earlier stages are in it.
    """
    end, stages = resolve_layer(model, spec, name), layer_stages(model, spec)
    last = [*spec.stages, HEAD].index(name if name in spec.stages else stages[end])
    whole = [*spec.stages, HEAD][: last + (name in spec.stages)]
    before = () if name in spec.stages else _before(end, layer_sources(model))
    return frozenset(layer for layer, stage in stages.items() if stage in whole or layer in before)


@dataclass(frozen=True)
class StageSummary:
    """One stage of a built model; the input is not among its `layers`, `output_shape` is without the batch."""

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
