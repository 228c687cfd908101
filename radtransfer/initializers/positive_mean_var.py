"""Mean Var for quantities that are never negative: the moving variances of batch norm."""

import math

import keras
import numpy as np

from radtransfer.initializers.mean_var import MeanVar
from radtransfer.initializers.random_stream import random_stream


@keras.saving.register_keras_serializable(package="radtransfer")
class PositiveMeanVar(MeanVar):
    """Independent draws from a log-normal distribution of a given mean and standard deviation.

    Differs from the paper, which says "resampling … according to the ImageNet means and variances" and not how a
    variance stays positive. The moving variances of pretrained networks spread as far as their mean, so a normal
    cut or folded at zero would have neither the mean nor the variance that it was given; the log-normal has both.

    Args:
        mean: Of the distribution (not of its logarithm), above 0.
        stddev: Its standard deviation, at least 0.
        seed: Non-negative; the same seed gives the same weights.

    Raises:
        ValueError: An argument is out of range.

    References:
        Raghu et al. 2019, Transfusion (arXiv 1902.07208), Appendix F.1.
    """

    def __init__(self, mean: float, stddev: float, seed: int):
        super().__init__(mean, stddev, seed)
        if self.mean <= 0:
            raise ValueError(f"Expected a mean above 0. Received: {mean}. Use MeanVar for values that may be negative.")

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        log_variance = math.log1p((self.stddev / self.mean) ** 2)
        normal = random_stream(self.seed).standard_normal(shape)
        return self.mean * np.exp(math.sqrt(log_variance) * normal - log_variance / 2)
