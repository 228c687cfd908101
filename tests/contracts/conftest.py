"""The contracts of networks also hold for one that is made of layers within layers."""

import pytest
from composite_network import add_to_backbones


@pytest.fixture(scope="module", autouse=True)
def composite_backbone():
    """`composite` is a backbone like the others."""
    with pytest.MonkeyPatch.context() as patch:
        add_to_backbones(patch)
        yield
