"""Recipes: published training settings, as dotted names. Values marked "ours" are not stated in the source.

The raghu recipes use the preprocessing of the weights; random weights get the ImageNet mean and standard deviation
(Transfusion, Appendix A).

References:
    Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix A.
    Juodelyte et al. 2023, Revisiting Hidden Representations (arXiv 2302.08272), section 3 and code.
    Mei et al. 2022, RadImageNet (Radiology: AI 4:e210315), fine-tuning scripts.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from radtransfer.config.schema import TrainingSettings
from radtransfer.errors import UnknownNameError

_RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "raghu-retina": {
        "model.image_size": 587,
        "model.head": "sigmoid",
        "training.optimizer": "adam",
        "training.learning_rate": 1e-3,
        "training.schedule": "constant",
        "training.batch_size": 8,
        "training.epochs": 50,  # ours: the paper stops early
        "training.patience": 10,  # ours
        "training.augmentation": "fundus",
    },
    "raghu-chexpert": {
        "model.image_size": 224,
        "model.head": "sigmoid",
        "training.optimizer": "sgd",
        "training.momentum": 0.9,
        "training.learning_rate": 0.1 * 32 / 256,
        "training.schedule": "step",
        "training.step_epochs": (30, 60, 90),
        "training.warmup_epochs": 5.0,
        "training.batch_size": 32,
        "training.epochs": 100,  # ours: past the last step at 90
        "training.patience": None,  # ours: the whole schedule runs
        "training.augmentation": "chest",
    },
    "juodelyte": {
        "model.image_size": 224,
        "model.dropout": 0.5,
        "training.optimizer": "adam",
        "training.learning_rate": 1e-5,
        "training.schedule": "constant",
        "training.batch_size": 128,
        "training.epochs": 200,
        "training.monitor": "loss",
        "training.patience": 30,
        "training.augmentation": "juodelyte",
    },
    "mei": {
        "model.image_size": 256,
        "model.preprocessing": "caffe_unit",
        "model.dropout": 0.5,
        "model.head": "softmax",
        "training.loss": "binary_crossentropy",
        "training.optimizer": "adam",
        "training.learning_rate": None,  # must be given: the source uses four
        "training.schedule": "constant",
        "training.batch_size": 256,
        "training.epochs": 30,
        "training.monitor": "loss",
        "training.patience": None,
        "training.augmentation": "juodelyte",
    },
}

RECIPES: Mapping[str, dict[str, Any]] = MappingProxyType(_RECIPES)


def recipe_values(name: str) -> dict[str, Any]:
    """The dotted settings that recipe `name` changes; UnknownNameError if there is none."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]


def head_phase(training: TrainingSettings) -> TrainingSettings:
    """The settings for training the head alone in the first phase.

    References:
        Juodelyte et al. 2023 (arXiv 2302.08272), section 3 and code: Adam, 1e-3, validation accuracy, patience 10.
    """
    return replace(
        training,
        optimizer="adam",
        learning_rate=1e-3,
        weight_decay=0.0,
        ema_momentum=None,
        schedule="constant",
        warmup_epochs=0.0,
        monitor="accuracy",
        patience=10,
        eval_every=None,
    )
