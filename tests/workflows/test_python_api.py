"""The Python API on a small set: the snippets that a notebook would hold."""

import inspect
import io
import json
import pkgutil

import keras
import numpy as np
import pandas as pd
import pytest

import radtransfer as rt
from radtransfer import errors
from radtransfer.api.progress import as_arguments
from radtransfer.api.settings import settings_of
from radtransfer.config.load import load_config
from radtransfer.process import Progress

SMALL = {"backbone": "cbr_tiny", "image_size": 24, "batch_size": 8, "augmentation": "none", "folds": 2, "quiet": True}


@pytest.fixture(scope="module")
def data(tiny_images):
    return {"data": tiny_images / "images.csv", "image_root": tiny_images / "images"}


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return rt.finetune(**data, **SMALL, epochs=2, out=tmp_path_factory.mktemp("api") / "run")


def network(name, seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((24, 24, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv1")(image)
    x = keras.layers.Conv2D(12, 3, activation="relu", name="conv2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(2, activation="softmax", name="head")(x), name=name)


def test_the_public_names():
    assert set(rt.__all__) == {
        "__version__", "build_backbone", "check_data", "compare", "evaluate", "explain", "export", "finetune",
        "initializers", "load_data", "load_run", "make_report", "metrics", "plan_transfer", "predict", "run_study",
        "similarity",
    }  # fmt: skip
    for name in rt.__all__[1:]:
        assert inspect.getdoc(getattr(rt, name))


def test_no_module_has_the_name_of_a_public_function():
    modules = {module.name.rpartition(".")[2] for module in pkgutil.walk_packages(rt.__path__, "radtransfer.")}
    assert not modules & {name for name in rt.__all__ if inspect.isfunction(getattr(rt, name))}


def test_what_has_moved_warns():
    with pytest.warns(DeprecationWarning, match=r"config\.load"):
        assert callable(rt.load_config)
    with pytest.raises(AttributeError, match="nothing"):
        rt.nothing  # noqa: B018


def test_a_run_and_what_it_left(run):
    assert run.folds == (1, 2)
    assert run.metrics["n_images"] == len(run.predictions())
    assert run.history(fold=1)["epoch"].tolist() == [1, 2]
    assert run.history()["fold"].nunique() == 2
    predictions = run.predictions(fold=1)
    probabilities = predictions.filter(like="p_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert run.config.training.epochs == 2
    assert run.model(fold=2).count_params() > 0
    assert "cbr_tiny" in repr(run) and "<table>" in run._repr_html_()
    assert rt.load_run(run.path).metrics == run.metrics


def test_a_frame_trains_as_its_csv_and_its_hash_is_recorded(run, data, tmp_path):
    frame = pd.read_csv(data["data"], dtype=str)
    frame["path"] = [str(data["image_root"] / path) for path in frame["path"]]
    again = rt.finetune(frame, **SMALL, epochs=2, out=tmp_path / "run", training={"patience": None})
    assert again.metrics["auc"] == run.metrics["auc"]
    assert "frames" in again.config.data.source


def test_a_loaded_table_trains(run, data, tmp_path):
    table = rt.load_data(**data, quiet=True)
    again = rt.finetune(table, **SMALL, epochs=2, fold=1, out=tmp_path / "run")
    assert again.metrics["auc"]["per_fold"] == run.metrics["auc"]["per_fold"][:1]


def test_unknown_settings_are_named_with_what_is_meant(data):
    with pytest.raises(errors.ConfigError, match="learning_rate"):
        rt.finetune(**data, learnin_rate=0.1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x exists. Use --overwrite, or another --out.", "x exists. Use `overwrite`, or another `out`."),
        ("--class q: or --no-cca", "`class_` q: or `cca=False`"),
        ("warm up with --set training.warmup_epochs=1", "warm up with training.warmup_epochs=1"),
        ("run `radtransfer plan --through x` or --through y", "run `radtransfer plan --through x` or `through` y"),
        ("go on with: radtransfer study s --out o --jobs 2", "go on with: radtransfer study s --out o --jobs 2"),
    ],
)
def test_messages_name_arguments_and_leave_commands(message, expected):
    assert as_arguments(message) == expected


def test_errors_name_arguments_unless_the_caller_shows_the_progress(data, tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(errors.RunError, match="^`out` "):
        rt.check_data(**data, out=taken)
    with pytest.raises(errors.RunError, match="^--out "):
        rt.check_data(**data, out=taken, progress=Progress())


def test_data_settings_without_data_are_refused(run):
    with pytest.raises(errors.ConfigError, match="`label_column` is about the images in `data`"):
        rt.evaluate(run, label_column="label")


def test_a_checked_config_counts_as_its_file_and_arguments_win(data):
    config = load_config(options={"data.source": str(data["data"]), "splits.folds": 3, "seed": 4})
    assert settings_of(config=config) is config
    changed = settings_of(config=config, settings={"folds": 2})
    assert (changed.splits.folds, changed.seed, changed.data.source) == (2, 4, config.data.source)
    with pytest.raises(errors.ConfigError, match="this call"):
        settings_of(config=config, settings={"folds": -1})


def test_a_progress_gets_what_happens_and_results_print_themselves(run, data):
    heard = []

    class Listener(Progress):
        def count(self, what, done, total):
            heard.append(what)

    found = rt.evaluate(run, **data, progress=Listener())
    assert "images predicted" in heard
    assert repr(found).startswith("model ") and "95 % interval" in repr(found)


def test_predictions_go_to_a_file_as_they_come(run, data, tmp_path):
    images, text = sorted(data["image_root"].glob("*/*.png"))[:3], io.StringIO()
    frame = rt.predict(run, images, quiet=True)
    assert rt.predict(run, images, out=text, quiet=True) is None
    assert rt.predict(run, images, out=tmp_path / "found.jsonl", quiet=True) is None
    written = pd.read_csv(io.StringIO(text.getvalue()))
    assert written["predicted"].tolist() == frame["predicted"].tolist()
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["predicted"] for line in lines] == frame["predicted"].tolist()
    with pytest.raises(errors.ConfigError, match="`overwrite`"):
        rt.predict(run, images, out=tmp_path / "found.jsonl")


def test_callbacks_hear_of_epochs_and_may_stop(data, tmp_path):
    heard = []

    class Listener(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            heard.append(("begin", epoch))

        def on_epoch_end(self, epoch, logs=None):
            heard.append((epoch, set(logs)))
            self.model.stop_training = True

        def on_train_end(self, logs=None):
            heard.append("end")

    run = rt.finetune(**data, **SMALL, fold=1, epochs=5, callbacks=[Listener()], out=tmp_path / "run")
    logs = {"loss", "val_loss", "val_auc", "val_accuracy", "learning_rate"}
    assert heard == [("begin", 0), (0, logs), "end"]
    assert len(run.history()) == 1


def test_evaluate_predict_explain_and_export(run, data, tmp_path):
    own = rt.evaluate(run, quiet=True)
    assert own.metrics["auc"] == pytest.approx(run.metrics["auc"]["pooled"])
    other = rt.evaluate(run, **data, quiet=True, out=tmp_path / "evaluated")
    assert (tmp_path / "evaluated" / "metrics.json").is_file() and other.metrics["auc"] is not None
    images = sorted(data["image_root"].glob("*/*.png"))[:5]
    found = rt.predict(run, images, quiet=True)
    assert list(found["path"]) == list(map(str, images))
    explained = rt.explain(run, images[:2], fold=1, occlusion=0, quiet=True)
    assert len(explained.explanations) == 2
    (exported,) = rt.export(run, tmp_path / "model.keras", fold=1)
    assert exported.path.is_file()
    with pytest.raises(errors.UnknownNameError):
        rt.export(run, tmp_path / "model.pt", fold=1)


def test_predict_takes_arrays_and_keras_models(run):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 24, 24, 3)).astype(np.float32)
    model = run.model(fold=1)
    expected = model.predict(pixels, verbose=0)
    of_fold = rt.predict(f"{run.path}/fold_1", pixels, quiet=True)
    of_model = rt.predict(model, pixels, batch_size=2, quiet=True)
    for found in (of_fold, of_model):
        np.testing.assert_allclose(found.filter(like="p_").to_numpy(), expected, atol=1e-5)
    with pytest.raises(errors.ConfigError, match="shape"):
        rt.predict(model, pixels[0])
    with pytest.raises(errors.ConfigError, match="24×24"):
        rt.predict(model, pixels[:, :20, :20])
    with pytest.raises(errors.ConfigError, match="24×24"):
        rt.compare(model, model, images=pixels[:, :20, :20], repeats=1, quiet=True)


def test_an_operating_point_needs_validation_images(run):
    with pytest.raises(errors.ConfigError, match="validation images"):
        rt.predict(run.model(fold=1), np.zeros((1, 24, 24, 3)), operating_point="youden")


def test_a_frame_with_a_root_stays_within_it(data, tmp_path):
    frame = pd.read_csv(data["data"], dtype=str)
    frame.loc[0, "path"] = "../images.csv"
    with pytest.raises(errors.DataError, match="outside"):
        rt.load_data(frame, image_root=data["image_root"], quiet=True)


def test_labels_are_joined_as_on_the_command_line():
    image = keras.Input((24, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    head = keras.layers.Dense(2, activation="sigmoid", bias_initializer="ones", kernel_initializer="zeros")
    found = rt.predict(keras.Model(image, head(x)), np.zeros((1, 24, 24, 3)), quiet=True)
    assert found["predicted"].tolist() == ["0;1"]


def test_data_are_loaded_checked_and_batched(data):
    table = rt.load_data(**data, quiet=True)
    assert len(table) == len(table.to_frame()) and set(table.classes) <= set(table.to_frame().columns)
    dataset = table.to_dataset(image_size=32, batch_size=5)
    batches = list(dataset)
    assert sum(len(images) for images, _ in batches) == len(table)
    images, targets = batches[0]
    assert images.shape == (5, 32, 32, 3) and images.numpy().max() > 1.5
    np.testing.assert_array_equal(np.concatenate([target for _, target in batches]), table.targets)
    scaled, _ = next(iter(table.to_dataset(image_size=32, batch_size=5, preprocessing="tf")))
    np.testing.assert_allclose(scaled, images / 127.5 - 1, atol=1e-5)
    augmented = table.to_dataset(image_size=32, batch_size=5, augmentation="light", seed=1)
    assert len(list(augmented)) == len(batches)
    model = network("any")
    model.compile("sgd", "categorical_crossentropy")
    if len(table.classes) == 2:
        model.fit(table.to_dataset(image_size=24), epochs=1, shuffle=False, verbose=0)
    report = rt.check_data(**data, quiet=True)
    assert list(report.findings.columns) == ["severity", "kind", "message", "files", "patients"]
    assert isinstance(report.valid, bool) and "<table>" in report._repr_html_() and "images" in repr(report)


def test_a_plan_for_any_model(tmp_path):
    source, model = network("source", 1), network("mine", 2)
    stages = {"stem": "conv1", "stage1": "conv2"}
    plan = rt.plan_transfer(model, stages=stages, scheme="transfusion", through="stem", weights=source)
    plan.apply(model, seed=0)
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], source.get_layer("conv1").get_weights()[0])
    assert not np.array_equal(model.get_layer("conv2").get_weights()[0], source.get_layer("conv2").get_weights()[0])
    assert plan.to_frame()["starts_from"].tolist() == ["pretrained", "random"] and "stem" in repr(plan)
    source.save_weights(tmp_path / "source.weights.h5")
    source.save(tmp_path / "source.keras")
    for file in ("source.weights.h5", "source.keras"):
        again = network("mine", 3)
        frozen = rt.plan_transfer(again, stages=stages, scheme="freezeall", weights=tmp_path / file)
        frozen.apply(again)
        assert not again.get_layer("conv2").trainable and again.get_layer("head").trainable
        np.testing.assert_array_equal(
            again.get_layer("conv2").get_weights()[0], source.get_layer("conv2").get_weights()[0]
        )
    with pytest.raises(errors.WeightsMismatchError, match="conv2"):
        rt.plan_transfer(model, stages=stages, weights=keras.Model(source.inputs, source.get_layer("conv1").output))
    with pytest.raises(errors.UnknownNameError, match="conv9"):
        rt.plan_transfer(model, stages={"stem": "conv9"})


def test_networks_are_compared(run, data):
    pixels = np.random.default_rng(0).uniform(0, 255, (40, 24, 24, 3)).astype(np.float32)
    a, b = network("a", 1), network("b", 2)
    same = rt.compare(a, a, images=pixels, similarity=["cca", "cka"], repeats=1, quiet=True).to_frame()
    np.testing.assert_allclose(same["similarity"].astype(float), 1, atol=1e-3)
    assert set(same["layer"]) == {"conv1", "conv2", "head"} and set(same["kind"]) == {"cca", "cka"}
    other = rt.compare(a, b, images=pixels, repeats=1, quiet=True)
    assert (other.to_frame()["similarity"].dropna().astype(float) < 0.999).all()
    assert other.plot().axes
    of_run = rt.compare(f"{run.path}/fold_1@initial", f"{run.path}/fold_1", repeats=1, dims=2, quiet=True, **data)
    assert len(of_run.to_frame())


def test_a_study_and_its_report(data, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        """
study: {name: tiny}
base:
  splits: {folds: 2}
  model: {backbone: cbr_tiny, image_size: 24}
  training: {batch_size: 8, epochs: 1, augmentation: none}
arms:
  one: {}
  two: {transfer.scheme: scratch, seed: 1}
"""
    )
    found = rt.run_study(study, **data, out=tmp_path / "study", runs=tmp_path / "runs", quiet=True)
    assert len(found.to_frame()) == 2 and len(found.runs) == 2 and "2 of 2" in repr(found)
    report = rt.make_report(found, out=tmp_path / "report", cca=False, quiet=True)
    assert report.files[0].is_file() and report.values["auc"]


def test_the_interval_of_an_auc():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    scores = truth + rng.normal(size=200)
    low, high = rt.metrics.auc_interval(truth, scores)
    assert 0.6 < low < high < 0.9
    wider = rt.metrics.auc_interval(truth, scores, groups=np.arange(200) // 20)
    assert wider[1] - wider[0] > 0 and wider != (low, high)
    assert rt.metrics.auc_interval(np.zeros(5), np.arange(5)) is None
    with pytest.raises(ValueError, match="length"):
        rt.metrics.auc_interval(truth, scores[:-1])
