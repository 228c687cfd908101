import pytest

from radtransfer.config.schema import SystemSettings
from radtransfer.errors import ConfigError
from radtransfer.training.names import check_batch_size, check_features


@pytest.mark.parametrize(("size", "message"), [(7, "multiple of 2. Received: 7. Use 6 or 8"), (1, "Use 2")])
def test_a_batch_that_replicas_cannot_share_is_refused(size, message):
    with pytest.raises(ConfigError, match=message):
        check_batch_size(size, 2)


def test_features_are_not_kept_by_replicas():
    with pytest.raises(ConfigError, match="--cache-features and --distribute cannot be combined"):
        check_features(SystemSettings(cache_features=True, distribute="mirrored"))
    check_features(SystemSettings(cache_features=True))
