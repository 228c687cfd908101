import keras
import pytest

from radtransfer.errors import UnknownNameError
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES, HEAD, Backbone, layer_stages, resolve_layer, stage_summaries

BRANCHING = Backbone(
    name="branching",
    build=None,
    stages={"stem": "stem_end", "stage1": "join"},
    preprocessing="raw",
    parameters=0,
    minimum_size=1,
    batch_norm_momentum=None,
    description="",
)


def branching_model() -> keras.Model:
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(4, 1, name="shared")(image)
    stem_end = layers.ReLU(name="stem_end")(shared)
    skip = layers.Conv2D(4, 1, name="skip")(shared)  # beside the stem's end, not before it
    join = layers.Add(name="join")([stem_end, skip])
    return keras.Model(image, layers.Dense(2, name="classes")(layers.Flatten(name="flat")(join)))


def test_a_layer_belongs_to_the_first_stage_whose_end_depends_on_it():
    assert layer_stages(branching_model(), BRANCHING) == {
        "image": "stem",
        "shared": "stem",
        "stem_end": "stem",
        "skip": "stage1",
        "join": "stage1",
        "flat": HEAD,
        "classes": HEAD,
    }


def test_stages_are_found_in_a_classifier_that_calls_the_layers_a_second_time():
    card = BACKBONES["cbr_tiny"]
    backbone = build_architecture(card, image_size=32)
    images = keras.Input((32, 32, 3), name="pixels")
    features = backbone.call(keras.layers.Rescaling(1 / 255, name="scale")(images))
    classifier = keras.Model(images, keras.layers.Dense(2, name="classes")(features))
    stages = layer_stages(classifier, card)
    assert stages["scale"] == "stem"
    assert stages["classes"] == HEAD
    assert {name: stages[name] for name in ("conv1", "conv4", "avg_pool")} == {
        "conv1": "stem",
        "conv4": "stage3",
        "avg_pool": HEAD,
    }


def test_the_norm_after_the_pooling_of_convnext_is_part_of_its_last_stage():
    card = BACKBONES["convnext_tiny"]
    model = build_architecture(card, image_size=32)
    assert layer_stages(model, card)["layer_normalization"] == "stage4"


def test_a_stage_means_its_last_layer_and_a_layer_itself():
    card = BACKBONES["resnet50"]
    model = build_architecture(card, image_size=32)
    assert resolve_layer(model, card, "stage2") == "conv3_block4_out"
    assert resolve_layer(model, card, "conv4_block2_1_conv") == "conv4_block2_1_conv"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("stage7", "Did you mean 'stage"),
        ("conv4_blok2_1_conv", "'conv4_block2_1_conv'"),
        ("xyz", "Known: stem, stage1, stage2, stage3, stage4. See: radtransfer backbones resnet50"),
    ],
)
def test_an_unknown_stage_or_layer_is_refused_with_the_closest(name, hint):
    card = BACKBONES["resnet50"]
    model = build_architecture(card, image_size=32)
    with pytest.raises(UnknownNameError, match="Unknown stage or layer of resnet50") as refused:
        resolve_layer(model, card, name)
    assert hint in str(refused.value)


def test_the_card_refuses_an_unknown_stage_without_a_model():
    with pytest.raises(UnknownNameError, match="Did you mean 'stage3' or"):
        BACKBONES["inception_v3"].stage_end("stage4")


def test_output_sizes_are_those_of_the_stage_ends():
    card = BACKBONES["inception_v3"]
    stages = stage_summaries(build_architecture(card, image_size=224), card)
    assert [stage.output_shape for stage in stages] == [
        (25, 25, 192),
        (25, 25, 288),
        (12, 12, 768),
        (5, 5, 2048),
    ]


def test_layers_of_a_branch_that_ends_in_a_later_stage_belong_to_that_stage():
    card = BACKBONES["inception_v3"]
    stages = layer_stages(build_architecture(card, image_size=75), card)
    assert stages["mixed2"] == "stage1"
    assert stages["max_pooling2d_2"] == "stage2"  # the pooling branch of the block after mixed2
