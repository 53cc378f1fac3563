"""The learning rate of each step, as a pure function of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from lmzoo.train.config import ResolvedTrainConfig

DECAY_SHARE = 0.2  # of the steps, at the end of `wsd`


def learning_rate(step: int, config: ResolvedTrainConfig) -> float:
    """The learning rate of `step` (the first is 0), after a linear warm-up that starts above zero.

    `cosine` falls along half a cosine from `learning_rate` to `min_learning_rate`, which the last step has
    (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts). `wsd` (warm-up, stable, decay: Hu et al. 2024,
    arXiv 2404.06395) stays at `learning_rate` and falls linearly in the last `DECAY_SHARE` of the steps. `linear` falls
    linearly from the end of the warm-up on. `constant` does not fall.
    """
    high, low, warmup = config.learning_rate, config.min_learning_rate, config.warmup_steps
    if step < warmup:
        return high * (step + 1) / (warmup + 1)
    last = config.steps - 1
    start = max(warmup, config.steps - round(DECAY_SHARE * config.steps)) if config.schedule == "wsd" else warmup
    if config.schedule == "constant" or step < start or last <= start:
        return high
    done = min(1.0, (step - start) / (last - start))
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    return low + (high - low) * left
