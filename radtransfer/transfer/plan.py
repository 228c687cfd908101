"""The transfer plan: initialization, training and width of each stage of a network.

The settings name a scheme or list the stages (`spec.py`). Applied to the layers of a network, this gives the plan
that initialization, freezing, the printed table and `run.json` all follow.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), sections 3 to 5, Appendices E and F.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import keras

from radtransfer.errors import ConfigError
from radtransfer.images.preprocessing import LAYER as PREPROCESSING
from radtransfer.models.backbone import HEAD, Backbone, layer_stages, layers_up_to, resolve_layer
from radtransfer.models.layers import model_variables
from radtransfer.transfer.spec import TransferSpec

FEW = 0.01  # a note warns if the plan trains a smaller fraction of the backbone's parameters


@dataclass(frozen=True)
class LayerGroup:
    """Layers of one stage with the same initialization and training: a whole stage, unless the plan splits it."""

    stage: str
    layers: tuple[str, ...]
    parameters: int
    trainable: int  # parameters that train, without the moving statistics of batch norm
    init: str
    trains: bool
    width: float  # the fraction of its full channels


@dataclass(frozen=True)
class TransferPlan:
    """The initialization and training of every layer of a backbone."""

    scheme: str  # "custom" for stages listed in the settings
    last_transferred_stage: str | None  # a stage or layer; None for a scheme without a boundary
    groups: tuple[LayerGroup, ...]
    batch_norm: str  # initialization of normalization layers in groups that are not pretrained
    head_first: bool

    @property
    def layers(self) -> frozenset[str]:
        return frozenset(layer for group in self.groups for layer in group.layers)

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset(layer for group in self.groups if not group.trains for layer in group.layers)

    @property
    def inits(self) -> dict[str, str]:
        """Layer to initialization."""
        return {layer: group.init for group in self.groups for layer in group.layers}

    @property
    def uses_batch_norm(self) -> bool:
        return any(group.init != "pretrained" and group.parameters for group in self.groups)

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.groups)

    @property
    def trainable_parameters(self) -> int:
        return sum(group.trainable for group in self.groups)

    def notes(self) -> Iterator[str]:
        """Notes on what may surprise the user."""
        if self.batch_norm != "identity" and not self.uses_batch_norm:
            yield f"--bn-init {self.batch_norm} has no effect: every stage is pretrained"
        if 0 < self.trainable_parameters < FEW * self.parameters:
            yield (
                f"scheme {self.scheme} trains only {self.trainable_parameters:,} of {self.parameters:,} backbone "
                "parameters; --freeze-to STAGE freezes by stage"
            )

    def record(self) -> dict[str, Any]:
        stages = [
            {"starts_from" if name == "init" else name: value for name, value in asdict(group).items()}
            | {"layers": list(group.layers)}
            for group in self.groups
        ]
        return {
            "scheme": self.scheme,
            "through": self.last_transferred_stage,
            "batch_norm": self.batch_norm,
            "head_first": self.head_first,
            "stages": stages,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.parameters,
        }


def build_plan(spec: TransferSpec, model: keras.Model, backbone: Backbone) -> TransferPlan:
    """Apply `spec` to the layers of a flat network; ConfigError or UnknownNameError if it does not fit."""
    outside = {PREPROCESSING, *(layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer))}
    stages = {
        layer: stage for layer, stage in layer_stages(model, backbone).items() if stage != HEAD and layer not in outside
    }
    last = spec.last_transferred_stage
    for boundary in (last, spec.freeze_to):
        _check_boundary(boundary, model, backbone, stages)
    transferred = set(stages) if last is None else layers_up_to(model, backbone, last)
    frozen = _frozen_layers(spec, model, backbone, stages)
    members: dict[tuple[str, str, bool], list[str]] = {}
    for layer, stage in stages.items():
        init = spec.init if layer in transferred else spec.init_after
        init = spec.stages[stage].starts_from if spec.stages else init
        members.setdefault((stage, init, layer not in frozen), []).append(layer)
    order, variables = list(backbone.stages), model_variables(model)
    groups, narrow = [], False
    for (stage, init, trains), layers in sorted(members.items(), key=lambda item: order.index(item[0][0])):
        total = learned = 0
        for layer in layers:
            for item in variables[layer].values():
                if isinstance(item.owner, keras.layers.Normalization):
                    raise ConfigError(
                        f"{layer}: expected a Normalization layer with mean and variance as arguments. Received: one "
                        "that measures them on data, so weights do not set them. Pass mean and variance."
                    )
                size = item.variable.value.shape.num_elements()
                total, learned = total + size, learned + size * item.learned
        trainable = learned if trains else 0
        groups.append(LayerGroup(stage, tuple(layers), total, trainable, init, trains, spec.widths[stage]))
    for group in groups:
        # Pretrained tensors do not fit a narrow stage, nor the stages after it.
        narrow = narrow or group.width < 1
        reason = f"{group.stage} is narrower than in the pretrained network, or follows a narrower stage"
        if narrow and group.init in ("pretrained", "shuffled"):
            raise ConfigError(f"{reason}: it cannot start from {group.init}. Use random, mean_var or sampled there.")
        if narrow and spec.batch_norm == "transfer":
            raise ConfigError(f"{reason}: its batch norm cannot be copied. Use --bn-init identity or mean_var.")
    return TransferPlan(spec.scheme, last, tuple(groups), spec.batch_norm, spec.head_first)


def _check_boundary(name: str | None, model: keras.Model, backbone: Backbone, stages: dict[str, str]) -> None:
    """Refuse the input, the preprocessing and the head, which would silently transfer or freeze nothing or all."""
    if name in (None, "none", "all", *backbone.stages):
        return
    layer = resolve_layer(model, backbone, name)  # raises if there is none
    if layer not in stages:
        raise ConfigError(
            f"--through and --freeze-to take a stage of {backbone.name} or a layer in one. Received: {name}, which is "
            f"before or after all stages. Use one of {', '.join(backbone.stages)}; --freeze-to also takes none and all."
        )


def _frozen_layers(spec: TransferSpec, model: keras.Model, backbone: Backbone, stages: dict[str, str]) -> set[str]:
    frozen = {layer for layer, stage in stages.items() if spec.stages and not spec.stages[stage].trains}
    if spec.top is not None:
        # Counted as in `keras.applications` with average pooling as the last layer. There a scaled sum of
        # InceptionResNetV2 is one layer; here it is a `Rescaling` and an `Add`.
        counted = [name for name in stages if not isinstance(model.get_layer(name), keras.layers.Rescaling)]
        names = list(stages)
        frozen |= set(names[: names.index(counted[-spec.top + 1])])
    if spec.freeze_to == "all":
        frozen |= set(stages)
    elif spec.freeze_to != "none":
        frozen |= layers_up_to(model, backbone, spec.freeze_to)
    return frozen
