"""Every scheme over every backbone: the resolved plan."""

import dataclasses
import functools
import re
from pathlib import Path

import keras
import pytest
import yaml

from radtransfer.config.schema import StageSettings, TransferSettings
from radtransfer.errors import ConfigError
from radtransfer.models.architecture import build_architecture
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier
from radtransfer.transfer.plan import build_plan
from radtransfer.transfer.spec import SCHEMES, transfer_spec

FAMILIES = ("resnet50", "inception_v3", "densenet121", "efficientnet_v2_b0", "convnext_tiny", "cbr_tiny")
NAMES = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
NAMES.append("composite")
THROUGH = "stage1"


@functools.lru_cache(maxsize=3)
def network(name, widths):
    return build_architecture(name, image_size=96, widths=dict(widths))


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """All tests of one network come one after the other, so that each is built once."""
    return request.param


def plan_of(name, *, weights=True, **settings):
    outline = transfer_spec(TransferSettings(**settings), BACKBONES[name], weights=weights)
    return build_plan(outline, network(name, tuple(outline.widths.items())), BACKBONES[name])


def expected(scheme, stage, stages):
    """(starts from, trains, width) of a stage, as the two papers define it."""
    through = THROUGH if scheme not in ("hybrid", "slim") else "stage2"
    before = stages.index(stage) <= stages.index(through)
    defined = {
        "scratch": ("random", True, 1),
        "transfer": ("pretrained", True, 1),
        "transfusion": ("pretrained" if before else "random", True, 1),
        "mean_var": ("mean_var", True, 1),
        "sampled": ("sampled", True, 1),
        "shuffled": ("shuffled", True, 1),
        "gabor": ("gabor" if stage == "stem" else "random", True, 1),
        "hybrid": ("pretrained", True, 1) if before else ("random", True, 0.5),
        "slim": ("random", True, 1 if before else 0.5),
        "fixed_features": ("pretrained", not before, 1),
        "fixed_features_reinit": ("pretrained" if before else "random", not before, 1),
        "random_features": ("random", not before, 1),
        "freeze_then_unfreeze": ("pretrained", True, 1),
        "unfreezeall": ("pretrained", True, 1),
        "freezeall": ("pretrained", False, 1),
    }
    assert scheme in defined, f"add to `defined` what each stage of {scheme} starts from, whether it trains, its width"
    return defined[scheme]


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "unfreezetop10"])
def test_the_plan_is_as_the_papers_define_it(name, scheme):
    card, takes_through = BACKBONES[name], SCHEMES[scheme].boundary in ("named", "named or end")
    if SCHEMES[scheme].slim and card.build_slim is None:
        pytest.skip(f"{name} has no slim form")
    plan = plan_of(name, scheme=scheme, through=THROUGH if takes_through else None)
    stages = list(card.stages)
    found = {part.stage: (part.init, part.trains, part.width) for part in plan.groups}
    assert found == {stage: expected(scheme, stage, stages) for stage in stages}
    assert [part.stage for part in plan.groups] == stages
    assert plan.head_first == (scheme == "freeze_then_unfreeze")


def test_every_layer_stands_in_one_part_and_every_weight_is_counted(name):
    plan, model = plan_of(name, scheme="transfusion", through=THROUGH), network(name, ())
    layers = [layer for part in plan.groups for layer in part.layers]
    weighted = {layer.name for layer in model.layers if layer.weights}
    assert len(layers) == len(set(layers))
    assert weighted <= set(layers)
    assert plan.parameters == model.count_params()
    assert plan.trainable_parameters == sum(variable.value.shape.num_elements() for variable in model.trainable_weights)


TOP_TEN = {
    "resnet50": 3_416_576,
    "inception_v3": 192,
    "densenet121": 168_128,
    "inception_resnet_v2": 4_130_592,
}
"""Parameters in model.layers[-10:] of keras.applications with include_top=False, pooling="avg"."""


def test_the_top_ten_layers_are_those_of_keras_applications(name):
    if name not in TOP_TEN:
        pytest.skip("not one of those that were published")
    plan = plan_of(name, scheme="unfreezetop10")
    assert plan.trainable_parameters == TOP_TEN[name]
    assert bool(list(plan.notes())) == (name == "inception_v3")


def test_a_plan_may_be_cut_at_a_layer_within_a_stage(name):
    model = network(name, ())
    layer = next(item.name for item in model.layers if item.name == BACKBONES[name].stages["stem"])
    assert (
        plan_of(name, scheme="transfusion", through=layer).groups
        == plan_of(name, scheme="transfusion", through="stem").groups
    )


def test_a_layer_that_measures_data_is_refused():
    def build(image, _):
        return keras.Model(image, keras.layers.Conv2D(4, 3, name="last")(keras.layers.Normalization(name="own")(image)))

    card = dataclasses.replace(BACKBONES["composite"], build=build, stages={"stem": "last"})
    outline = transfer_spec(TransferSettings(), card, weights=False)
    with pytest.raises(ConfigError, match="own: expected a Normalization layer with mean and variance as arguments"):
        build_plan(outline, build_architecture(card, image_size=32), card)


def test_a_cut_within_a_stage_makes_two_parts_of_it():
    plan = plan_of("resnet50", freeze_to="conv3_block2_out")
    of_stage = [(part.init, part.trains) for part in plan.groups if part.stage == "stage2"]
    assert of_stage == [("pretrained", False), ("pretrained", True)]
    assert "conv3_block2_3_bn" in plan.frozen
    assert "conv3_block3_1_conv" not in plan.frozen


@pytest.mark.parametrize("layer", ["image", "preprocessing", "avg_pool", "head_dropout", "head"])
def test_a_plan_is_not_cut_outside_the_backbone(layer):
    card = BACKBONES["cbr_tiny"]
    classifier = build_classifier(
        card, classes=2, image_size=24, activation="softmax", dropout=0.5, preprocessing="torch"
    )
    for settings in (TransferSettings(freeze_to=layer), TransferSettings(scheme="transfusion", through=layer)):
        with pytest.raises(ConfigError, match=f"Received: {layer}, which is before or after all stages"):
            build_plan(transfer_spec(settings, card, weights=True), classifier.model, card)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": {"stage2": StageSettings(width=0.5)}}, r"stage2 is narrower.*cannot start from pretrained"),
        ({"stages": {"stage2": StageSettings("random", width=0.5)}}, r"stage3 .* follows a narrower stage: it cannot"),
        ({"scheme": "hybrid", "batch_norm": "transfer"}, r"batch norm cannot be copied. Use --bn-init identity or"),
    ],
)
def test_what_does_not_fit_a_narrow_stage_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        plan_of("cbr_tiny", **settings)


def test_a_plan_written_out_equals_its_scheme():
    stages = {"stem": StageSettings("pretrained", trains=False), "stage1": StageSettings("pretrained", trains=False)}
    assert plan_of("cbr_tiny", stages=stages).groups == plan_of("cbr_tiny", freeze_to="stage1").groups


def test_the_plan_that_the_readme_writes_out_is_one():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(transfer:\n  stages:\n.*?)```", readme, re.DOTALL)
    stages = {name: StageSettings(**values) for name, values in yaml.safe_load(text)["transfer"]["stages"].items()}
    found = [(part.stage, part.init, part.trains, part.width) for part in plan_of("resnet50", stages=stages).groups]
    assert found == [
        ("stem", "gabor", False, 1),
        ("stage1", "pretrained", True, 1),
        ("stage2", "mean_var", True, 1),
        ("stage3", "random", True, 0.5),
        ("stage4", "random", True, 0.5),
    ]
