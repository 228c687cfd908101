"""Schemes: short names for transfer plans, every initialization and freezing scheme of both papers in one table.

A network is cut in two at a stage or layer, `through`: what comes up to it and what comes after it each start from
something, and what comes up to it may be frozen. A scheme says what each part starts from. `transfer_spec` turns a
scheme's name and the options beside it into one meaning, or one message why they have none; `plan.py` applies it to
the layers of a network.

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), sections 3 to 5, Appendices E and F.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from radtransfer.config.schema import StageSettings, TransferSettings
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.backbone import Backbone, stage_widths

STARTS = ("random", "pretrained", "mean_var", "sampled", "shuffled", "gabor")  # what a stage can start from

WITHOUT_WEIGHTS = ("random", "gabor")  # of these, what needs no pretrained weights

HALF_AFTER_STAGE2 = "stage2:0.5"  # the slim networks of Transfusion: half the channels after our stage2


@dataclass(frozen=True)
class Scheme:
    """One way to reuse a network."""

    start: str
    description: str
    reference: str
    rest: str | None = None
    # Where the two meet. "end": nothing comes after. "named": the user must name a stage or layer. "named or end".
    # "stem". "slim": the last stage of full width.
    through: Literal["end", "named", "named or end", "stem", "slim"] = "end"
    freezes: bool = False  # whether the layers up to `through` keep what they start from
    # Which stage is the last of full width, and how wide the later ones are, if the user does not say
    slim: str | None = None
    head_first: bool = False
    top: int | None = None  # with a number, only so many of the last layers of the network train


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
    """The scheme called `name`, or UnknownNameError."""
    if name not in SCHEMES:
        raise UnknownNameError("scheme", name, ["auto", *SCHEMES])
    return SCHEMES[name]


@dataclass(frozen=True)
class TransferSpec:
    """A plan in the words of stages and layers."""

    scheme: str  # its name; "custom" if the stages are written out
    start: str
    rest: str
    through: str | None  # a stage or layer; None for the whole backbone
    freeze_to: str  # the stage or layer through which everything is frozen; "none", or "all"
    top: int | None
    widths: Mapping[str, float]  # stage to the fraction of its channels, for every stage
    batch_norm: str  # what normalization layers start from that do not start from pretrained
    head_first: bool
    # The plan written out, for every stage; empty for a scheme
    stages: Mapping[str, StageSettings] = field(default_factory=dict)

    @property
    def freezes(self) -> bool:
        """Whether some layer does not train, be it only while the head trains alone."""
        written = any(not stage.trains for stage in self.stages.values())
        return written or self.freeze_to != "none" or self.top is not None or self.head_first


def transfer_spec(settings: TransferSettings, backbone: Backbone, *, weights: bool) -> TransferSpec:
    """What `settings` ask for, with pretrained `weights` or without; ConfigError if they contradict each other."""
    if settings.stages:
        return _written_out(settings, backbone, weights=weights)
    name = _scheme_name(settings, weights=weights)
    scheme = find_scheme(name)
    slim = settings.slim or scheme.slim
    through, freeze_to = _boundaries(name, scheme, settings, slim)
    for boundary in (through, freeze_to):
        if boundary not in (None, "none", "all"):
            backbone.check_layer(boundary)
    spec = TransferSpec(
        scheme=name,
        start=scheme.start,
        rest=scheme.rest or scheme.start,
        through=through,
        freeze_to=freeze_to,
        top=scheme.top,
        widths=stage_widths(backbone, _slim_widths(slim, backbone) if slim else {}),
        batch_norm=settings.batch_norm,
        head_first=scheme.head_first,
    )
    _check_weights(spec, (spec.start, spec.rest), weights=weights)
    return spec


def _check_weights(spec: TransferSpec, starts: Iterable[str], *, weights: bool) -> None:
    """Raises ConfigError if something starts from pretrained weights that there are none of."""
    what = next((start for start in starts if start not in WITHOUT_WEIGHTS), None)
    if not weights and (what or spec.batch_norm != "identity"):
        asking = f"scheme {spec.scheme} starts from {what}" if what else f"--bn-init {spec.batch_norm}"
        raise ConfigError(
            f"{asking}: expected pretrained weights to take it from. Received: --weights random. "
            "Give --weights imagenet, a file, or a run."
        )


def _scheme_name(settings: TransferSettings, *, weights: bool) -> str:
    if settings.scheme != "auto":
        return settings.scheme
    if settings.through is not None and settings.slim:
        raise ConfigError(
            f"--slim STAGE:WIDTH names the last stage of full width: leave --through {settings.through} out, or add "
            f"the --scheme that it belongs to. Received: --slim {settings.slim}."
        )
    if settings.through is not None:
        raise ConfigError(
            f"--through {settings.through} says where, not what: add --scheme transfusion, fixed_features, "
            "fixed_features_reinit or random_features, or use --freeze-to."
        )
    if settings.slim:  # frozen or not: pretrained weights do not fit the narrow stages
        return "hybrid" if weights else "slim"
    if settings.freeze_to not in (None, "none"):
        return "fixed_features" if weights else "random_features"
    return "transfer" if weights else "scratch"


def _boundaries(name: str, scheme: Scheme, settings: TransferSettings, slim: str | None) -> tuple[str | None, str]:
    """Where the scheme is cut (None: at the end), and through where it freezes."""
    through, freeze_to = settings.through, settings.freeze_to
    by_freezing = scheme.freezes and freeze_to is not None  # `freezeall --freeze-to STAGE`: fixed features through it
    if by_freezing:
        if freeze_to == "none" or (through or freeze_to) != freeze_to:
            raise ConfigError(f"Scheme {name} freezes what it reuses. Received: --freeze-to {freeze_to} beside it.")
        through = None if freeze_to == "all" else freeze_to
    if through is not None and scheme.through not in ("named", "named or end") and not by_freezing:
        if scheme.slim:
            instead = f"Its last stage of full width is named by --slim STAGE:WIDTH, such as --slim {through}:0.5."
        elif scheme.freezes:
            instead = f"What it freezes is named by --freeze-to, such as --freeze-to {through}."
        elif scheme.through == "stem":
            instead = "It always ends with the stem: leave --through out."
        else:
            instead = (
                "Use transfusion, fixed_features, fixed_features_reinit or random_features, or write the stages out "
                "under transfer.stages."
            )
        raise ConfigError(f"Scheme {name} takes no --through ({scheme.description}). {instead}")
    if through is None and scheme.through == "named":
        raise ConfigError(f"Scheme {name} needs --through STAGE or LAYER ({scheme.description}).")
    if scheme.through == "stem":
        through = "stem"
    if scheme.through == "slim":
        through = slim.partition(":")[0]
    return through, (through or "all") if scheme.freezes else (freeze_to or "none")


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
            f"--slim takes STAGE:WIDTH, such as {HALF_AFTER_STAGE2}, a stage that others follow and a fraction above "
            f"0, at most 1. Received: {slim}."
        )
    return dict.fromkeys(later, width)


def _written_out(settings: TransferSettings, backbone: Backbone, *, weights: bool) -> TransferSpec:
    both = [name for name in ("through", "slim") if getattr(settings, name) is not None]
    if settings.scheme not in ("auto", "custom"):
        both.append("scheme")
    if both:
        raise ConfigError(f"transfer.stages write the plan out; leave transfer.{both[0]} away, or the stages.")
    for name, stage in settings.stages.items():
        if name not in backbone.stages:
            raise UnknownNameError(f"stage of {backbone.name}", name, backbone.stages)
        if stage.starts_from == "gabor" and name != "stem":
            raise ConfigError(
                f"Gabor filters are for the first convolution, which is in the stem. Received: {name}, "
                "starts_from gabor. Use random, mean_var, sampled or shuffled there."
            )
    default = "pretrained" if weights else "random"
    stages = {name: settings.stages.get(name, StageSettings()) for name in backbone.stages}
    filled = {
        name: StageSettings(stage.starts_from or default, stage.trains, stage.width) for name, stage in stages.items()
    }
    if settings.freeze_to not in (None, "none", "all"):
        backbone.check_layer(settings.freeze_to)
    spec = TransferSpec(
        scheme="custom",
        start=default,
        rest=default,
        through=None,
        freeze_to=settings.freeze_to or "none",
        top=None,
        widths=stage_widths(backbone, {name: stage.width for name, stage in filled.items()}),
        batch_norm=settings.batch_norm,
        head_first=False,
        stages=filled,
    )
    _check_weights(spec, (stage.starts_from for stage in filled.values()), weights=weights)
    return spec
