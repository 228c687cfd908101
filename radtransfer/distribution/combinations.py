"""What replicas cannot do, said before anything is read."""

from radtransfer.errors import ConfigError
from radtransfer.settings import SystemSettings


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
