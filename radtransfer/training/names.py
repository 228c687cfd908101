"""Checks the names in the settings of a run and refuses contradictions, before any file is read."""

from collections.abc import Callable, Mapping
from typing import Any

from radtransfer.config.load import setting_value
from radtransfer.config.schema import Config, SystemSettings
from radtransfer.errors import ConfigError
from radtransfer.images.augment import AUGMENTATIONS
from radtransfer.images.preprocessing import preprocessing_mode
from radtransfer.images.refs import check_local_path, parse_window
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.process import Progress, leave_devices
from radtransfer.training.trackers import TRACKERS, check_trackers
from radtransfer.transfer.spec import TransferSpec, find_scheme, transfer_spec

_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "track": lambda names: [TRACKERS.check(name) for name in names],
    "out": check_local_path,
    "data.image_root": check_local_path,
    "images.window": parse_window,
    "model.backbone": BACKBONES.check,
    "model.weights": check_local_path,
    "model.preprocessing": lambda name: name == "auto" or preprocessing_mode(name),
    "transfer.scheme": lambda name: name == "auto" or find_scheme(name),
    "training.augmentation": AUGMENTATIONS.check,
}
"""Setting to a function that raises ConfigError for an unknown value."""


def check_value(name: str, value: Any) -> None:
    """Raise ConfigError if the setting `name` takes a name and `value` is not a known one."""
    if name in _CHECKS:
        _CHECKS[name](value)


def check_names(config: Config) -> tuple[Backbone, TransferSpec]:
    """Check all settings and return the backbone and the transfer spec.

    Raises ConfigError if no images are given, a name is unknown, the package of a tracker is missing, or settings
    contradict each other.
    """
    if config.data.source is None:
        raise ConfigError(
            "No images given. Pass --data with a folder or a CSV, or a config; try `radtransfer finetune quickstart`."
        )
    check_trackers(config.track)
    check_features(config.system)
    return resolve_names(config)


def check_sources(config: Config, progress: Progress) -> Config:
    """Check names, data source and weights, and return `config` without settings that do not fit the data; no NumPy."""
    if config.system.distribute != "none":
        leave_devices()
    from radtransfer.data.readers import check_source, drop_unfit_settings
    from radtransfer.pretrained.source import resolve_weights

    check_names(config)
    check_source(config.data.source)
    resolve_weights(config.model.weights, backbone=config.model.backbone)
    return drop_unfit_settings(config, progress)


def resolve_names(config: Config) -> tuple[Backbone, TransferSpec]:
    """As `check_names`, for settings that may have no images yet."""
    for name in _CHECKS:
        check_value(name, setting_value(config, name))
    backbone = BACKBONES[config.model.backbone]
    backbone.check_image_size(config.model.image_size)
    return backbone, transfer_spec(config.transfer, backbone, weights=config.model.weights != "random")


def check_features(settings: SystemSettings) -> None:
    """Raise ConfigError for cached features together with distributed training."""
    if settings.cache_features is True and settings.distribute != "none":
        raise ConfigError(
            "--cache-features and --distribute cannot be combined: the layers that train on cached features are too "
            "small to distribute. Remove one of the two options."
        )


def check_batch_size(size: int, count: int) -> None:
    """Raise ConfigError unless `size` images can be split equally between `count` replicas."""
    if size % count:
        low = size // count * count
        near = f"{low} or {low + count}" if low else str(count)
        raise ConfigError(
            f"--batch-size counts the images of all {count} replicas together: expected a multiple of {count}. "
            f"Received: {size}. Use {near}."
        )
