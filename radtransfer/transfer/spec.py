"""Transfer schemes: every initialization and freezing scheme of the papers, by name.

A scheme divides a network at a stage or layer (`--through`), gives an initialization for the layers up to it and for
those after it, and may freeze the former. `transfer_spec` combines a scheme with the other options, or explains why
they contradict each other; `plan.py` applies the result to the layers of a network.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), sections 3 to 5, Appendices E and F.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from radtransfer.config.schema import StageSettings, TransferSettings
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.backbone import Backbone, stage_widths

WITHOUT_WEIGHTS = ("random", "gabor")  # initializations that need no pretrained weights

HALF_AFTER_STAGE2 = "stage2:0.5"  # the slim networks of Transfusion: half the channels after our stage2


@dataclass(frozen=True)
class Scheme:
    """One way to transfer a network."""

    init: str  # of the layers up to the boundary
    description: str
    reference: str
    init_after: str | None = None  # of the layers after the boundary; None: the same
    # "end": there are no layers after it. "named": the user must name a stage or layer. "slim": the last stage of
    # full width.
    boundary: Literal["end", "named", "named or end", "stem", "slim"] = "end"
    freezes: bool = False  # whether the layers up to the boundary are frozen
    slim: str | None = None  # default STAGE:WIDTH: the last stage of full width, and the width of later ones
    head_first: bool = False
    top: int | None = None  # only this number of last layers trains


_SCHEMES = {
    "scratch": Scheme("random", "all random, all train", "Transfusion 3"),
    "transfer": Scheme("pretrained", "all pretrained, all train", "both papers"),
    "transfusion": Scheme(
        "pretrained", "pretrained through L, then random, all train", "Transfusion Fig. 7, 19", "random", "named"
    ),
    "mean_var": Scheme("mean_var", "the scale of the weights without their features", "Transfusion 5, Fig. 6, 15, 16"),
    "sampled": Scheme("sampled", "drawn from each tensor's own values", "Transfusion App. F.2, Fig. 18"),
    "shuffled": Scheme("shuffled", "each tensor's own values in random order", "Transfusion App. F.2, Fig. 18"),
    "gabor": Scheme(
        "gabor", "synthetic Gabor filters first, then random", "Transfusion App. F.3, Fig. 8, 21", "random", "stem"
    ),
    "hybrid": Scheme(
        "pretrained",
        "pretrained up to L, narrower and random after it, all train",
        "Transfusion Fig. 8",
        "random",
        "slim",
        slim=HALF_AFTER_STAGE2,
    ),
    "slim": Scheme("random", "narrower after L, all random, all train", "Transfusion Fig. 20", slim=HALF_AFTER_STAGE2),
    "fixed_features": Scheme(
        "pretrained",
        "all pretrained, frozen through L",
        "Transfusion App. E, variant 1",
        "pretrained",
        "named or end",
        freezes=True,
    ),
    "fixed_features_reinit": Scheme(
        "pretrained",
        "pretrained and frozen through L, then random",
        "Transfusion App. E, variant 2",
        "random",
        "named",
        freezes=True,
    ),
    "random_features": Scheme(
        "random",
        "all random, frozen through L",
        "Transfusion App. E, baseline",
        "random",
        "named or end",
        freezes=True,
    ),
    "freeze_then_unfreeze": Scheme(
        "pretrained", "the head alone first, then everything", "Revisiting 3", head_first=True
    ),
    "unfreezeall": Scheme("pretrained", "all pretrained, all train", "RadImageNet scripts"),
    "freezeall": Scheme(
        "pretrained", "all pretrained and frozen, only the head trains", "RadImageNet scripts", freezes=True
    ),
    "unfreezetop10": Scheme("pretrained", "only the last ten layers train", "RadImageNet scripts", top=10),
}

SCHEMES: Mapping[str, Scheme] = MappingProxyType(_SCHEMES)


def find_scheme(name: str) -> Scheme:
    """The scheme `name`; UnknownNameError if there is none."""
    if name not in SCHEMES:
        raise UnknownNameError("scheme", name, ["auto", *SCHEMES])
    return SCHEMES[name]


@dataclass(frozen=True)
class TransferSpec:
    """A transfer plan in terms of stages, before it is applied to a network."""

    scheme: str  # "custom" for stages listed in the settings
    init: str
    init_after: str
    last_transferred_stage: str | None  # a stage or layer; None for the whole backbone
    freeze_to: str  # the last frozen stage or layer, "none" or "all"
    top: int | None
    widths: Mapping[str, float]  # every stage to the fraction of its full channels
    batch_norm: str  # initialization of normalization layers that are not pretrained
    head_first: bool
    stages: Mapping[str, StageSettings] = field(default_factory=dict)  # every stage, for "custom"

    @property
    def freezes(self) -> bool:
        """Whether any layer is frozen, also if only while the head trains alone."""
        listed = any(not stage.trains for stage in self.stages.values())
        return listed or self.freeze_to != "none" or self.top is not None or self.head_first


def transfer_spec(settings: TransferSettings, backbone: Backbone, *, weights: bool) -> TransferSpec:
    """The spec of the `settings`, with or without pretrained `weights`; ConfigError if they contradict each other."""
    if settings.stages:
        spec = _listed_stages(settings, backbone, weights=weights)
        inits = [stage.starts_from for stage in spec.stages.values()]
    else:
        name = _scheme_name(settings, weights=weights)
        scheme = find_scheme(name)
        slim = settings.slim or scheme.slim
        last, freeze_to = _boundaries(name, scheme, settings, slim)
        for boundary in (last, freeze_to):
            if boundary not in (None, "none", "all"):
                backbone.check_layer(boundary)
        spec = TransferSpec(
            scheme=name,
            init=scheme.init,
            init_after=scheme.init_after or scheme.init,
            last_transferred_stage=last,
            freeze_to=freeze_to,
            top=scheme.top,
            widths=stage_widths(backbone, _slim_widths(slim, backbone) if slim else {}),
            batch_norm=settings.batch_norm,
            head_first=scheme.head_first,
        )
        inits = [spec.init, spec.init_after]
    if backbone.patch is not None and "gabor" in inits:
        raise ConfigError(
            f"Gabor filters are for a first convolution that slides over the image. {backbone.name} cuts it into "
            f"patches of {backbone.patch} pixels instead. Use another scheme, such as mean_var."
        )
    needed = next((init for init in inits if init not in WITHOUT_WEIGHTS), None)
    if not weights and (needed or spec.batch_norm != "identity"):
        option = f"scheme {spec.scheme} starts from {needed}" if needed else f"--bn-init {spec.batch_norm}"
        raise ConfigError(
            f"{option}: expected pretrained weights. Received: --weights random. "
            "Give --weights imagenet, a file, or a run."
        )
    return spec


def _scheme_name(settings: TransferSettings, *, weights: bool) -> str:
    if settings.scheme != "auto":
        return settings.scheme
    if settings.through is not None and settings.slim:
        raise ConfigError(
            f"--slim {settings.slim} already names the last stage of full width. Received: --through "
            f"{settings.through} as well. Remove it, or add the --scheme that it belongs to."
        )
    if settings.through is not None:
        raise ConfigError(
            f"--through {settings.through} needs a scheme: add --scheme transfusion, fixed_features, "
            "fixed_features_reinit or random_features, or use --freeze-to."
        )
    if settings.slim:
        return "hybrid" if weights else "slim"
    if settings.freeze_to not in (None, "none"):
        return "fixed_features" if weights else "random_features"
    return "transfer" if weights else "scratch"


def _boundaries(name: str, scheme: Scheme, settings: TransferSettings, slim: str | None) -> tuple[str | None, str]:
    """The last transferred stage or layer (None: all), and the last frozen one."""
    last, freeze_to = settings.through, settings.freeze_to
    freezing_sets_it = scheme.freezes and freeze_to is not None  # such as `freezeall --freeze-to STAGE`
    if freezing_sets_it:
        if freeze_to == "none" or (last or freeze_to) != freeze_to:
            raise ConfigError(
                f"Scheme {name} freezes what it transfers. Received: --freeze-to {freeze_to}, which differs. "
                "Remove --freeze-to, or use another scheme."
            )
        last = None if freeze_to == "all" else freeze_to
    if last is not None and scheme.boundary not in ("named", "named or end") and not freezing_sets_it:
        if scheme.slim:
            instead = f"Name its last stage of full width with --slim STAGE:WIDTH, such as --slim {last}:0.5."
        elif scheme.freezes:
            instead = f"Name what it freezes with --freeze-to, such as --freeze-to {last}."
        elif scheme.boundary == "stem":
            instead = "It always transfers the stem only: leave --through out."
        else:
            instead = (
                "Use transfusion, fixed_features, fixed_features_reinit or random_features, or list the stages under "
                "transfer.stages."
            )
        raise ConfigError(f"Scheme {name} takes no --through ({scheme.description}). {instead}")
    if last is None and scheme.boundary == "named":
        raise ConfigError(f"Scheme {name} needs --through STAGE or LAYER ({scheme.description}).")
    if scheme.boundary == "stem":
        last = "stem"
    if scheme.boundary == "slim":
        last = slim.partition(":")[0]
    return last, (last or "all") if scheme.freezes else (freeze_to or "none")


def _slim_widths(slim: str, backbone: Backbone) -> dict[str, float]:
    stage, _, fraction = slim.partition(":")
    backbone.stage_end(stage)  # raises for an unknown stage
    stages = list(backbone.stages)
    later = stages[stages.index(stage) + 1 :]
    try:
        width = float(fraction)
    except ValueError:
        width = 0.0
    if not 0 < width <= 1 or not later:
        raise ConfigError(
            f"--slim takes STAGE:WIDTH, such as {HALF_AFTER_STAGE2}: any stage but the last, and a fraction above 0 "
            f"and at most 1. Received: {slim}."
        )
    return dict.fromkeys(later, width)


def _listed_stages(settings: TransferSettings, backbone: Backbone, *, weights: bool) -> TransferSpec:
    both = [name for name in ("through", "slim") if getattr(settings, name) is not None]
    if settings.scheme not in ("auto", "custom"):
        both.append("scheme")
    if both:
        raise ConfigError(f"transfer.stages and transfer.{both[0]} contradict each other. Remove one of them.")
    for name, stage in settings.stages.items():
        if name not in backbone.stages:
            raise UnknownNameError(f"stage of {backbone.name}", name, backbone.stages)
        if stage.starts_from == "gabor" and name != "stem":
            raise ConfigError(
                f"Gabor filters are for the first convolution, in the stem. Received: starts_from gabor for {name}. "
                "Use random, mean_var, sampled or shuffled there."
            )
    default = "pretrained" if weights else "random"
    stages = {name: settings.stages.get(name, StageSettings()) for name in backbone.stages}
    filled = {
        name: StageSettings(stage.starts_from or default, stage.trains, stage.width) for name, stage in stages.items()
    }
    if settings.freeze_to not in (None, "none", "all"):
        backbone.check_layer(settings.freeze_to)
    return TransferSpec(
        scheme="custom",
        init=default,
        init_after=default,
        last_transferred_stage=None,
        freeze_to=settings.freeze_to or "none",
        top=None,
        widths=stage_widths(backbone, {name: stage.width for name, stage in filled.items()}),
        batch_norm=settings.batch_norm,
        head_first=False,
        stages=filled,
    )
