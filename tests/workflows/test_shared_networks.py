"""Folds and runs of one network share it, and what was traced for it; each must come out as it does alone."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import warm_process

from radtransfer.config.load import load_config
from radtransfer.training.context import ModelCache
from radtransfer.training.run import finetune


@pytest.fixture
def config(finished_run):
    """Of the finished run, whose network starts anew."""
    return load_config(str(finished_run.path / "config.yaml"))


def planned(config, out, **transfer):
    weights = transfer.pop("weights", config.model.weights)
    model, plan = replace(config.model, weights=weights), replace(config.transfer, **transfer)
    return replace(config, model=model, transfer=plan, splits=replace(config.splits, fold=(2,)), out=str(out))


def alone(path, out, *options):
    """The same in a process of its own."""
    warm_process.run("finetune", path, "--out", out, *options, check=True)


def check_same(one, other, fold="fold_2"):
    for name in ("history.csv", "predictions.csv"):
        assert (one / fold / name).read_bytes() == (other / fold / name).read_bytes(), name
    models = [keras.models.load_model(run / fold / "model.keras", compile=False) for run in (one, other)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_second_fold_comes_out_as_it_does_alone(finished_run, tmp_path):
    alone(finished_run.path / "config.yaml", tmp_path / "alone", "--fold", 2)
    check_same(finished_run.path, tmp_path / "alone")


def test_a_scheme_after_others_comes_out_as_it_does_alone(config, finished_run, tmp_path):
    networks, source = ModelCache(), str(finished_run.path / "fold_1")
    arms = {
        "scratch": {},
        "frozen": {"scheme": "fixed_features", "through": "stage1", "weights": source},
        "transfer": {"scheme": "transfer", "weights": source},
    }
    for name, plan in arms.items():
        finetune(planned(config, tmp_path / name, **plan), models=networks)
    alone(tmp_path / "transfer" / "config.yaml", tmp_path / "alone")
    check_same(tmp_path / "transfer", tmp_path / "alone")
    check_same(tmp_path / "scratch", finished_run.path)


class CountedCache(ModelCache):
    """Remembers the learners that it gave."""

    def __init__(self):
        super().__init__()
        self.given = {}

    def learner(self, *arguments, **options):
        learner = super().learner(*arguments, **options)
        self.given[id(learner)] = learner
        return learner


def test_runs_that_train_the_same_layers_trace_once(config, finished_run, tmp_path):
    models, source = CountedCache(), str(finished_run.path / "fold_1")
    watched = replace(config, training=replace(config.training, eval_every=1))
    finetune(planned(watched, tmp_path / "scratch"), models=models)
    finetune(planned(watched, tmp_path / "transfer", scheme="transfer", weights=source), models=models)
    (learner,) = models.given.values()
    for function in (learner.train, learner.evaluate, learner.observe):
        assert function.experimental_get_tracing_count() == 1
    finetune(planned(config, tmp_path / "frozen", scheme="fixed_features", weights=source), models=models)
    assert len(models.given) == 2


def test_runs_of_one_engine_share_a_network(config, finished_run, tmp_path, monkeypatch):
    import radtransfer.training.context as module
    from radtransfer.studies.engines import InProcess

    made, build = [], module.build_classifier
    monkeypatch.setattr(module, "build_classifier", lambda *given, **facts: made.append(1) or build(*given, **facts))
    engine = InProcess()
    for name in ("first", "second"):
        engine.submit(name, planned(config, tmp_path / name), tmp_path / name)
        ((key, outcome),) = engine.wait(lambda *told: None, 1.0)
        assert (key, outcome.status) == (name, "finished"), outcome.error
    assert len(made) == 1
    check_same(tmp_path / "first", tmp_path / "second")
    check_same(tmp_path / "first", finished_run.path)
