"""Transfer plans for any functional Keras model."""

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from radtransfer.api.progress import ShownProgress, shown
from radtransfer.api.settings import frame
from radtransfer.config.schema import TransferSettings
from radtransfer.errors import UnknownNameError, WeightsMismatchError
from radtransfer.process import keras_defaults

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas as pd

    from radtransfer.transfer.plan import TransferPlan


@dataclass(frozen=True)
class ModelPlan:
    """How each stage of a Keras model is initialized, and whether it trains.

    Attributes:
        plan: The plan of each layer.
        weights: Pretrained arrays by layer name; None without pretrained weights.
    """

    plan: "TransferPlan"
    weights: Mapping[str, "tuple[np.ndarray, ...]"] | None = None

    @keras_defaults()
    def apply(self, model: "keras.Model", *, seed: int = 0) -> None:
        """Initialize every weight of `model`, and freeze the layers that the plan freezes.

        Args:
            model: The model of the plan, or one with the same layers. Its head is initialized randomly.
            seed: Seed of all random draws.
        """
        from radtransfer.transfer.initialize import initialize_weights

        initialize_weights(model, self.plan, self.weights, seed=seed)
        for group in self.plan.groups:
            for name in group.layers:
                model.get_layer(name).trainable = group.trains

    def to_frame(self) -> "pd.DataFrame":
        """A row per part: `stage`, `starts_from`, `trains`, `layers` and `parameters` (counts), `width`."""
        rows = [vars(group) | {"layers": len(group.layers), "starts_from": group.init} for group in self.plan.groups]
        return frame(rows, columns=["stage", "starts_from", "trains", "layers", "parameters", "width"])

    def __repr__(self) -> str:
        groups = ", ".join(
            f"{group.stage}: {group.init}{'' if group.trains else ' (frozen)'}" for group in self.plan.groups
        )
        return f"ModelPlan({self.plan.scheme}, {groups})"

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.plan.scheme)}</b>" + self.to_frame().to_html(index=False)


@keras_defaults()
def plan_transfer(
    model: "keras.Model",
    *,
    stages: Mapping[str, str],
    scheme: str = "auto",
    through: str | None = None,
    freeze_to: str | None = None,
    bn_init: Literal["identity", "mean_var", "transfer"] = "identity",
    weights: Any = None,
    ignore_lambda: bool = False,
) -> ModelPlan:
    """Plan the transfer to any functional Keras model.

    Args:
        model: Functional; layers after the last stage are the head, which is initialized randomly and trains.
        stages: Stage name to the name of its last layer, in order from the input. Gabor filters need a stage "stem".
        scheme: A scheme of `radtransfer finetune --scheme`; "auto" is transfer with weights, else scratch.
        through: Last stage or layer that the scheme transfers.
        freeze_to: Last frozen stage or layer; "none" or "all".
        bn_init: Initialization of normalization layers without pretrained weights: "identity", "mean_var", "transfer".
        weights: A Keras model with the same layer names, or any `--weights`: a file, a run, a name.
        ignore_lambda: Accept a file with Lambda layers.

    Raises:
        UnknownNameError: There is no such scheme, stage or layer.
        ConfigError: The arguments contradict each other.
        WeightsMismatchError: The weights lack a layer of the stages, or it has another shape.

    Example:
        >>> stages = {"stem": "conv1", "stage1": "conv2"}
        >>> plan = rt.plan_transfer(model, stages=stages, scheme="transfusion", through="stem", weights=source)
        >>> plan
        ModelPlan(transfusion, stem: pretrained, stage1: random)
        >>> plan.apply(model, seed=0)
    """
    from radtransfer.models.backbone import Backbone
    from radtransfer.transfer.plan import build_plan
    from radtransfer.transfer.spec import transfer_spec

    names = [layer.name for layer in model.layers]
    with shown():
        for stage, layer in stages.items():
            if layer not in names:
                raise UnknownNameError(f"layer of {model.name} (the end of {stage})", layer, names)
        spec = Backbone(
            name=model.name,
            build=lambda *_: model,
            stages=dict(stages),
            preprocessing="unit",
            parameters=model.count_params(),
            minimum_size=1,
            batch_norm_momentum=None,
            description="your own",
        )
        settings = TransferSettings(scheme=scheme, through=through, freeze_to=freeze_to, batch_norm=bn_init)
        plan = build_plan(transfer_spec(settings, spec, weights=weights is not None), model, spec)
        return ModelPlan(plan, None if weights is None else _plan_weights(model, plan, weights, ignore_lambda))


def _plan_weights(
    model: "keras.Model", plan: "TransferPlan", weights: Any, ignore_lambda: bool
) -> "dict[str, tuple[np.ndarray, ...]]":
    """The pretrained arrays of the layers of the plan."""
    from radtransfer.pretrained.match import match_layers, read_weights, weighted_layers
    from radtransfer.pretrained.source import fetch, find_weights

    targets = [target for target in weighted_layers(model) if target.name in plan.layers]
    if isinstance(weights, (str, os.PathLike)):
        source = find_weights(os.fspath(weights))
        fetch(source, ShownProgress().note)
        match = match_layers(read_weights(source.file, ignore_lambda=ignore_lambda), targets)
        found, where = match.arrays, source.given
    else:
        found = {layer.name: tuple(layer.get_weights()) for layer in weights.layers if layer.weights}
        where = weights.name
    for target in targets:
        own = [tuple(weight.shape) for weight in model.get_layer(target.name).weights]
        theirs = [array.shape for array in found.get(target.name, ())]
        if own != theirs:
            received = theirs or "none"
            raise WeightsMismatchError(
                f"{where}: expected weights of layer {target.name} of shapes {own}. Received: {received}. "
                "Use a model or file with the same layers, or end the stages before this layer."
            )
    return {target.name: tuple(found[target.name]) for target in targets}
