"""Learning rate schedules as a pure function of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from lmzoo.train.config import ResolvedTrainConfig

DECAY_SHARE = 0.2  # share of the steps in which `wsd` decays, at the end


def learning_rate(step: int, config: ResolvedTrainConfig) -> float:
    """Return the learning rate of `step` (the first is 0); a linear warm-up that starts above zero comes first.

    `cosine` decays along half a cosine from `learning_rate` to `min_learning_rate`, reached in the last step
    (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts). `wsd` (warm-up, stable, decay: Hu et al. 2024,
    arXiv 2404.06395) stays at `learning_rate` and decays linearly in the last `DECAY_SHARE` of the steps, at least in
    the last one. `linear` decays linearly after the warm-up. `constant` does not decay.
    """
    high, low, warmup = config.learning_rate, config.min_learning_rate, config.warmup_steps
    if step < warmup:
        return high * (step + 1) / (warmup + 1)
    last, start = config.steps - 1, decay_start(config)
    if start is None or step < start or last <= start:
        return high
    done = min(1.0, (step - start) / (last - start))
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    return low + (high - low) * left


def decay_start(config: ResolvedTrainConfig) -> int | None:
    """Return the last step at the peak learning rate, after which the schedule decays; None if it never does."""
    if config.schedule == "constant":
        return None
    if config.schedule == "wsd":
        decay = max(2, round(DECAY_SHARE * config.steps))  # at least two: the first of them is still at the peak
        return max(config.warmup_steps, config.steps - decay)
    return config.warmup_steps
