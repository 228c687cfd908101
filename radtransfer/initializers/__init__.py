"""Where weights can start from, as Keras initializers that are usable on any layer.

    from radtransfer.initializers import MeanVar
    keras.layers.Conv2D(64, 7, kernel_initializer=MeanVar.like(pretrained_kernel, seed=1))

Each is registered with Keras, and a pure function of its arguments: the same seed gives the same weights, so two
layers with one seed start alike. Give every layer its own, as `radtransfer.seeds.derive_seed(seed, layer.name)`
does. To add one, write `radtransfer/initializers/<name>.py` with a registered `NumpyInitializer` and name it here,
in the table and among the public names.

Importing this package imports neither Keras nor NumPy. To load a saved model that carries one of these
initializers, import Keras first or any of the public names: both register them all.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from radtransfer.registry import Table

if TYPE_CHECKING:
    from radtransfer.initializers.batch_norm import batch_norm_initializers
    from radtransfer.initializers.copied import Copied
    from radtransfer.initializers.gabor import Gabor
    from radtransfer.initializers.mean_var import MeanVar
    from radtransfer.initializers.positive_mean_var import PositiveMeanVar
    from radtransfer.initializers.sampled import Sampled
    from radtransfer.initializers.shuffled import Shuffled

__all__ = [
    "INITIALIZERS",
    "Copied",
    "Gabor",
    "MeanVar",
    "PositiveMeanVar",
    "Sampled",
    "Shuffled",
    "batch_norm_initializers",
]

INITIALIZERS = Table(
    "initializer",
    {
        "mean_var": "radtransfer.initializers.mean_var:MeanVar",
        "positive_mean_var": "radtransfer.initializers.positive_mean_var:PositiveMeanVar",
        "sampled": "radtransfer.initializers.sampled:Sampled",
        "shuffled": "radtransfer.initializers.shuffled:Shuffled",
        "copied": "radtransfer.initializers.copied:Copied",
        "gabor": "radtransfer.initializers.gabor:Gabor",
    },
)
"""Name to class; a class, and Keras with it, is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    """The public names, imported when first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "batch_norm_initializers":
        return importlib.import_module("radtransfer.initializers.batch_norm").batch_norm_initializers
    return _registered()[name]


def _registered() -> dict[str, type]:
    """Every class by its own name; importing them registers them with Keras."""
    return {initializer.__name__: initializer for initializer in INITIALIZERS.values()}


# Keras finds a custom class only after its module was imported. Where Keras is loaded already this costs nothing,
# and `import radtransfer.initializers` is then enough to load a saved model.
if "keras" in sys.modules:
    _registered()
