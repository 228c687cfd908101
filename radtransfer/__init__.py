"""radtransfer: fine-tune pretrained networks on medical images, and measure what transfer did.

Importing this package imports neither TensorFlow nor NumPy; each public name is loaded when used.
"""

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radtransfer import initializers, similarity
    from radtransfer.api import (
        check_data,
        compare,
        evaluate,
        explain,
        export,
        finetune,
        load_data,
        load_run,
        make_report,
        plan_transfer,
        predict,
        run_study,
    )
    from radtransfer.evaluation import metrics
    from radtransfer.pretrained.match import build_backbone

__version__ = "0.1.0"

_MODULES = {
    "initializers": "radtransfer.initializers",
    "metrics": "radtransfer.evaluation.metrics",
    "similarity": "radtransfer.similarity",
}

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
    if name in __all__:
        return getattr(importlib.import_module("radtransfer.api"), name)
    raise AttributeError(f"module 'radtransfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
