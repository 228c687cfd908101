"""The transfer plan: what each stage of a network starts from, whether it trains, and how wide it is.

One idea covers every experiment of both papers. The settings name a scheme or write the stages out (`spec.py`);
laid out over a network, that becomes a plan of its layers, which initialization, freezing, the printed table and the
record of the run all follow.

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

FEW = 0.01  # of a backbone's parameters: a plan that trains fewer, but some, is pointed out


@dataclass(frozen=True)
class LayerGroup:
    """Layers of one stage that start and train alike: a whole stage, unless the plan cuts within it."""

    stage: str
    layers: tuple[str, ...]
    parameters: int
    trainable: int  # of these, those that train; moving statistics of batch norm do not count
    starts_from: str
    trains: bool
    width: float  # the fraction of its channels that the stage has


@dataclass(frozen=True)
class TransferPlan:
    """A plan, layer by layer."""

    scheme: str  # its name; "custom" if it was written out
    through: str | None  # the stage or layer that the scheme is cut at; None if it is one piece
    groups: tuple[LayerGroup, ...]
    batch_norm: str  # what normalization layers start from whose part does not start from pretrained
    head_first: bool

    @property
    def layers(self) -> frozenset[str]:
        return frozenset(layer for group in self.groups for layer in group.layers)

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset(layer for group in self.groups if not group.trains for layer in group.layers)

    @property
    def starts(self) -> dict[str, str]:
        return {layer: group.starts_from for group in self.groups for layer in group.layers}

    @property
    def uses_batch_norm(self) -> bool:
        return any(group.starts_from != "pretrained" and group.parameters for group in self.groups)

    @property
    def parameters(self) -> int:
        return sum(group.parameters for group in self.groups)

    @property
    def trainable_parameters(self) -> int:
        return sum(group.trainable for group in self.groups)

    def notes(self) -> Iterator[str]:
        """What may surprise the user."""
        if self.batch_norm != "identity" and not self.uses_batch_norm:
            yield f"--bn-init {self.batch_norm} not used: every stage starts from pretrained"
        if 0 < self.trainable_parameters < FEW * self.parameters:
            yield (
                f"scheme {self.scheme} trains only {self.trainable_parameters:,} of {self.parameters:,} backbone "
                "parameters; --freeze-to STAGE freezes by stage"
            )

    def record(self) -> dict[str, Any]:
        return {
            "scheme": self.scheme,
            "through": self.through,
            "batch_norm": self.batch_norm,
            "head_first": self.head_first,
            "stages": [asdict(group) | {"layers": list(group.layers)} for group in self.groups],
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.parameters,
        }


def build_plan(spec: TransferSpec, model: keras.Model, backbone: Backbone) -> TransferPlan:
    """`spec` over the layers of a flat network; ConfigError or UnknownNameError where it does not fit that."""
    outside = {PREPROCESSING, *(layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer))}
    stages = {
        layer: stage for layer, stage in layer_stages(model, backbone).items() if stage != HEAD and layer not in outside
    }
    for boundary in (spec.through, spec.freeze_to):
        _check_boundary(boundary, model, backbone, stages)
    reused = set(stages) if spec.through is None else layers_up_to(model, backbone, spec.through)
    frozen = _frozen(spec, model, backbone, stages)
    members: dict[tuple[str, str, bool], list[str]] = {}
    for layer, stage in stages.items():
        start = spec.start if layer in reused else spec.rest
        start = spec.stages[stage].starts_from if spec.stages else start
        members.setdefault((stage, start, layer not in frozen), []).append(layer)
    order, variables = list(backbone.stages), model_variables(model)
    groups, narrow = [], False
    for (stage, start, trains), layers in sorted(members.items(), key=lambda item: order.index(item[0][0])):
        total = learned = 0
        for layer in layers:
            for item in variables[layer].values():
                if isinstance(item.owner, keras.layers.Normalization):
                    raise ConfigError(
                        f"{layer}: expected a Normalization with mean and variance as arguments. Received one that "
                        "measures them on data, which weights do not reach."
                    )
                size = item.variable.value.shape.num_elements()
                total, learned = total + size, learned + size * item.learned
        trainable = learned if trains else 0
        groups.append(LayerGroup(stage, tuple(layers), total, trainable, start, trains, spec.widths[stage]))
    for group in groups:
        # Pretrained tensors fit only layers of their own shape, which a narrow stage and the one after it lack.
        narrow = narrow or group.width < 1
        reason = f"{group.stage} has another width than the pretrained network, or follows a stage that has"
        if narrow and group.starts_from in ("pretrained", "shuffled"):
            raise ConfigError(
                f"{reason}: it cannot start from {group.starts_from}. Use random, mean_var or sampled there."
            )
        if narrow and spec.batch_norm == "transfer":
            raise ConfigError(f"{reason}: its batch norm cannot be copied. Use --bn-init identity or mean_var.")
    return TransferPlan(spec.scheme, spec.through, tuple(groups), spec.batch_norm, spec.head_first)


def _check_boundary(name: str | None, model: keras.Model, backbone: Backbone, stages: dict[str, str]) -> None:
    """Up to the input, the preprocessing or the head, a plan would start and freeze nothing, or all, unnoticed."""
    if name in (None, "none", "all", *backbone.stages):
        return
    layer = resolve_layer(model, backbone, name)  # raises if there is none
    if layer not in stages:
        raise ConfigError(
            f"--through and --freeze-to take a stage or a layer of {backbone.name} itself. Received: {name}, which "
            f"stands before or after all stages. Use one of {', '.join(backbone.stages)}; --freeze-to also takes none "
            "and all."
        )


def _frozen(spec: TransferSpec, model: keras.Model, backbone: Backbone, stages: dict[str, str]) -> set[str]:
    frozen = {layer for layer, stage in stages.items() if spec.stages and not spec.stages[stage].trains}
    if spec.top is not None:
        # Counted as in `keras.applications` with average pooling, which is the last. What is one layer of
        # InceptionResNetV2 there, a scaled sum, is a `Rescaling` and an `Add` in ours.
        counted = [name for name in stages if not isinstance(model.get_layer(name), keras.layers.Rescaling)]
        names = list(stages)
        frozen |= set(names[: names.index(counted[-spec.top + 1])])
    if spec.freeze_to == "all":
        frozen |= set(stages)
    elif spec.freeze_to != "none":
        frozen |= layers_up_to(model, backbone, spec.freeze_to)
    return frozen
