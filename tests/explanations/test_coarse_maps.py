from types import SimpleNamespace

import pytest
from spot_networks import spot_network

from radtransfer.evaluation.heat_maps import coarse_map_note, finer_stage
from radtransfer.evaluation.scored_network import ScoredNetwork
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier


def tiny(size, layer=None):
    settings = {"classes": 2, "image_size": size, "activation": "softmax", "dropout": 0.5, "preprocessing": "torch"}
    card = BACKBONES["cbr_tiny"]
    return ScoredNetwork(build_classifier(card, **settings).model, card, layer)


@pytest.mark.parametrize(
    ("size", "layer", "grid", "stage", "words"),
    [
        (
            96,
            None,
            (6, 6),
            "stage2",
            "one position covers 16×16 of the 96×96 pixels; --layer stage2 has",
        ),
        (32, None, (2, 2), "stage1", "--layer stage1 has 8×8"),
        (24, "stage1", (6, 6), "stem", "--layer stem has 12×12"),
    ],
)
def test_a_coarse_map_is_told_with_the_last_stage_that_is_finer(size, layer, grid, stage, words):
    network = tiny(size, layer)
    assert network.grid == grid
    assert finer_stage(network) == stage
    assert words in coarse_map_note(network)


def test_a_fine_map_needs_no_word():
    assert coarse_map_note(tiny(128)) is None
    assert coarse_map_note(tiny(32, "stage1")) is None


def test_without_a_finer_stage_larger_images_are_named():
    coarse = ScoredNetwork(spot_network("softmax", 2), None)
    coarse.grid = (4, 4)
    assert "pixels; a network of larger images has a finer map" in coarse_map_note(coarse)


def test_where_no_stage_is_fine_the_finest_is_named():
    network = SimpleNamespace(grid=(2, 2), stage_grids={"stem": (6, 6), "stage1": (4, 4), "stage2": (2, 2)})
    assert finer_stage(network) == "stem"
