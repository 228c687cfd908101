import functools
import hashlib
import zipfile

import numpy as np
import pytest
from composite_network import COMPOSITE

from radtransfer.config.schema import StageSettings, TransferSettings
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier
from radtransfer.models.layers import layer_variables
from radtransfer.process import derive_seed
from radtransfer.transfer.initialize import draw_random, initialize_weights
from radtransfer.transfer.plan import build_plan
from radtransfer.transfer.spec import SCHEMES, transfer_spec


def build(name="cbr_tiny"):
    return build_classifier(
        BACKBONES[name], classes=3, image_size=32, activation="softmax", dropout=0.5, preprocessing="torch"
    ).model


@functools.cache
def built(name, widths=()):
    """A network, made once: whatever starts it sets all of it anew."""
    return build_classifier(
        BACKBONES[name],
        classes=3,
        image_size=32,
        activation="softmax",
        dropout=0.5,
        preprocessing="torch",
        widths=dict(widths),
    )


def values(model):
    return {variable.path: np.array(variable) for variable in model.weights}


def test_one_seed_gives_one_network_whatever_was_built_before():
    one = build()
    draw_random(one, seed=3)
    build("cbr_small")
    other = build()
    draw_random(other, seed=3)
    for (_, a), (_, b) in zip(values(one).items(), values(other).items(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_one_shape_draw_different_numbers():
    model = built("efficientnet_v2_b0").model
    draw_random(model, seed=0)
    kernels = [value.ravel()[:50].tobytes() for path, value in values(model).items() if value.ndim == 4]
    assert len(set(kernels)) == len(kernels)


@pytest.mark.parametrize("name", ["cbr_tiny", "efficientnet_v2_b0", "convnext_tiny"])
def test_every_kernel_is_drawn_anew(name):
    model = built(name).model
    before = values(model)
    draw_random(model, seed=11)
    for path, value in values(model).items():
        if "kernel" in path and np.ptp(before[path]) > 0:
            assert (value != before[path]).mean() > 0.99, path


def test_drawn_kernels_keep_the_scale_of_their_initializer():
    model = build()
    draw_random(model, seed=0)
    kernel = model.get_layer("conv3").get_weights()[0]
    fan_in, fan_out = np.prod(kernel.shape[:3]), np.prod(kernel.shape[:2]) * kernel.shape[3]
    assert kernel.std() == pytest.approx(np.sqrt(2 / (fan_in + fan_out)), rel=0.02)


BASE = 7


@pytest.fixture(scope="module")
def pretrained():
    """Weights of a network whose tensors all differ from any initializer's."""
    model, rng = build(), np.random.default_rng(0)
    return {
        layer.name: tuple(
            (0.5 + 0.3 * rng.standard_normal(weight.shape)).astype(np.float32)
            ** (2 if "variance" in weight.name else 1)
            for weight in layer.weights
        )
        for layer in model.layers
        if layer.weights
    }


def started_weights(scheme, pretrained, *, seed=BASE, name="cbr_tiny", **options):
    """The weights of a network under a scheme, by their paths."""
    outline = transfer_spec(TransferSettings(scheme=scheme, **options), BACKBONES[name], weights=pretrained is not None)
    classifier = built(name, tuple(outline.widths.items()))
    initialize_weights(
        classifier.model, build_plan(outline, classifier.backbone, BACKBONES[name]), pretrained, seed=seed
    )
    return values(classifier.model)


def started(scheme, pretrained, *, seed=BASE, name="cbr_tiny", **options):
    card = BACKBONES[name]
    outline = transfer_spec(TransferSettings(scheme=scheme, **options), card, weights=pretrained is not None)
    classifier = build_classifier(
        card,
        classes=3,
        image_size=32,
        activation="softmax",
        dropout=0.5,
        preprocessing="torch",
        widths=outline.widths,
    )
    plan = build_plan(outline, classifier.backbone, card)
    initialize_weights(classifier.model, plan, pretrained, seed=seed)
    return classifier.model


def kernel(model, layer):
    return np.array(model.get_layer(layer).kernel)


OPTIONS = {"transfusion": {"through": "stage1"}, "fixed_features_reinit": {"through": "stage1"}}


@pytest.mark.parametrize("scheme", [name for name, scheme in SCHEMES.items() if not scheme.slim])
def test_the_head_is_the_same_under_every_scheme(pretrained, scheme):
    expected = started_weights("scratch", pretrained)["head/kernel"]
    found = started_weights(scheme, pretrained, **OPTIONS.get(scheme, {}))["head/kernel"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_seed_gives_one_start_under_every_scheme(pretrained, scheme):
    one, other, again = (
        started_weights(scheme, pretrained, seed=seed, **OPTIONS.get(scheme, {})) for seed in (1, 2, 1)
    )
    assert all(np.array_equal(one[path], again[path]) for path in one)
    assert not all(np.array_equal(one[path], other[path]) for path in one)


def test_transfer_copies_every_tensor(pretrained):
    model = started("transfer", pretrained)
    for layer, arrays in pretrained.items():
        if layer != "head":
            assert all(map(np.array_equal, model.get_layer(layer).get_weights(), arrays)), layer


def test_transfusion_copies_through_its_stage_and_draws_the_rest(pretrained):
    model, scratch = started("transfusion", pretrained, through="stage1"), started("scratch", None)
    for layer in ("conv1", "conv2"):
        np.testing.assert_array_equal(kernel(model, layer), pretrained[layer][0])
    for layer in ("conv3", "conv4"):
        np.testing.assert_array_equal(kernel(model, layer), kernel(scratch, layer))
    np.testing.assert_array_equal(model.get_layer("bn2").moving_variance, pretrained["bn2"][3])
    np.testing.assert_array_equal(model.get_layer("bn3").moving_variance, np.ones(128))


def test_mean_var_keeps_the_scale_and_not_the_values(pretrained):
    model = started("mean_var", pretrained)
    for layer in ("conv2", "conv3", "conv4"):
        drawn, source = kernel(model, layer), pretrained[layer][0]
        assert drawn.mean() == pytest.approx(source.mean(), abs=5 * source.std() / np.sqrt(source.size))
        assert drawn.std() == pytest.approx(source.std(), rel=5 / np.sqrt(2 * source.size))
        assert abs(np.corrcoef(drawn.ravel(), source.ravel())[0, 1]) < 5 / np.sqrt(source.size)


def test_shuffled_is_a_permutation_and_sampled_draws_from_the_same_values(pretrained):
    shuffled, sampled = (kernel(started(scheme, pretrained), "conv3") for scheme in ("shuffled", "sampled"))
    source = pretrained["conv3"][0]
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(source, axis=None))
    assert (shuffled != source).mean() > 0.99
    assert set(sampled.ravel()) < set(source.ravel())
    assert not np.array_equal(np.sort(sampled, axis=None), np.sort(source, axis=None))


@pytest.mark.parametrize("scheme", ["mean_var", "sampled", "shuffled", "transfusion"])
def test_batch_norm_follows_its_policy(pretrained, scheme):
    options = OPTIONS.get(scheme, {})
    identity = started(scheme, pretrained, **options).get_layer("bn4").get_weights()
    copied = started(scheme, pretrained, batch_norm="transfer", **options).get_layer("bn4").get_weights()
    drawn = started(scheme, pretrained, batch_norm="mean_var", **options).get_layer("bn4").get_weights()
    assert [float(vector.mean()) for vector in identity] == [1, 0, 0, 1]
    assert all(map(np.array_equal, copied, pretrained["bn4"]))
    for vector, source in zip(drawn, pretrained["bn4"], strict=True):
        assert vector.mean() == pytest.approx(source.mean(), abs=5 * source.std() / np.sqrt(source.size))
        assert not np.array_equal(vector, source)
    assert (drawn[3] > 0).all()


def test_gabor_fills_the_first_convolution_at_the_scale_of_the_pretrained_one(pretrained):
    with_weights, without = started("gabor", pretrained), started("gabor", None)
    for model, scale in ((with_weights, pretrained["conv1"][0].std()), (without, np.sqrt(2 / (25 * 3)))):
        filters = kernel(model, "conv1")
        assert filters.std() == pytest.approx(scale, rel=1e-5)
        np.testing.assert_array_equal(filters[:, :, 0], filters[:, :, 2])
    np.testing.assert_array_equal(kernel(with_weights, "conv2"), kernel(started("scratch", None), "conv2"))


def test_a_hybrid_is_pretrained_up_to_its_stage_and_narrow_after_it(pretrained):
    model = started("hybrid", pretrained, slim="stage1:0.5")
    np.testing.assert_array_equal(kernel(model, "conv2"), pretrained["conv2"][0])
    assert kernel(model, "conv3").shape == (5, 5, 64, 64)
    assert kernel(model, "conv4").shape == (5, 5, 64, 128)


def test_a_narrow_stage_may_start_from_the_scale_of_the_wide_one(pretrained):
    stages = {"stage2": StageSettings("mean_var", width=0.5), "stage3": StageSettings("sampled", width=0.5)}
    model = started("auto", pretrained, stages=stages)
    source = pretrained["conv3"][0]
    assert kernel(model, "conv3").std() == pytest.approx(source.std(), rel=0.02)
    assert set(kernel(model, "conv4").ravel()) < set(pretrained["conv4"][0].ravel())


def test_what_a_plan_starts_is_saved_without_our_initializers(pretrained, tmp_path):
    model = started("sampled", pretrained)
    model.save(tmp_path / "model.keras")
    config = zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
    assert "radtransfer" not in config
    assert (tmp_path / "model.keras").stat().st_size < 1.2 * 4 * model.count_params()


# What seed 7 has always drawn: a digest of all bytes, and a projection where other processors may round otherwise.
DRAWN = [
    ("cbr_tiny", {"scheme": "scratch"}, "5e92b0de537623f8", 494.382273333648),
    ("cbr_tiny", {"scheme": "mean_var"}, "6d2a2f55d55bacaf", 539474.5908548182),
    ("cbr_tiny", {"scheme": "sampled"}, "399c814347158bec", 539182.6529375116),
    ("cbr_tiny", {"scheme": "shuffled"}, "6bbd000f3fc48390", 539499.7763360582),
    ("cbr_tiny", {"scheme": "gabor"}, None, 606.652781362446),
    ("cbr_tiny", {"scheme": "mean_var", "batch_norm": "mean_var"}, None, 539945.4953909173),
    ("efficientnet_v2_b0", {"scheme": "scratch"}, None, 30403.941371828467),
    ("efficientnet_v2_b0", {"scheme": "mean_var", "batch_norm": "mean_var"}, None, 2959082.914719757),
]


@pytest.mark.parametrize(("name", "settings", "digest", "projection"), DRAWN)
def test_a_seed_draws_the_values_that_it_always_drew(name, settings, digest, projection):
    card, rng = BACKBONES[name], np.random.default_rng(0)
    classifier = built(name)
    invented = {
        layer.name: tuple(rng.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in layer.weights)
        for layer in classifier.backbone.layers
        if layer.weights
    }
    plan = build_plan(transfer_spec(TransferSettings(**settings), card, weights=True), classifier.backbone, card)
    initialize_weights(classifier.model, plan, invented, seed=7)
    arrays, rng = classifier.model.get_weights(), np.random.default_rng(1)
    assert digest in (None, hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16])
    found = sum(float(np.vdot(rng.uniform(size=array.shape), array)) for array in arrays)
    assert found == pytest.approx(projection, rel=1e-6)


def composite(scheme, pretrained, *, seed=BASE, **options):
    outline = transfer_spec(TransferSettings(scheme=scheme, **options), COMPOSITE, weights=pretrained is not None)
    classifier = build_classifier(
        COMPOSITE, classes=3, image_size=32, activation="softmax", dropout=0.5, preprocessing="torch"
    )
    initialize_weights(
        classifier.model,
        build_plan(outline, classifier.backbone, COMPOSITE),
        pretrained,
        seed=seed,
    )
    return {
        f"{layer.name}/{path}": np.array(item.variable)
        for layer in classifier.model.layers
        for path, item in layer_variables(layer).items()
    }


@pytest.fixture(scope="module")
def pretrained_composite():
    """Arrays of every layer, no two values alike."""
    model = build_classifier(
        COMPOSITE, classes=3, image_size=32, activation="softmax", dropout=0.5, preprocessing="torch"
    ).backbone
    rng = np.random.default_rng(0)
    return {
        layer.name: tuple(rng.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in layer.weights)
        for layer in model.layers
        if layer.weights
    }


@pytest.mark.parametrize("scheme", ["mean_var", "sampled", "shuffled"])
@pytest.mark.parametrize("policy", ["identity", "mean_var", "transfer"])
def test_each_variable_of_a_layer_of_layers_follows_scheme_and_batch_norm_policy(pretrained_composite, scheme, policy):
    found = composite(scheme, pretrained_composite, batch_norm=policy)
    given = composite("transfer", pretrained_composite)
    for name in (f"block1_attention/{part}/{leaf}" for part in ("query", "value") for leaf in ("kernel", "bias")):
        value, source = found[name], given[name]
        assert not np.array_equal(value, source), name
        assert np.mean(value) == pytest.approx(np.mean(source), abs=0.4), name
        if scheme == "shuffled":
            np.testing.assert_array_equal(np.sort(value, axis=None), np.sort(source, axis=None))
    for layer, leaves in (("norm", ("gamma", "beta")), ("bn", ("gamma", "beta", "moving_mean", "moving_variance"))):
        for leaf in leaves:
            value, source = (values[f"block2_mlp/mlp/{layer}/{leaf}"] for values in (found, given))
            constant = float(leaf in ("gamma", "moving_variance"))
            assert np.array_equal(value, source) == (policy == "transfer")
            assert bool((value == constant).all()) == (policy == "identity")


def test_derived_seeds_are_fixed_for_ever():
    assert derive_seed(0, "conv1", "kernel") == 1867581419
    assert derive_seed(0, "a", "b") != derive_seed(0, "b", "a")
