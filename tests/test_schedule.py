import pytest

from radtransfer.config.load import load_config
from radtransfer.config.schema import TrainingSettings
from radtransfer.training.step import learning_rate


def rates(settings, steps, steps_per_epoch=10):
    return [learning_rate(settings, step=step, steps_per_epoch=steps_per_epoch) for step in range(steps)]


def test_constant_stays():
    assert set(rates(TrainingSettings(schedule="constant", learning_rate=0.1), 30)) == {0.1}


def test_cosine_falls_from_the_peak_to_nothing():
    values = rates(TrainingSettings(schedule="cosine", learning_rate=1.0, epochs=5), 50)
    assert values[0] == 1.0
    assert values[25] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_the_chexpert_recipe_follows_the_paper():
    settings = load_config(sets=("recipe=raghu-chexpert",)).training
    values = rates(settings, 1000)
    assert values[0] == pytest.approx(0.0125 / 50)
    assert values[49] == pytest.approx(0.1 * 32 / 256)
    assert [values[epoch * 10] for epoch in (29, 30, 60, 90)] == pytest.approx([0.0125, 0.00125, 0.000125, 0.0000125])
