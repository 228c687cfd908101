"""What replicas cannot do, said before anything is read."""

from radtransfer.distribution.replicas import Replicas
from radtransfer.errors import ConfigError
from radtransfer.settings import Config


def check_combination(config: Config, replicas: Replicas) -> None:
    """Raises ConfigError if these settings cannot be trained by `replicas`."""
    if config.system.cache_features is True:
        raise ConfigError(
            "--cache-features and --distribute exclude each other: what trains on kept features is too small to "
            "spread. Leave one of them away."
        )
    size, count = config.training.batch_size, replicas.count
    if size % count:
        low = size // count * count
        near = f"{low} or {low + count}" if low else str(count)
        raise ConfigError(
            f"--batch-size is the batch of all replicas together: expected a multiple of {count}, as there are {count} "
            f"replicas. Received: {size}. Use {near}."
        )
