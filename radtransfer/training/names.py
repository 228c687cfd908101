"""Looks up every name in the settings of a run, and refuses what contradicts itself, before anything is read."""

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
"""Dotted setting to what raises ConfigError where no table holds its value."""


def check_value(name: str, value: Any) -> None:
    """Raises ConfigError if the setting `name` says where to look something up, and `value` is not there."""
    if name in _CHECKS:
        _CHECKS[name](value)


def check_names(config: Config) -> tuple[Backbone, TransferSpec]:
    """The specs of network and plan, after every name in the settings was looked up.

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


def check_sources(config: Config, progress: Progress) -> Config:
    """`config` as it fits its data, after its names were looked up and its data and weights found; before NumPy."""
    if config.system.distribute != "none":
        leave_devices()
    from radtransfer.data.readers import check_source, drop_unfit_settings
    from radtransfer.pretrained.source import resolve_weights

    check_names(config)
    check_source(config.data.source)
    resolve_weights(config.model.weights, backbone=config.model.backbone)
    return drop_unfit_settings(config, progress)


def look_up(config: Config) -> tuple[Backbone, TransferSpec]:
    """`check_names` of settings whose images may still be missing."""
    for name in _CHECKS:
        check_value(name, setting_value(config, name))
    backbone = BACKBONES[config.model.backbone]
    backbone.check_image_size(config.model.image_size)
    return backbone, transfer_spec(config.transfer, backbone, weights=has_weights(config))


def has_weights(config: Config) -> bool:
    """Whether there are pretrained weights to start from."""
    return config.model.weights != "random"


def check_features(settings: SystemSettings) -> None:
    """Raises ConfigError if features are to be kept and the work to be spread."""
    if settings.cache_features is True and settings.distribute != "none":
        raise ConfigError(
            "--cache-features and --distribute exclude each other: what trains on kept features is too small to "
            "spread. Leave one of them away."
        )


def check_batch_size(size: int, count: int) -> None:
    """Raises ConfigError if batches of `size` images cannot be spread over `count` replicas."""
    if size % count:
        low = size // count * count
        near = f"{low} or {low + count}" if low else str(count)
        raise ConfigError(
            f"--batch-size is the batch of all replicas together: expected a multiple of {count}, as there are {count} "
            f"replicas. Received: {size}. Use {near}."
        )
