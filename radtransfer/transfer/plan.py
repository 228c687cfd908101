"""The transfer plan: what each stage of a network starts from, whether it trains, and how wide it is.

One idea covers every experiment of both papers. The settings name a scheme or write the stages out (`outline.py`);
laid out over a network, that becomes a plan of its layers, which initialization, freezing, the printed table and the
record of the run all follow.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), sections 3 to 5, Appendices E and F.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras

from radtransfer.errors import ConfigError
from radtransfer.images.preprocessing import LAYER as PREPROCESSING
from radtransfer.models.backbone import HEAD, Backbone, layer_stages, layers_up_to, resolve_layer
from radtransfer.models.layers import LayerVariable, model_variables
from radtransfer.transfer.spec import Outline

FEW = 0.01
"""Of a backbone's parameters: a plan that trains fewer, but some, is pointed out."""


@dataclass(frozen=True)
class Part:
    """Layers of one stage that start and train alike: a whole stage, unless the plan cuts within it.

    Attributes:
        stage: Their stage.
        layers: Their names, in the network's order.
        parameters: Their weights.
        trainable: Of these, those that train; moving statistics of batch norm do not count.
        starts_from: One of `schemes.STARTS`.
        trains: Whether they train.
        width: The fraction of its channels that the stage has.
    """

    stage: str
    layers: tuple[str, ...]
    parameters: int
    trainable: int
    starts_from: str
    trains: bool
    width: float


@dataclass(frozen=True)
class TransferPlan:
    """A plan, layer by layer.

    Attributes:
        scheme: Its name; "custom" if it was written out.
        through: The stage or layer that the scheme is cut at; None if it is one piece.
        parts: In the network's order, without the head.
        batch_norm: What normalization layers start from whose part does not start from pretrained.
        head_first: Whether the head trains alone before the rest does.
    """

    scheme: str
    through: str | None
    parts: tuple[Part, ...]
    batch_norm: str
    head_first: bool

    @property
    def layers(self) -> frozenset[str]:
        """Every layer of the backbone."""
        return frozenset(layer for part in self.parts for layer in part.layers)

    @property
    def frozen(self) -> frozenset[str]:
        """The layers that do not train."""
        return frozenset(layer for part in self.parts if not part.trains for layer in part.layers)

    @property
    def starts(self) -> dict[str, str]:
        """What each layer starts from."""
        return {layer: part.starts_from for part in self.parts for layer in part.layers}

    @property
    def uses_batch_norm(self) -> bool:
        """Whether there is a part that `batch_norm` speaks of."""
        return any(part.starts_from != "pretrained" and part.parameters for part in self.parts)

    @property
    def parameters(self) -> int:
        """Of the backbone."""
        return sum(part.parameters for part in self.parts)

    @property
    def trainable_parameters(self) -> int:
        """Of the backbone, without moving statistics."""
        return sum(part.trainable for part in self.parts)

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
        """The plan as plain values, for JSON."""
        return {
            "scheme": self.scheme,
            "through": self.through,
            "batch_norm": self.batch_norm,
            "head_first": self.head_first,
            "stages": [asdict(part) | {"layers": list(part.layers)} for part in self.parts],
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.parameters,
        }


def lay_out(outline: Outline, model: keras.Model, card: Backbone) -> TransferPlan:
    """`outline` over the layers of a network.

    Args:
        outline: From `outline_plan`.
        model: Flat, with the backbone's layers, alone or within a classifier.
        card: The backbone's.

    Raises:
        UnknownNameError: The network has no such stage or layer.
        ConfigError: A layer to cut at is not the backbone's, or something starts from weights that do not fit a narrow
            stage.
    """
    stages = _backbone_stages(model, card)
    for boundary in (outline.through, outline.freeze_to):
        _check_boundary(boundary, model, card, stages)
    starts, frozen = _starts(outline, model, card), _frozen(outline, model, card, stages)
    members: dict[tuple[str, str, bool], list[str]] = {}
    for layer, stage in stages.items():
        members.setdefault((stage, starts(layer, stage), layer not in frozen), []).append(layer)
    order, variables = list(card.stages), model_variables(model)
    parts = [
        _part(variables, layers, stage=stage, starts_from=start, trains=trains, width=outline.widths[stage])
        for (stage, start, trains), layers in sorted(members.items(), key=lambda item: order.index(item[0][0]))
    ]
    plan = TransferPlan(outline.scheme, outline.through, tuple(parts), outline.batch_norm, outline.head_first)
    _check_widths(plan)
    return plan


