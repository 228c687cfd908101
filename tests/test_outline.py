import pytest

from radtransfer.config.schema import StageSettings, TransferSettings
from radtransfer.errors import ConfigError, UnknownNameError
from radtransfer.models.backbone import BACKBONES
from radtransfer.transfer.spec import transfer_spec

CARD = BACKBONES["resnet50"]


def outline(*, weights=True, card=CARD, **settings):
    return transfer_spec(TransferSettings(**settings), card, weights=weights)


@pytest.mark.parametrize(
    ("weights", "settings", "scheme"),
    [
        (True, {}, "transfer"),
        (False, {}, "scratch"),
        (True, {"freeze_to": "stage1"}, "fixed_features"),
        (False, {"freeze_to": "stage1"}, "random_features"),
        (True, {"freeze_to": "none"}, "transfer"),
        (True, {"slim": "stage2:0.5"}, "hybrid"),
        (False, {"slim": "stage2:0.5"}, "slim"),
        (True, {"slim": "stage2:0.5", "freeze_to": "stage1"}, "hybrid"),
        (False, {"slim": "stage2:0.5", "freeze_to": "stage1"}, "slim"),
    ],
)
def test_auto_means_what_the_options_say(weights, settings, scheme):
    assert outline(weights=weights, **settings).scheme == scheme


@pytest.mark.parametrize(
    ("weights", "scheme"), [(True, "fixed_features"), (False, "random_features"), (True, "fixed_features_reinit")]
)
def test_freeze_to_equals_the_scheme_that_freezes_through_it(weights, scheme):
    by_through = outline(weights=weights, scheme=scheme, through="stage1")
    assert outline(weights=weights, scheme=scheme, freeze_to="stage1") == by_through
    if scheme != "fixed_features_reinit":
        assert outline(weights=weights, freeze_to="stage1") == by_through


def test_freeze_to_all_freezes_the_whole_backbone():
    assert outline(freeze_to="all") == outline(scheme="fixed_features")


def test_freezing_goes_with_schemes_that_do_not_freeze():
    found = outline(scheme="transfusion", through="stage2", freeze_to="stem")
    assert (found.last_transferred_stage, found.freeze_to) == ("stage2", "stem")


def test_slim_narrows_every_later_stage():
    widths = outline(scheme="slim", slim="stage2:0.25").widths
    assert widths == {"stem": 1, "stage1": 1, "stage2": 1, "stage3": 0.25, "stage4": 0.25}
    assert outline(scheme="hybrid").widths == {"stem": 1, "stage1": 1, "stage2": 1, "stage3": 0.5, "stage4": 0.5}


def test_stages_that_are_not_written_out_have_their_defaults():
    found = outline(stages={"stem": StageSettings("gabor", trains=False)})
    assert found.scheme == "custom"
    assert found.stages["stem"] == StageSettings("gabor", trains=False)
    assert found.stages["stage4"] == StageSettings("pretrained")
    assert outline(weights=False, stages={"stem": StageSettings("gabor")}).stages["stage4"].starts_from == "random"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "transfusion"}, r"transfusion needs --through STAGE or LAYER"),
        ({"scheme": "mean_var", "through": "stage1"}, r"mean_var takes no --through"),
        ({"scheme": "hybrid", "through": "stage1"}, r"hybrid takes no --through.*STAGE:WIDTH.*--slim stage1:0.5"),
        ({"scheme": "slim", "through": "stage3"}, r"slim takes no --through.*--slim STAGE:WIDTH.*--slim stage3:0.5"),
        ({"scheme": "slim", "slim": "stage1:0.5", "through": "stage2"}, r"--slim STAGE:WIDTH"),
        ({"slim": "stage1:0.5", "through": "stage2"}, r"--slim stage1:0.5 already names .*--through stage2"),
        ({"scheme": "freezeall", "through": "stage1"}, r"freezeall takes no --through.*--freeze-to stage1"),
        ({"scheme": "gabor", "through": "stage1"}, r"gabor takes no --through.*leave --through out"),
        ({"through": "stage1"}, r"--through stage1 needs a scheme: add --scheme"),
        ({"scheme": "fixed_features", "through": "stem", "freeze_to": "stage1"}, r"Received: --freeze-to stage1"),
        ({"scheme": "freezeall", "freeze_to": "none"}, r"Received: --freeze-to none"),
        ({"slim": "stage2"}, r"--slim takes STAGE:WIDTH.*Received: stage2"),
        ({"slim": "stage2:2"}, r"Received: stage2:2"),
        ({"slim": "stage4:0.5"}, r"any stage but the last"),
        (
            {"stages": {"stem": StageSettings()}, "scheme": "transfer"},
            r"stages and transfer.scheme contradict",
        ),
        ({"stages": {"stem": StageSettings()}, "slim": "stem:0.5"}, r"transfer.stages and transfer.slim contradict"),
        ({"stages": {"stem": StageSettings(width=0.0)}}, r"Width of stem: expected a fraction above 0"),
        ({"stages": {"stage1": StageSettings("gabor")}}, r"first convolution.*Received: starts_from gabor for stage1"),
    ],
)
def test_contradictions_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        outline(**settings)


@pytest.mark.parametrize(
    ("settings", "asking"),
    [
        ({"scheme": "transfer"}, "scheme transfer starts from pretrained"),
        ({"scheme": "mean_var"}, "scheme mean_var starts from mean_var"),
        ({"batch_norm": "transfer"}, "--bn-init transfer"),
        ({"stages": {"stem": StageSettings("shuffled")}}, "scheme custom starts from shuffled"),
    ],
)
def test_without_weights_nothing_starts_from_them(settings, asking):
    with pytest.raises(ConfigError, match=f"{asking}: expected pretrained weights"):
        outline(weights=False, **settings)


@pytest.mark.parametrize(
    ("settings", "closest"),
    [
        ({"freeze_to": "stage9"}, "stage4"),
        ({"scheme": "transfusion", "through": "conv2_block3_ou"}, "conv2_block3_out"),
        ({"scheme": "transfuse"}, "transfusion"),
        ({"slim": "stag2:0.5"}, "stage2"),
        ({"stages": {"stm": StageSettings()}}, "stem"),
    ],
)
def test_unknown_names_are_answered_with_the_closest(settings, closest):
    with pytest.raises(UnknownNameError, match=f"Did you mean .*'{closest}'"):
        outline(**settings)


def test_a_network_that_cannot_be_slim_says_so():
    with pytest.raises(ConfigError, match="inception_v3 has full width only"):
        outline(card=BACKBONES["inception_v3"], scheme="slim")
