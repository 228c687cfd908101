from types import SimpleNamespace

import pytest

from radtransfer.config import load_config
from radtransfer.distribution.combinations import check_combination
from radtransfer.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("training.batch_size", 7, "multiple of 2, as there are 2 replicas. Received: 7. Use 6 or 8"),
        ("training.batch_size", 1, "Use 2"),
        ("system.cache_features", True, "--cache-features and --distribute exclude each other"),
    ],
)
def test_what_replicas_cannot_do_is_refused(setting, value, message):
    with pytest.raises(ConfigError, match=message):
        check_combination(load_config(options={setting: value}), SimpleNamespace(count=2))
