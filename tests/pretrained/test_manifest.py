"""The cards of known weight files."""

import pytest

from radtransfer.images.preprocessing import MODES
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES
from radtransfer.pretrained.source import known_weights, spec_named, spec_of_file

NAMES = list(known_weights())


@pytest.mark.parametrize("name", NAMES)
def test_a_card_speaks_of_things_that_exist(name):
    card = known_weights()[name]
    assert card.name.startswith(card.family) and card.backbone in BACKBONES
    assert card.family not in ("imagenet", "radimagenet") or card.name == f"{card.family}-{card.backbone}"
    assert card.preprocessing in MODES
    assert card.certainty in ("certain", "likely")
    assert card.files and card.origin and card.terms and card.reason
    assert card.top1 is None or 0.5 < card.top1 < (card.top5 or 1) <= 1


@pytest.mark.parametrize("backbone", sorted({card.backbone for card in known_weights().values()}))
def test_a_card_counts_the_weighted_layers_of_its_network(backbone):
    model = build_architecture(backbone, image_size=None)
    counts = {card.layers for card in known_weights().values() if card.backbone == backbone}
    assert counts == {sum(bool(layer.weights) for layer in model.layers)}


def test_every_backbone_with_imagenet_weights_has_a_card_of_the_same_preprocessing():
    for name, backbone in BACKBONES.items():
        card = spec_named("imagenet", backbone=name)
        assert (card is not None) == backbone.pretrained
        assert card is None or card.preprocessing == backbone.preprocessing


def test_the_four_radimagenet_networks_have_cards():
    networks = {card.backbone for card in known_weights().values() if card.family == "radimagenet"}
    assert networks == {"resnet50", "inception_v3", "densenet121", "inception_resnet_v2"}


def test_no_file_name_belongs_to_two_cards():
    files = [file.lower() for card in known_weights().values() for file in card.files]
    assert len(files) == len(set(files))


def test_a_card_is_found_by_file_name_in_any_case(tmp_path):
    assert spec_of_file(tmp_path / "radimagenet-irv2-NOTOP.h5").name == "radimagenet-inception_resnet_v2"
    assert spec_of_file(tmp_path / "other.h5") is None
