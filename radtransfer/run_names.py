"""Looks up every name in the settings of a run, before anything is read or built."""

from collections.abc import Callable, Mapping
from typing import Any

from radtransfer.augmentations import AUGMENTATIONS
from radtransfer.backbones import BACKBONES
from radtransfer.backbones.backbone import Backbone
from radtransfer.config import setting_value
from radtransfer.distribution.combinations import check_features
from radtransfer.errors import ConfigError
from radtransfer.intensity_window import parse_window
from radtransfer.outline import Outline, outline_plan
from radtransfer.preprocessing import preprocessing_mode
from radtransfer.remote_address import check_here
from radtransfer.schemes import find_scheme
from radtransfer.settings import Config
from radtransfer.trackers import TRACKERS, check_trackers

_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "track": lambda names: [TRACKERS.check(name) for name in names],
    "out": check_here,
    "data.image_root": check_here,
    "images.window": parse_window,
    "model.backbone": BACKBONES.check,
    "model.weights": check_here,
    "model.preprocessing": lambda name: name == "auto" or preprocessing_mode(name),
    "transfer.scheme": lambda name: name == "auto" or find_scheme(name),
    "training.augmentation": AUGMENTATIONS.check,
}
"""Dotted setting to what raises ConfigError where no table holds its value."""


def check_value(name: str, value: Any) -> None:
    """Raises ConfigError if the setting `name` says where to look something up, and `value` is not there."""
    if name in _CHECKS:
        _CHECKS[name](value)


def check_names(config: Config) -> tuple[Backbone, Outline]:
    """The backbone's card and the outline of the plan, after every name in the settings was looked up.

    Raises:
        ConfigError: No images are given, a table holds no such name, the package of a tracker is missing, or the
            settings contradict each other.
    """
    if config.data.source is None:
        raise ConfigError(
            "No images given. Pass --data with a folder or a CSV, or a config; try `radtransfer finetune quickstart`."
        )
    check_trackers(config.track)
    check_features(config.system)
    return look_up(config)


def look_up(config: Config) -> tuple[Backbone, Outline]:
    """`check_names` of settings whose images may still be missing."""
    for name in _CHECKS:
        check_value(name, setting_value(config, name))
    card = BACKBONES[config.model.backbone]
    card.check_image_size(config.model.image_size)
    return card, outline_plan(config.transfer, card, weights=has_weights(config))


def has_weights(config: Config) -> bool:
    """Whether there are pretrained weights to start from."""
    return config.model.weights != "random"