def _backbone_stages(model: keras.Model, card: Backbone) -> dict[str, str]:
    """The stage of every layer of the backbone itself, in the model's order."""
    outside = {PREPROCESSING, *(layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer))}
    stages = layer_stages(model, card)
    return {layer: stage for layer, stage in stages.items() if stage != HEAD and layer not in outside}


def _check_boundary(name: str | None, model: keras.Model, card: Backbone, stages: dict[str, str]) -> None:
    """Up to the input, the preprocessing or the head, a plan would start and freeze nothing, or all, unnoticed."""
    if name in (None, "none", "all", *card.stages):
        return
    layer = resolve_layer(model, card, name)  # raises if there is none
    if layer not in stages:
        raise ConfigError(
            f"--through and --freeze-to take a stage or a layer of {card.name} itself. Received: {name}, which stands "
            f"before or after all stages. Use one of {', '.join(card.stages)}; --freeze-to also takes none and all."
        )


def _starts(outline: Outline, model: keras.Model, card: Backbone) -> Callable[[str, str], str]:
    """What a layer, of a stage, starts from."""
    if outline.stages:
        return lambda _, stage: outline.stages[stage].starts_from
    if outline.through is None:
        return lambda *_: outline.start
    reused = layers_up_to(model, card, outline.through)
    return lambda layer, _: outline.start if layer in reused else outline.rest


def _frozen(outline: Outline, model: keras.Model, card: Backbone, stages: dict[str, str]) -> frozenset[str]:
    frozen = {layer for layer, stage in stages.items() if outline.stages and not outline.stages[stage].trains}
    if outline.top is not None:
        frozen |= set(stages) - _last_layers(model, stages, outline.top)
    if outline.freeze_to == "all":
        frozen |= set(stages)
    elif outline.freeze_to != "none":
        frozen |= layers_up_to(model, card, outline.freeze_to)
    return frozenset(frozen)


def _last_layers(model: keras.Model, stages: dict[str, str], count: int) -> set[str]:
    """The last layers of the backbone, counted as in `keras.applications` with average pooling, which is the last.

    What is one layer of InceptionResNetV2 there, a scaled sum, is a `Rescaling` and an `Add` in ours.
    """
    counted = [name for name in stages if not isinstance(model.get_layer(name), keras.layers.Rescaling)]
    first = list(stages).index(counted[-count + 1])
    return set(list(stages)[first:])


def _part(
    variables: Mapping[str, Mapping[str, LayerVariable]],
    layers: list[str],
    *,
    stage: str,
    starts_from: str,
    trains: bool,
    width: float,
) -> Part:
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
    return Part(stage, tuple(layers), total, learned if trains else 0, starts_from, trains, width)


def _check_widths(plan: TransferPlan) -> None:
    """Pretrained tensors fit only layers of their own shape, which a narrow stage and the one after it lack."""
    narrow = False
    for part in plan.parts:
        narrow = narrow or part.width < 1
        if not narrow:
            continue
        reason = f"{part.stage} has another width than the pretrained network, or follows a stage that has"
        if part.starts_from in ("pretrained", "shuffled"):
            raise ConfigError(
                f"{reason}: it cannot start from {part.starts_from}. Use random, mean_var or sampled there."
            )
        if plan.batch_norm == "transfer":
            raise ConfigError(f"{reason}: its batch norm cannot be copied. Use --bn-init identity or mean_var.")
