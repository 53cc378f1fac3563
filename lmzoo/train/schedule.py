"""The learning rate of each step, as a pure function: a resumed run needs no state to find its place."""

from __future__ import annotations

import math

from lmzoo.train.config import TrainConfig

DECAY_SHARE = 0.2  # of the steps, at the end of `wsd`


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of `step` (0 is the first), after a linear warm-up that never is zero.

    `cosine` falls along half a cosine from the highest rate to `final_learning_rate`, reached in the last step
    (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts). `wsd` (warm-up, stable, decay: Hu et al. 2024,
    arXiv 2404.06395) stays at the highest and falls linearly in the last `DECAY_SHARE` of the steps. `linear` falls so
    from the end of the warm-up on. `constant` stays.
    """
    high, low, warmup = config.learning_rate, config.final_learning_rate, config.warmup
    if step < warmup:
        return high * (step + 1) / (warmup + 1)
    last = config.steps - 1
    start = max(warmup, config.steps - round(DECAY_SHARE * config.steps)) if config.schedule == "wsd" else warmup
    if config.schedule == "constant" or step < start or last <= start:
        return high
    done = min(1.0, (step - start) / (last - start))
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    return low + (high - low) * left
