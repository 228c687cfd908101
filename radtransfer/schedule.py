"""The learning rate as a pure function of the step."""

import math

from radtransfer.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, *, step: int, steps_per_epoch: int) -> float:
    """The rate of step `step` (from 0).

    Warm-up rises linearly and reaches the peak with its last step; cosine falls to 0 over what is left of
    `epochs`; step divides by 10 at each of `step_epochs`.

    References:
        Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.2 (warm-up, steps).
        Loshchilov & Hutter 2017, SGDR, equation 5 (cosine, one cycle).
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "cosine":
        share = (step - warmup) / max(settings.epochs * steps_per_epoch - warmup, 1)
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
    if settings.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in settings.step_epochs)
        return settings.learning_rate * 0.1**passed
    return settings.learning_rate
