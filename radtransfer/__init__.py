"""radtransfer: fine-tune pretrained networks on medical images, and measure what transfer did.

Importing this package imports neither TensorFlow nor NumPy; each public name is loaded when used.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "build_backbone": "radtransfer.pretrained.match",
    "load_config": "radtransfer.config.load",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'radtransfer' has no attribute {name!r}")
    if name == "build_backbone":
        importlib.import_module("radtransfer.process").require_keras()
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
