import numpy as np
import pytest

from radtransfer.errors import ConfigError
from radtransfer.training.distributed import Replicas


def test_workers_that_differ_are_named(monkeypatch):
    said = []
    monkeypatch.setattr(Replicas, "gathered", lambda self, array: said.append(array) or np.stack(said))
    Replicas(None).check_same({"seed": 0, "classes": ["a", "b"], "head": None})
    Replicas(None).check_same({"seed": 0, "classes": ["a", "b"], "head": None})
    with pytest.raises(ConfigError, match="Worker 2 and worker 0 differ in: seed, head\\."):
        Replicas(None).check_same({"seed": 1, "classes": ["a", "b"], "head": "softmax"})
