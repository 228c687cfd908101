"""radtransfer: fine-tune pretrained networks on medical images, and measure what transfer did.

Importing this package imports neither TensorFlow nor NumPy; each public name is loaded when used.
"""

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radtransfer import initializers, similarity
    from radtransfer.api.comparisons import compare
    from radtransfer.api.data import check_data, load_data
    from radtransfer.api.plans import plan_transfer
    from radtransfer.api.runs import finetune, load_run
    from radtransfer.api.studies import make_report, run_study
    from radtransfer.api.trained import evaluate, explain, export, predict
    from radtransfer.evaluation import metrics
    from radtransfer.pretrained.match import build_backbone

__version__ = "0.1.0"

_MODULES = {
    "initializers": "radtransfer.initializers",
    "metrics": "radtransfer.evaluation.metrics",
    "similarity": "radtransfer.similarity",
}

_FUNCTIONS = {
    "comparisons": ("compare",),
    "data": ("check_data", "load_data"),
    "plans": ("plan_transfer",),
    "runs": ("finetune", "load_run"),
    "studies": ("make_report", "run_study"),
    "trained": ("evaluate", "explain", "export", "predict"),
}
"""The modules of `radtransfer.api`, and which functions they have."""

__all__ = [
    "__version__",
    "build_backbone",
    "check_data",
    "compare",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "initializers",
    "load_data",
    "load_run",
    "make_report",
    "metrics",
    "plan_transfer",
    "predict",
    "run_study",
    "similarity",
]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name == "build_backbone":
        importlib.import_module("radtransfer.process").require_keras()
        return importlib.import_module("radtransfer.pretrained.match").build_backbone
    if name == "load_config":
        warnings.warn(
            "radtransfer.load_config has moved: use radtransfer.config.load.load_config, or pass settings to "
            "radtransfer.finetune",
            DeprecationWarning,
            stacklevel=2,
        )
        return importlib.import_module("radtransfer.config.load").load_config
    for module, functions in _FUNCTIONS.items():
        if name in functions:
            return getattr(importlib.import_module(f"radtransfer.api.{module}"), name)
    raise AttributeError(f"module 'radtransfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
