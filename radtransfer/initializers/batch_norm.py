"""What batch norm starts from where the convolutions around it do not keep their pretrained weights."""

from collections.abc import Mapping

import keras
import numpy as np

from radtransfer.errors import UnknownNameError
from radtransfer.initializers.copied import Copied
from radtransfer.initializers.mean_var import MeanVar
from radtransfer.initializers.positive_mean_var import PositiveMeanVar
from radtransfer.seeds import derive_seed

POLICIES = ("identity", "mean_var", "transfer")
"""Names of the three policies, as in YAML."""

_IDENTITY = {
    "gamma": keras.initializers.Ones,
    "beta": keras.initializers.Zeros,
    "moving_mean": keras.initializers.Zeros,
    "moving_variance": keras.initializers.Ones,
}


def batch_norm_initializers(
    policy: str, vectors: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, keras.initializers.Initializer]:
    """The arguments that make a batch-norm layer start as `policy` says.

        keras.layers.BatchNormalization(**batch_norm_initializers("mean_var", pretrained, seed=1))

    Args:
        policy: `identity`: gamma and moving variance 1, beta and moving mean 0. `mean_var`: each vector redrawn
            with the mean and variance of the pretrained one; a variance stays positive. `transfer`: each copied.
        vectors: The pretrained `gamma`, `beta`, `moving_mean` and `moving_variance`; some may be left out.
        seed: Of the layer; each vector has its own stream.

    Returns:
        `gamma_initializer` and so on, for the vectors given.

    Raises:
        UnknownNameError: No such policy or vector.
        ValueError: A vector is empty or not finite, or the variances are not above 0.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.1 and Figure 17.
    """
    return {
        f"{name}_initializer": _vector_initializer(policy, name, vector, seed=derive_seed(seed, name))
        for name, vector in vectors.items()
    }


def _vector_initializer(policy: str, name: str, vector: np.ndarray, *, seed: int) -> keras.initializers.Initializer:
    if name not in _IDENTITY:
        raise UnknownNameError("batch-norm vector", name, _IDENTITY)
    if policy == "identity":
        return _IDENTITY[name]()
    if policy == "mean_var":
        return (PositiveMeanVar if name == "moving_variance" else MeanVar).like(vector, seed)
    if policy == "transfer":
        return Copied(vector)
    raise UnknownNameError("batch-norm policy", policy, POLICIES)
